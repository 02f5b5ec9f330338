"""What a session pays for beside the machine's time: the files it keeps, and what goes over the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from line_for_tests import write_films
from thriftune import traffic
from thriftune.clock import ManualClock
from thriftune.errors import CannotLand
from thriftune.forecasting import expect_all
from thriftune.project import Project
from thriftune.session import Session, open_session

GB = 10**9
PROJECT = """name: films
objective: {{task: classify}}
data:
  - {{file: films.csv, text: text, label: label}}
budget: {{total: {total}}}
deadline: 10h
compute: {{price_per_hour: 3.6, {prices}}}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))
    write_films(tmp_path / "films.csv", rows=20)


@contextmanager
def session(folder: Path, prices: str = "measure_energy: no", total: str = "100.00") -> Iterator[Session]:
    (folder / "thriftune.yaml").write_text(PROJECT.format(prices=prices, total=total))
    with open_session(Project.load(folder / "thriftune.yaml"), clock=ManualClock(1.8e9)) as opened:
        expect_all(opened)
        yield opened


def spent_on(opened: Session, category: str) -> list[tuple[str, Decimal]]:
    charges = opened.context.events.read(kinds=["charge"])
    return [(e.data["phase"], Decimal(e.data["amount"])) for e in charges if e.data["category"] == category]


def test_what_is_fetched_is_held_before_and_charged_after(tmp_path: Path) -> None:
    with session(tmp_path, "transfer_per_gb: 0.09") as opened:
        with opened.part("encode"):
            before = opened.context.ledger.balance().reserved
            traffic.begins(3 * GB, "fetching a model")
            assert opened.context.ledger.balance().reserved == before + Decimal("0.27")
            traffic.moved(2 * GB)
        assert spent_on(opened, "transfer") == [("training", Decimal("0.18"))]
        assert opened.context.events.read(kinds=["transfer"])[0].data["bytes"] == 2 * GB


def test_what_the_budget_does_not_hold_is_not_fetched(tmp_path: Path) -> None:
    with (
        pytest.raises(CannotLand, match="fetching a model"),
        session(tmp_path, "transfer_per_gb: 0.09") as opened,
        opened.part("encode"),
    ):
        traffic.begins(2000 * GB, "fetching a model")
        pytest.fail("it was fetched")
    with session(tmp_path) as opened:
        assert spent_on(opened, "transfer") == []


def test_what_nobody_foretold_is_charged_and_what_has_no_price_is_counted(tmp_path: Path) -> None:
    with session(tmp_path, "transfer_per_gb: 0.09") as opened, opened.part("encode"):
        traffic.moved(GB)
    with session(tmp_path) as opened:
        assert spent_on(opened, "transfer") == [("training", Decimal("0.09"))]
        with opened.part("encode"):
            assert not traffic.is_asked()
            traffic.moved(GB)
        assert spent_on(opened, "transfer") == [("training", Decimal("0.09"))]
        assert [event.data["cost"] for event in opened.context.events.read(kinds=["transfer"])] == ["0.09", None]


def test_storage_is_kept_free_and_part_of_the_smallest_budget_that_works(tmp_path: Path) -> None:
    with session(tmp_path) as plain:
        without = plain.plan().minimum_budget(), plain.limits()
    with session(tmp_path, "storage_per_gb_month: 73, measure_energy: no") as opened:
        limits = opened.limits()
        kept = opened.context.ledger.balance().reserved
        assert limits.to_keep == kept > Decimal("0.9")  # 1 to 2 GB for ten hours, 0.10 an hour and GB
        assert limits.money_left == pytest.approx(without[1].money_left)
        assert limits.money_seconds == pytest.approx(without[1].money_seconds - 1000 * float(kept), abs=2)
        assert opened.plan().minimum_budget() == pytest.approx(without[0] + kept, abs=Decimal("0.02"))
        clock = opened.context.clock
        assert isinstance(clock, ManualClock)
        with opened.part("encode"):
            (opened.context.root / "model").write_bytes(b"")
            with (opened.context.root / "model").open("r+b") as file:
                file.truncate(GB)
            clock.advance(60)
        ((phase, amount),) = spent_on(opened, "storage")
        assert phase == "training" and amount == pytest.approx(Decimal("0.1") / 120, rel=Decimal("0.01"))
    ledger = opened.context.ledger
    assert ledger.balance().reserved == 0


def test_storage_that_does_not_fit_refuses_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(CannotLand, match="storage to the run's end"), session(tmp_path, "storage_per_gb_month: 99999"):
        pytest.fail("it began")
