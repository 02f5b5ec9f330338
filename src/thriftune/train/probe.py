"""A probe of real steps on the real machine: what training will take, measured on the loop that will do it."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np

from thriftune.artifacts import write_file_atomic
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.batches import padded_tokens, sorted_batches, take
from thriftune.train.checkpoint import load_trained, trained_state
from thriftune.train.loop import Costs, Loop

VALIDATION_ROWS = 64
DISK_PROBE_BYTES = 16 * 2**20


def probe_costs(loop: Loop, seconds: float, scratch: Path) -> Costs:
    """Measure steps, validation and saving; the model is left as it was.

    Args:
        loop: a fresh loop.
        seconds: how long to go on with steps past the first few.
        scratch: a folder on the disk that will hold checkpoints.
    """
    before = trained_state(loop.model)
    rates = _step_rates(loop, seconds)
    load_trained(loop.model, before)
    loop.optimizer.state.clear()
    loop.padded = loop.real = 0
    state_bytes = sum(p.numel() * p.element_size() for p in loop.trained)
    return Costs(
        seconds_per_token=median(rates),
        validation=_validation_seconds(loop.task, loop, loop.validation),
        checkpoint=4 * state_bytes * _seconds_per_byte(scratch),  # weights, two moments, the best so far
    )


def _step_rates(loop: Loop, seconds: float) -> list[float]:
    """Seconds per padded token of real updates, the first (which warms up) left out."""
    rates: list[float] = []
    began = time.monotonic()
    for step in range(loop.full_steps):
        padded, started = loop.padded, time.monotonic()
        loop.update(step).item()
        rates.append((time.monotonic() - started) / (loop.padded - padded))
        if len(rates) >= 2 and time.monotonic() - began >= seconds:
            break
    return rates[1:] or rates


def _validation_seconds(task: Task, loop: Loop, validation: Encoded) -> float:
    """Seconds of a whole pass, from a sample spread over the lengths."""
    by_length = np.argsort(validation.lengths, kind="stable")
    sample = by_length[np.linspace(0, len(by_length) - 1, min(VALIDATION_ROWS, len(by_length))).astype(np.int64)]
    part = take(validation, sample)
    budget = loop.machine.read_batch_tokens
    began = time.monotonic()
    with loop.machine.autocast():
        task.validate(loop.model, part, budget)
    seconds = time.monotonic() - began
    whole = padded_tokens(validation.lengths, sorted_batches(validation.lengths, budget))
    return seconds * whole / max(1, padded_tokens(part.lengths, sorted_batches(part.lengths, budget)))


def _seconds_per_byte(scratch: Path) -> float:
    """How long a durable write takes here, per byte."""
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / "disk-probe"
    began = time.monotonic()
    write_file_atomic(target, bytes(DISK_PROBE_BYTES))
    seconds = time.monotonic() - began
    target.unlink()
    return seconds / DISK_PROBE_BYTES
