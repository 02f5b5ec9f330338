"""The machine's use: agrees with the kernel's own count, tells idling from working."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from thriftune.budget.usage import Watcher


def work(seconds: float) -> None:
    """So many seconds of processor time, however long they take on a busy machine."""
    ends = time.process_time() + seconds
    while time.process_time() < ends:
        sum(range(1000))


def test_processor_time_is_the_kernels() -> None:
    before = time.process_time()
    with Watcher(look_seconds=0.1).span() as usage:
        work(0.5)
    assert usage.cpu_seconds + 0.05 >= 0.5 and usage.cpu_seconds <= time.process_time() - before + 0.05
    assert usage.cores == len(os.sched_getaffinity(0)) and usage.seconds > 0


def test_sleeping_is_idle_and_working_is_not() -> None:
    with Watcher(look_seconds=0.1).span() as asleep:
        time.sleep(0.6)
    assert asleep.idle_seconds >= 0.5 * asleep.seconds
    with Watcher(idle_below=1e-6, look_seconds=0.1).span() as awake:
        work(0.4)
    assert awake.idle_seconds <= 0.5 * awake.seconds  # a look shorter than the kernel's tick may see no work


def test_what_is_written_is_counted_where_the_system_tells(tmp_path: Path) -> None:
    with Watcher().span() as usage, (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 2_000_000)
        file.flush()
        os.fsync(file.fileno())
    if usage.written_bytes is None:
        pytest.skip("this container does not tell")
    assert usage.written_bytes >= 0 and usage.memory_bytes > usage.peak_bytes > 0


def test_a_span_ends_with_its_block_also_when_that_raises() -> None:
    with pytest.raises(RuntimeError), Watcher(look_seconds=0.05).span() as usage:
        raise RuntimeError
    seen = usage.seconds
    time.sleep(0.2)
    assert usage.seconds == seen
