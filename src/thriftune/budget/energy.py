"""What a run's machine draws, measured by codecarbon (the extra `carbon`) where the project file asks for it.

codecarbon works in a process of its own (`energy_process.py`) with the lowest priority, an empty home and no setting
from the user's environment: it takes no time from training, asks nothing of the network and leaves no file behind.
What it says is a measurement where the processor counts its energy (RAPL) and for NVIDIA's GPUs (NVML); elsewhere it
reckons with the processor's load and rated power, and its name says so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import site
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from thriftune.errors import MissingExtra

STALE_SECONDS = 10.0  # for which the latest draw is taken to go on; beyond that nothing counts as measured


@dataclass(frozen=True)
class Reading:
    """Joules since measuring began, at an instant of `time.monotonic`."""

    at: float
    joules: float


@dataclass(frozen=True)
class Measured:
    """What a span of time drew.

    Args:
        joules: of the whole machine.
        seconds: of the span in which it was measured.
        by: what measured it, as people read it.
        grams_per_kwh: of carbon dioxide, by the measurer's data for the country; None where it has none.
    """

    joules: float
    seconds: float
    by: str
    grams_per_kwh: float | None


class EnergyMeter:
    """Reads what the measuring process says; never waits for it.

    Args:
        country: ISO 3166-1 alpha-3, whose emission factor is asked for; None for none.
        province: a part of the country with a factor of its own.
    """

    def __init__(self, country: str | None = None, province: str | None = None) -> None:
        self._by = ""
        self._grams_per_kwh: float | None = None
        self._first: Reading | None = None
        self._latest: Reading | None = None
        self._watts = 0.0
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="thriftune-energy-", ignore_cleanup_errors=True)
        arguments = [] if country is None else [country] if province is None else [country, province]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "thriftune.budget.energy_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env=_environment(self._folder.name),
        )
        self._reader = threading.Thread(target=self._read, name="thriftune-energy", daemon=True)
        self._reader.start()

    def reading(self) -> Reading | None:
        """The latest, taken forward to now at the latest draw; None before the first."""
        with self._lock:
            latest, watts = self._latest, self._watts
        if latest is None:
            return None
        since = min(max(0.0, time.monotonic() - latest.at), STALE_SECONDS)
        return Reading(latest.at + since, latest.joules + watts * since)

    def since(self, before: Reading | None) -> Measured | None:
        """What was drawn since a reading, or since the first where there was none; None where nothing was measured."""
        now, before = self.reading(), before or self._first
        if now is None or before is None or now.at <= before.at:
            return None
        return Measured(max(0.0, now.joules - before.joules), now.at - before.at, self._by, self._grams_per_kwh)

    def close(self) -> None:
        """End the measuring process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._folder.cleanup()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            try:
                said = json.loads(line)
            except ValueError:
                continue  # a line that was cut off when the process was ended
            with self._lock:
                self._take(said)

    def _take(self, said: dict[str, float | str | None]) -> None:
        if "by" in said:
            grams = said["grams_per_kwh"]
            self._by, self._grams_per_kwh = str(said["by"]), None if grams is None else float(grams)
            return
        now = Reading(float(said["at"] or 0.0), float(said["joules"] or 0.0))
        if self._latest is not None and now.at > self._latest.at:
            self._watts = (now.joules - self._latest.joules) / (now.at - self._latest.at)
        self._first = self._first or now
        self._latest = now


def require_codecarbon() -> None:
    """See that energy can be measured.

    Raises:
        MissingExtra: codecarbon is not installed.
    """
    if importlib.util.find_spec("codecarbon") is None:
        raise MissingExtra(
            "measuring energy needs codecarbon, which is not installed",
            "compute.measure_energy",
            "no module codecarbon",
            "the extra `carbon`",
            "pip install 'thriftune[carbon]', or leave compute.measure_energy out: energy is then estimated",
        )


def _environment(home: str) -> dict[str, str]:
    """This process's, with an empty home and nothing that codecarbon would take for its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().startswith("codecarbon_")}
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return kept | {"HOME": home, "USERPROFILE": home, "PYTHONUSERBASE": site.getuserbase(), "PYTHONPATH": paths}
