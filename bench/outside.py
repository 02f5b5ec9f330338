"""A process seen from outside: seconds from start to exit, and the most memory that it and its children held."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import SOURCE

LOOK_SECONDS = 0.03
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
TAIL = 2000  # characters of what it said that are kept


@dataclass(frozen=True)
class Seen:
    """What became of a command.

    Args:
        exit: its status.
        seconds: from its start to its exit.
        peak_bytes: the most that was resident in it and its children together, looked at every `LOOK_SECONDS`.
        out: its standard output.
        said: the end of its standard error.
        others_cores: cores that all other processes used meanwhile, the mean: near 0 where it was alone.
    """

    exit: int
    seconds: float
    peak_bytes: int
    out: str
    said: str
    others_cores: float


def watch(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Seen:
    """Run a command in a folder to its end, and look at it from outside.

    Args:
        environment: what is other than here. Thriftune's source here goes before any that is installed.
    """
    path = os.pathsep.join([str(SOURCE.parent), os.environ.get("PYTHONPATH", "")])
    whole = os.environ | {"PYTHONPATH": path} | dict(environment or {})
    out, said = folder / ".out", folder / ".said"
    peak, busy_before = 0, _others_seconds()
    with out.open("w") as out_file, said.open("w") as said_file:
        began = time.monotonic()
        process = subprocess.Popen(list(command), cwd=folder, env=whole, stdout=out_file, stderr=said_file)
        try:
            while process.poll() is None:
                peak = max(peak, resident_tree(process.pid))
                time.sleep(LOOK_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        seconds = time.monotonic() - began
    others = max(0.0, _others_seconds() - busy_before) / seconds
    return Seen(process.returncode, seconds, peak, out.read_text(), said.read_text()[-TAIL:], others)


def _others_seconds() -> float:
    """Processor seconds since the machine's start of all but this process and those children that have ended."""
    user, nice, system = (int(ticks) for ticks in Path("/proc/stat").read_text().split()[1:4])
    own = os.times()
    ours = own.user + own.system + own.children_user + own.children_system
    return (user + nice + system) / TICKS - ours


def resident_tree(pid: int) -> int:
    """Bytes that are resident in a process and its children; 0 for one that is gone."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        children = [
            child for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
        ]
    except (OSError, IndexError):
        return 0
    return resident + sum(resident_tree(int(child)) for child in children)


@contextmanager
def core_eaten_after(seconds: float) -> Iterator[None]:
    """Another process computes without end on a core, from so many seconds on to the end of the block."""
    began: list[subprocess.Popen[bytes]] = []
    timer = threading.Timer(seconds, lambda: began.append(subprocess.Popen([sys.executable, "-c", "while True: pass"])))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for process in began:
            process.kill()
            process.wait()
