"""How much of the machine a phase uses: processor, accelerator, memory, disk; and how long the machine idles, paid for.

The process is looked at once a second by psutil. A second is idle in which neither the processor nor the accelerator
does more than a stated share of what it could.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from thriftune.budget.energy import Measured
from thriftune.memory import limit_bytes, resident_bytes

LOOK_SECONDS = 1.0
IDLE_BELOW = 0.1


@dataclass
class Usage:
    """What one span of a phase used of its machine.

    Args:
        seconds: that it was watched.
        cpu_seconds: processor time of this process and of the children that it has waited for.
        cores: that it may use.
        idle_seconds: in which the machine did less than the stated share of what it could.
        resident_seconds: bytes in memory times seconds, from which the mean is.
        peak_bytes: the most that was seen in memory.
        memory_bytes: that the process may have.
        read_bytes, written_bytes: from and to disks; None where the system does not tell.
        accelerator_seconds: the accelerators' mean share of busy time, times seconds; None where none was measured.
        accelerators: how many.
        accelerator_peak: the most of an accelerator's memory that was seen in use, as a share.
        energy_joules: that the whole machine drew; None where it was not measured.
        energy_seconds: of the span in which it was.
        energy_by: what measured it.
        energy_grams_per_kwh: of carbon dioxide, by the measurer's data for the country; None where none was asked for.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    cores: int = 1
    idle_seconds: float = 0.0
    resident_seconds: float = 0.0
    peak_bytes: int = 0
    memory_bytes: int = 0
    read_bytes: int | None = None
    written_bytes: int | None = None
    accelerator_seconds: float | None = None
    accelerators: int = 0
    accelerator_peak: float | None = None
    energy_joules: float | None = None
    energy_seconds: float = 0.0
    energy_by: str | None = None
    energy_grams_per_kwh: float | None = None

    def add_energy(self, found: Measured | None) -> None:
        """Take what was measured of the span's energy."""
        if found is not None:
            self.energy_joules, self.energy_seconds = found.joules, found.seconds
            self.energy_by, self.energy_grams_per_kwh = found.by, found.grams_per_kwh


@dataclass(frozen=True)
class _Look:
    at: float
    cpu: float
    read: int | None
    written: int | None


class Watcher:
    """Watches this process in a thread of its own while a span is open.

    Args:
        idle_below: the share of work under which a second counts as idle.
        look_seconds: from one look to the next.
    """

    def __init__(self, idle_below: float = IDLE_BELOW, look_seconds: float = LOOK_SECONDS) -> None:
        self._idle_below = idle_below
        self._look_seconds = look_seconds

    @contextmanager
    def span(self) -> Iterator[Usage]:
        """Watch from here to the end of the block; what is yielded is whole then."""
        import psutil  # type: ignore[import-untyped]

        process = psutil.Process()
        cores = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1
        usage = Usage(cores=cores, memory_bytes=limit_bytes())
        devices = _accelerators()
        usage.accelerators = len(devices)
        before = first = _look(process)
        ending = threading.Event()

        def count() -> None:
            nonlocal before
            now = _look(process)
            self._count(usage, before, now, devices)
            before = now

        def watch() -> None:
            while not ending.wait(self._look_seconds):
                count()

        thread = threading.Thread(target=watch, name="thriftune-usage", daemon=True)
        thread.start()
        try:
            yield usage
        finally:
            ending.set()
            thread.join()
            count()
            usage.read_bytes = _between(first.read, before.read)
            usage.written_bytes = _between(first.written, before.written)

    def _count(self, usage: Usage, before: _Look, now: _Look, devices: list[Any]) -> None:
        """Add what happened between two looks."""
        seconds = now.at - before.at
        if seconds <= 0:
            return
        worked = max(0.0, now.cpu - before.cpu)
        share = worked / (seconds * usage.cores)
        resident = resident_bytes()
        usage.seconds += seconds
        usage.cpu_seconds += worked
        usage.resident_seconds += resident * seconds
        usage.peak_bytes = max(usage.peak_bytes, resident)
        if devices:
            busy, held = _busy(devices)
            usage.accelerator_seconds = (usage.accelerator_seconds or 0.0) + busy * seconds
            usage.accelerator_peak = max(usage.accelerator_peak or 0.0, held)
            share = max(share, busy)
        if share < self._idle_below:
            usage.idle_seconds += seconds


def told(usage: Usage) -> dict[str, Any]:
    """A span as the data of its event."""
    return asdict(usage)


def _look(process: Any) -> _Look:
    import psutil

    times = process.cpu_times()
    try:
        disk = process.io_counters()
        read, written = int(disk.read_bytes), int(disk.write_bytes)
    except (psutil.AccessDenied, AttributeError, OSError, NotImplementedError):
        return _Look(time.monotonic(), _worked(times), None, None)
    return _Look(time.monotonic(), _worked(times), read, written)


def _worked(times: Any) -> float:
    children = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + children)


def _between(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def _accelerators() -> list[Any]:
    """Handles of NVIDIA's GPUs by NVML; none without a GPU, its driver or the package `nvidia-ml-py`."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _busy(devices: list[Any]) -> tuple[float, float]:
    """The mean share of time in which the accelerators worked, and the largest share of their memory in use."""
    import pynvml

    shares, held = [], []
    for device in devices:
        try:
            shares.append(pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            held.append(memory.used / memory.total)
        except pynvml.NVMLError:
            continue
    return (sum(shares) / len(shares) if shares else 0.0), max(held, default=0.0)
