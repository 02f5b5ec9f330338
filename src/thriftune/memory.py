"""The memory of this process: what it holds now, and the most that it held in a span of time."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT = 2**31 - 1
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
RESET_PEAK = "5"  # proc_pid_clear_refs(5): the peak resident size becomes the present one
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(eq=False)
class Peak:
    """The most bytes that were resident while it was watched; 0 until that has ended."""

    bytes: int = 0


_open: list[Peak] = []


def resident_bytes() -> int:
    """Bytes of this process that are in memory now."""
    if sys.platform == "linux":
        return _status("VmRSS")
    import psutil  # type: ignore[import-untyped]

    return int(psutil.Process().memory_info().rss)


@contextmanager
def peak() -> Iterator[Peak]:
    """Watch the most that is resident from here to the end of the block; spans may nest.

    Where the kernel does not let a process restart its own count, the peak is that since the process's start, which
    is never too small.
    """
    _credit()
    restart_peak()
    seen = Peak()
    _open.append(seen)
    try:
        yield seen
    finally:
        _credit()
        _open.remove(seen)


def _credit() -> None:
    """Tell every open span what the count has come to, before someone restarts it."""
    most = peak_bytes()
    for span in _open:
        span.bytes = max(span.bytes, most)


def peak_bytes() -> int:
    """The most bytes that were resident since the count was last restarted."""
    if sys.platform == "linux":
        return _status("VmHWM")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def restart_peak() -> None:
    """Count the peak from now on, where the kernel lets us."""
    if sys.platform == "linux":
        try:
            CLEAR.write_text(RESET_PEAK)
        except OSError:  # a hardened container: the count goes on from the process's start
            return


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for what is allocated next, instead of giving it back to the kernel.

    A training step allocates and frees the same large arrays again and again. glibc maps each anew, and the kernel
    fills it with zeros page by page: on a CPU that takes longer than the arithmetic of a GELU. See mallopt(3).

    Returns:
        whether it does now: there is something to set in glibc only.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, LARGEST_KEPT))


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on an accelerator or on the machine.

    oneDNN does not say what it lacked for a kernel of a shape that it was about to make: `could not create a
    primitive`. For a shape that it has no kernel for it names the primitive's descriptor.
    """
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or any(words in said for words in NO_MEMORY)
        or ("could not create a primitive" in said and "descriptor" not in said)
    )


def give_back_freed_memory() -> None:
    """Let the kernel have what was freed and kept (`keep_freed_memory`)."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def usable_bytes() -> int:
    """Bytes that this process may still take: what the machine has free, or what its container's limit leaves."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _container_limit()
    return free if limit is None else min(free, max(0, limit - resident_bytes()))


def limit_bytes() -> int:
    """The most bytes of this process that may be resident: the least of the machine's, its container's and `ulimit -m`.

    Linux does not hold a process to the last one; who asks here is.
    """
    import psutil

    limits = [int(psutil.virtual_memory().total), _container_limit()]
    if sys.platform != "win32":
        import resource

        stated = resource.getrlimit(resource.RLIMIT_RSS)[0]
        limits.append(None if stated == resource.RLIM_INFINITY else stated)
    return min(limit for limit in limits if limit is not None)


def _container_limit() -> int | None:
    for path in CGROUP_LIMITS:
        try:
            limit = path.read_text().strip()
        except OSError:
            continue
        if limit.isdigit():
            return int(limit)
    return None


def _status(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell {field}")
