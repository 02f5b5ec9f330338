"""How a run chooses its precision: by what products take, and not by one look where the machine is near the bound."""

from pathlib import Path

import pytest
import torch

from thriftune.budget.record import Record
from thriftune.train import machine
from thriftune.train.machine import BF16_GAIN, GAIN_PART, probe_precision, probe_threads, probed_rows

HIDDEN = 64
PART = f"{GAIN_PART}/{probed_rows(HIDDEN)}x{HIDDEN}"


def timed(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    """A processor on which a product in bfloat16 is so many times as fast."""

    def seconds(rows: int, inner: int, columns: int, dtype: torch.dtype, device: str) -> float:
        del inner, columns, device
        return rows / (gain if dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr(machine, "product_seconds", seconds)


def test_one_look_near_the_bound_does_not_change_what_earlier_ones_chose(monkeypatch) -> None:
    record = Record(Path("unsaved"), "here")
    for gain, chosen in ((BF16_GAIN + 0.3, "bf16"), (BF16_GAIN + 0.2, "bf16"), (BF16_GAIN - 0.2, "bf16")):
        timed(monkeypatch, gain)
        assert probe_precision(HIDDEN, "cpu", record)[0] == chosen
    for _ in range(4):
        timed(monkeypatch, 1.0)
        chosen, because = probe_precision(HIDDEN, "cpu", record)
    assert (chosen, len(record.seen(PART))) == ("fp32", 7)
    assert because.endswith("the median of 7 looks")


@pytest.mark.parametrize(("two", "chosen"), [(0.6, 2), (1.05, 2), (1.3, 1)])
def test_a_core_that_is_busy_for_the_moment_of_the_probe_is_used_all_the_same(monkeypatch, two, chosen) -> None:
    def seconds(*_: object) -> float:
        return two if torch.get_num_threads() == 2 else 1.0

    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine, "product_seconds", seconds)
    try:
        assert probe_threads(HIDDEN)[0] == chosen
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("hidden", "rows"), [(384, 1024), (1024, 1024), (2048, 512), (4096, 256), (16384, 256)])
def test_a_product_is_probed_with_the_rows_of_a_batch_and_a_wide_models_with_fewer(hidden, rows) -> None:
    assert probed_rows(hidden) == rows


def test_widths_are_looked_at_apart(monkeypatch) -> None:
    record = Record(Path("unsaved"), "here")
    timed(monkeypatch, 3.0)
    probe_precision(HIDDEN, "cpu", record)
    timed(monkeypatch, 1.5)
    assert probe_precision(2 * HIDDEN, "cpu", record)[0] == "fp32"


def test_an_emulated_bfloat16_is_looked_at_once_and_not_kept(monkeypatch) -> None:
    record = Record(Path("unsaved"), "here")
    timed(monkeypatch, 0.01)
    chosen, because = probe_precision(HIDDEN, "cpu", record)
    assert (chosen, record.seen(PART)) == ("fp32", [])
    assert "more than 20 times slower" in because
