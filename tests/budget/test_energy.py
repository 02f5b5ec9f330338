"""Energy by the real codecarbon: what a machine draws, without network, files or settings of the user's."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from thriftune.budget import energy
from thriftune.budget.energy import EnergyMeter, Measured, Reading, require_codecarbon
from thriftune.errors import MissingExtra

PATIENCE_SECONDS = 60.0  # for a process of the lowest priority on a busy machine
LONG_AGO_SECONDS = 1000.0

# Taken by every interpreter that finds it: notes what the measuring process asks of network and disk.
WITNESS = """
import os, sys
def note(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto") or writes:
        seen = os.open({seen!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(seen, (event + " " + repr(arguments[0]) + chr(10)).encode())
        os.close(seen)
sys.addaudithook(note)
note('socket.connect', ['the witness is there'])
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EnergyMeter, Path]]:
    """A meter whose process is watched, beside a user who set codecarbon up to write and to send."""
    folder = tmp_path_factory.mktemp("energy")
    home, seen = folder / "home", folder / "seen"
    home.mkdir()
    (home / ".codecarbon.config").write_text(
        "[codecarbon]\nemissions_endpoint=http://127.0.0.1:9\nsave_to_file=true\nelectricitymaps_api_token=x\n"
    )
    (folder / "sitecustomize.py").write_text(WITNESS.format(seen=str(seen)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://127.0.0.1:9")
        patch.setenv("CODECARBON_OUTPUT_DIR", str(home))
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.chdir(home)
        meter = EnergyMeter("DEU")
        yield meter, folder
        meter.close()


def first_reading(meter: EnergyMeter) -> Reading:
    ends = time.monotonic() + PATIENCE_SECONDS
    while (found := meter.reading()) is None:
        assert time.monotonic() < ends, "codecarbon said nothing"
        time.sleep(0.05)
    return found


def test_a_span_has_its_energy_and_says_who_measured_it(watched: tuple[EnergyMeter, Path]) -> None:
    meter, _ = watched
    before = first_reading(meter)
    time.sleep(2.5)
    found = meter.since(before)
    assert found is not None and found.by.startswith("codecarbon ")
    assert found.seconds == pytest.approx(2.5, abs=2.0)
    assert 0.1 < found.joules / found.seconds < 10_000  # watts of a machine that exists
    assert found.grams_per_kwh is not None and 20 < found.grams_per_kwh < 1000
    assert isinstance(meter.since(None), Measured)


def test_it_asks_nothing_of_the_network_and_leaves_nothing_with_the_user(watched: tuple[EnergyMeter, Path]) -> None:
    meter, folder = watched
    first_reading(meter)
    time.sleep(1.5)
    seen = folder / "seen"
    noted = seen.read_text().splitlines()
    assert {line for line in noted if line.startswith("socket")} == {"socket.connect 'the witness is there'"}
    assert [line for line in noted if line.startswith("open") and str(folder) in line] == []
    assert sorted(path.name for path in (folder / "home").iterdir()) == [".codecarbon.config"]


def test_the_process_has_the_lowest_priority_and_ends_with_the_meter() -> None:
    meter = EnergyMeter()
    process = psutil.Process(meter._process.pid)
    ends = time.monotonic() + PATIENCE_SECONDS
    while process.nice() != 19:
        assert time.monotonic() < ends, "it never yields"
        time.sleep(0.01)
    folder = Path(meter._folder.name)
    meter.close()
    assert not process.is_running() and not folder.exists()


def test_it_ends_when_its_parent_is_gone() -> None:
    meter = EnergyMeter()
    assert meter._process.stdin is not None
    meter._process.stdin.close()  # as the kernel does for a parent that was killed
    assert meter._process.wait(PATIENCE_SECONDS) == 0
    meter.close()


def test_a_silent_process_is_not_taken_forward_for_ever(watched: tuple[EnergyMeter, Path]) -> None:
    meter, _ = watched
    first_reading(meter)
    quiet = object.__new__(EnergyMeter)
    quiet.__dict__ |= meter.__dict__ | {"_latest": Reading(time.monotonic() - LONG_AGO_SECONDS, 500.0), "_watts": 10.0}
    found = quiet.reading()
    assert found is not None and found.joules == pytest.approx(500 + 10 * energy.STALE_SECONDS)


def test_without_codecarbon_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="codecarbon"):
        require_codecarbon()
