"""Who is alive: names for machines and processes that a reused pid, a reboot or a changed clock cannot blur."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

PROC = Path("/proc")


class Life(Enum):
    """What can be said of a process from here."""

    ALIVE = "alive"
    DEAD = "dead"
    UNSEEN = "unseen"  # it belongs to another boot or another container: its pid means nothing here


@dataclass(frozen=True)
class ProcessName:
    """A process, told apart from every other that had or will have its pid.

    Args:
        pid: its number.
        started: its start in the kernel's own count since boot, which no change of the wall clock moves.
        place: the boot and the pid namespace in which the number means something.
    """

    pid: int
    started: str
    place: str

    def life(self) -> Life:
        """Whether it still runs. A zombie, dead but not yet waited for by its parent, counts as dead."""
        if self.place != _place():
            return Life.UNSEEN
        return Life.ALIVE if _start_of(self.pid) == self.started else Life.DEAD


def this_process() -> ProcessName:
    """The name of the calling process."""
    pid = os.getpid()
    started = _start_of(pid)
    if started is None:
        raise RuntimeError(f"the operating system does not know the running process {pid}")
    return ProcessName(pid, started, _place())


def process_age() -> float:
    """Seconds since the calling process was started, interpreter start-up and imports included."""
    if sys.platform == "linux":
        ticks = int(this_process().started)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    import psutil  # type: ignore[import-untyped]

    return max(0.0, time.time() - float(psutil.Process().create_time()))


@cache
def machine_id() -> str:
    """A name of this machine that outlives reboots: systemd's machine id, or else the host's name."""
    path = Path("/etc/machine-id")
    written = path.read_text().strip() if path.is_file() else ""
    return written or socket.gethostname()


@cache
def _place() -> str:
    if sys.platform == "linux":
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    import psutil

    return f"boot {psutil.boot_time():.0f}"


def _start_of(pid: int) -> str | None:
    """The start of a running process, None when there is no such process or it is a zombie."""
    if sys.platform == "linux":
        try:
            stat = (PROC / str(pid) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat.rpartition(")")[2].split()  # the name before the bracket may hold spaces
        return None if fields[0] in "ZX" else fields[19]  # state, and starttime: proc_pid_stat(5), fields 3 and 22
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.NoSuchProcess:
        return None
