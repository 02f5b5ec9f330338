"""A probe of real steps on the real machine: what training will take, measured on the loop that will do it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from thriftune.artifacts import sweep, write_file_atomic
from thriftune.memory import peak, resident_bytes
from thriftune.models.prefix import NotPassable, Prefix, passable_depth
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.batches import micro_batches, padded_tokens, sorted_batches, take
from thriftune.train.checkpoint import copied
from thriftune.train.costs import Costs, PhaseCosts, PrefixCosts
from thriftune.train.loop import Loop
from thriftune.train.prefix_cache import Needs, PrefixCache, prefix_states
from thriftune.train.recipe import Phase

FEW_VALIDATION_ROWS, VALIDATION_ROWS = 16, 64
LONG_VALIDATION = 0.3  # seconds of a sample that tell enough
LOOKED_AT = 2000  # updates: of as many at random the largest is hardly smaller than that of all
DISK_PROBE_BYTES = 16 * 2**20


def probe_costs(loop: Loop, seconds: float, scratch: Path) -> Costs:
    """Measure steps, validation and saving; the model is left as it was.

    Args:
        loop: a fresh loop, of no use afterwards.
        seconds: how long to go on with steps past the first few.
        scratch: a folder on the disk that will hold checkpoints.
    """
    last = len(loop.unfreezing.phases) - 1
    loop.enter(last)
    before = copied(loop.ranks.trained(loop.model))
    loop.enter(0)
    rates, peak_bytes = _steps(loop, seconds)
    prefix = _prefix_costs(loop)
    phases: tuple[PhaseCosts, ...] = ()
    if last:
        loop.enter(last)
        rates_at_last, peak_bytes = _steps(loop, 0.0)
        phases = _phase_costs(loop.unfreezing.phases, median(rates), median(rates_at_last), prefix)
    loop.ranks.restore(loop.model, loop.optimizer, before, {})
    loop.enter(0)
    loop.optimizer.state.clear()
    loop.padded = loop.real = 0
    validation = _validation_seconds(loop.task, loop, loop.validation)
    loop.unfreezing.release()
    seconds_per_byte = _seconds_per_byte(scratch)
    state_bytes = sum(p.numel() * p.element_size() for p in loop.unfreezing.learnt)
    return Costs(
        seconds_per_token=median(rates),
        validation=validation,
        checkpoint=4 * state_bytes * seconds_per_byte,  # weights, two moments, the best so far
        peak_bytes=peak_bytes,
        prefix=prefix,
        phases=phases,
        seconds_per_byte=seconds_per_byte,
    )


def _phase_costs(
    phases: Sequence[Phase], first: float, last: float, prefix: PrefixCosts | None
) -> tuple[PhaseCosts, ...]:
    """An update's seconds per padded token in each phase, from probes of two.

    Between the first phase and the last, an update's time is taken to grow linearly with the layers that are freed.
    With kept states it grows from what was measured in the first phase to that of an update which runs all layers and
    trains them, embeddings included. Those take a step of their own, so that the line lies above what the phases
    between take, and a plan is rather too short than too long.

    Args:
        phases: of the recipe.
        first: seconds in the first phase, its frozen layers run.
        last: seconds in the last.
        prefix: of the first phase.
    """
    top, bottom = phases[0].frozen, phases[-1].frozen
    slope = (last - first) / (top - bottom)
    found = []
    for phase in phases:
        computed, kept = first + slope * (top - phase.frozen), None
        if prefix is not None and 0 < phase.frozen <= prefix.depth:
            whole, given = first + slope * top, prefix.update_seconds_per_token
            kept = min(computed, given + (whole - given) * (prefix.depth - phase.frozen) / prefix.depth)
        found.append(PhaseCosts(phase.frozen, computed, kept))
    return tuple(found)


def _steps(loop: Loop, seconds: float) -> tuple[list[float], float]:
    """Seconds per padded token of real updates, the first (which warms up) left out; and training's peak in bytes."""
    rates = [_timed_update(loop, 0)]
    began, settled = time.monotonic(), resident_bytes()
    with peak() as seen:
        for step in (largest_update(loop), *range(1, loop.full_steps)):
            rates.append(_timed_update(loop, step))
            if time.monotonic() - began >= seconds:
                break
    return rates[1:], _peak_bytes(loop, settled, seen.bytes)


def largest_update(loop: Loop) -> int:
    """The update with the largest forward pass: no other holds more.

    It is looked for in the first epoch of each stage, and in the first `LOOKED_AT` updates of the run: where rows are
    packed, each epoch draws its updates anew, and with few of them a later one's largest is larger.
    """
    steps = sorted({*loop.plan.first_epochs(), *range(min(loop.full_steps, LOOKED_AT))})
    found: int = max(steps, key=lambda step: _most_tokens(loop, step))
    return found


def _prefix_costs(loop: Loop) -> PrefixCosts | None:
    """What the frozen first layers cost, and an update without them; None where there are none that can be passed by.

    The loss with given states must be that with computed ones; where the family's layers cannot be passed by, a
    warning tells why. Several ranks keep no states.
    """
    if loop.ranks.size > 1:
        return None
    depth = passable_depth(loop.model)
    if depth < 1:
        return None
    try:
        prefix = Prefix(loop.model, depth)
    except NotPassable as refusal:
        _warn_not_passed_by(loop, str(refusal))
        return None
    needs = Needs(loop.task, loop.train, loop.machine, depth)
    step = min(loop.plan.first_epochs(), key=lambda step: abs(_most_tokens(loop, step) - loop.step_tokens))
    rows = loop.rows_of(step)
    began = time.monotonic()
    try:
        flat = prefix_states(loop.model, prefix, needs, rows)
        seconds = time.monotonic() - began
        ends = np.cumsum(loop.train.lengths[rows])
        states = dict(zip(rows.tolist(), np.split(flat, ends[:-1]), strict=True))
        cache = PrefixCache(prefix, states.__getitem__)
        same = same_loss(loop, cache, rows)
        reason = "" if same else "the loss is another one when the layers are passed by"
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__} when the layers are passed by"
    if reason:
        prefix.release()
        _warn_not_passed_by(loop, reason)
        return None
    loop.prefix_cache = cache
    _timed_update(loop, step)
    update = _timed_update(loop, step)
    loop.prefix_cache = None
    prefix.release()
    padded = padded_tokens(loop.train.lengths, [rows], loop.train.packed)
    return PrefixCosts(depth, seconds / padded, update, flat.shape[1] * needs.stored().nbytes)


def _warn_not_passed_by(loop: Loop, reason: str) -> None:
    """Tell why the frozen first layers run at every step."""
    what = f"the frozen first layers' states are not kept, so that they run at every step: {reason}"
    loop.watch.events.emit("warning", where="train.freeze_layers", what=what)


@torch.no_grad()
def same_loss(loop: Loop, cache: PrefixCache, rows: NDArray[np.int64]) -> bool:
    """Whether the loss of these rows is the same with the kept states as with computed ones."""
    losses = []
    for states in (False, True):
        batch = loop.task.batch(loop.train, rows)
        torch.manual_seed(0)
        with cache.given(rows, batch) if states else nullcontext(), loop.machine.autocast():
            losses.append(float(loop.task.loss(loop.model, batch)))
    return bool(np.isclose(losses[0], losses[1], rtol=1e-5 if loop.machine.precision == "fp32" else 1e-3))


def _timed_update(loop: Loop, step: int) -> float:
    padded, began = loop.padded, time.monotonic()
    loop.update(step).item()
    return (time.monotonic() - began) / (loop.padded - padded)


def _most_tokens(loop: Loop, step: int) -> int:
    """Padded tokens of the largest forward pass of an update."""
    lengths, packed = loop.train.lengths, loop.train.packed
    parts = micro_batches(lengths, loop.rows_of(step), loop.micro_batch_tokens, packed)
    return max(padded_tokens(lengths, [part], packed) for part in parts)


def _peak_bytes(loop: Loop, settled: int, probed: int) -> float:
    """The most that training will hold: the largest update, beside the best so far. A checkpoint is written from
    where its tensors lie.

    Args:
        loop: after its probed updates.
        settled: bytes after the first of them, when model and moments are there.
        probed: the most bytes during the others.
    """
    trained = sum(p.numel() * p.element_size() for p in loop.unfreezing.learnt)
    return max(settled, probed) + trained


def _validation_seconds(task: Task, loop: Loop, validation: Encoded) -> float:
    """Seconds of a whole pass, from a sample spread over the lengths; of few rows where these take long enough."""
    seconds = 0.0
    for rows in (FEW_VALIDATION_ROWS, VALIDATION_ROWS):
        taken, seconds = _validation_sample(task, loop, validation, min(rows, len(validation)))
        if taken > LONG_VALIDATION or rows >= len(validation):
            break
    return seconds


def _validation_sample(task: Task, loop: Loop, validation: Encoded, rows: int) -> tuple[float, float]:
    """Seconds of so many rows, and of a whole pass by them."""
    by_length = np.argsort(validation.lengths, kind="stable")
    sample = by_length[np.linspace(0, len(by_length) - 1, rows).astype(np.int64)]
    part = take(validation, sample)
    budget = loop.machine.read_batch_tokens
    began = time.monotonic()
    with loop.machine.autocast():
        loop.ranks.validate(task, loop.model, part, budget, sample.tolist())
    seconds = time.monotonic() - began
    whole = padded_tokens(validation.lengths, sorted_batches(validation.lengths, budget))
    return seconds, seconds * whole / max(1, padded_tokens(part.lengths, sorted_batches(part.lengths, budget)))


def _seconds_per_byte(scratch: Path) -> float:
    """How long a durable write takes here, per byte."""
    scratch.mkdir(parents=True, exist_ok=True)
    sweep(scratch)
    target = scratch / "disk-probe"
    began = time.monotonic()
    write_file_atomic(target, bytes(DISK_PROBE_BYTES))
    seconds = time.monotonic() - began
    target.unlink()
    return seconds / DISK_PROBE_BYTES
