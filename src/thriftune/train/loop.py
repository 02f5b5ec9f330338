"""The training loop.

One loop for every task: a `Task` says how rows are encoded, batched and scored, the batch plan says which rows come
when, and the governor, asked at every block of steps, says how many steps there are to be. Read `Loop.run` first.
"""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import astuple, dataclass, field
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from thriftune.errors import BadInput, Interrupted, OutOfBudget
from thriftune.faults import crash_point
from thriftune.memory import keep_freed_memory
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.batches import micro_batches, padded_tokens
from thriftune.train.batches import mean_update_tokens, plan_epoch, updates_per_epoch
from thriftune.train.checkpoint import (
    Checkpoint,
    load_latest,
    save_checkpoint,
)
from thriftune.train.costs import UPPER_FACTOR, UPPER_FLOOR, Costs
from thriftune.train.machine import Machine
from thriftune.train.optimizer import adamw
from thriftune.train.prefix_cache import PrefixCache
from thriftune.train.ranks import ALONE, Ranks
from thriftune.train.recipe import Recipe
from thriftune.train.schedule import Pace, rate_factor
from thriftune.train.supervision import Outcome, Supervision

BLOCK_SECONDS = 0.5  # steps are reserved and metered in blocks of about this long
PROBE_WEIGHT = 8  # how many of the loop's own steps the probe counts for: one odd step is not a new speed


@dataclass
class _Best:
    step: int = -1
    figures: dict[str, float] = field(default_factory=dict)
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    stale: int = 0  # validations since the last gain


class Loop:
    """Training as a state that goes forward step by step.

    Raises (from `run`):
        BadInput: the loss is no longer a number; the message names the rows of the update, and the last good
            checkpoint stays.
        Interrupted: the user asked to stop; a checkpoint has been written.
    """

    def __init__(
        self,
        task: Task,
        model: torch.nn.Module,
        train: Encoded,
        validation: Encoded,
        recipe: Recipe,
        machine: Machine,
        supervision: Supervision,
        ranks: Ranks = ALONE,
    ) -> None:
        keep_freed_memory()
        self.task, self.train, self.validation = task, train, validation
        self.recipe, self.machine, self.watch = recipe, machine, supervision
        self.ranks = ranks
        self.model = ranks.spread(task, model.to(machine.device).train())
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = adamw(self.model, recipe.rate, recipe.weight_decay)
        self.epoch_updates = updates_per_epoch(len(train), recipe.rows_per_update)
        self.full_steps = recipe.epochs * self.epoch_updates
        self.step_tokens = mean_update_tokens(train.lengths, recipe.rows_per_update, recipe.seed)

        self.prefix_cache: PrefixCache | None = None  # the states of `train` under the frozen first layers
        self.step = 0
        self.checkpoint_upper = math.inf  # seconds to reserve for one: the probe's, then the slowest so far
        self.validated = -1  # the step of the latest validation
        self.pace = Pace(planned=self.full_steps)
        self.best = _Best()
        self.ending = ""  # why the end was brought forward, if it was
        self.recent: deque[float] = deque(maxlen=40)  # seconds per padded token of the latest steps
        self.padded = self.real = 0  # tokens computed, and those that were no padding
        self.loss = math.nan
        self._epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        self._saved_at = time.monotonic()

    def run(self, validate_every: int, costs: Costs) -> Outcome:
        """Train to the end of the plan, whatever the governor makes of it, and leave the best weights in the model.

        Args:
            validate_every: steps from one validation to the next; there is always one after the last step.
            costs: the probe's figures; the loop's own take over as it goes.
        """
        torch.set_num_threads(self.machine.threads)
        self.recent.extend([costs.seconds_per_token] * PROBE_WEIGHT)
        self.checkpoint_upper = costs.checkpoint_upper
        self._resume()
        while self._review() and self.step < self.pace.planned:
            try:
                self._block(validate_every)
                if self.step % validate_every == 0 and self.step < self.pace.planned and not self._ended_here():
                    self._validate(costs.validation_upper)
                self._checkpoint_when_due()
            except OutOfBudget as refusal:
                self._stop("budget", refusal.what)
                break
        if self.validated != self.step:
            self._validate_last(costs.validation_upper)
        self.model = self.ranks.finished(self.task, self.model, self.best.state)
        return self._outcome()

    # one step

    def update(self, step: int) -> torch.Tensor:
        """One optimizer step on the global batch of `step`; returns its mean loss (a scalar on the device).

        The loss is summed over what counts in each micro-batch and divided by what counts in the whole update, so
        that accumulation changes nothing but memory. Randomness is seeded by the step, not carried along: a resumed
        step draws the same dropout masks. With several ranks each computes its share of every micro-batch.
        """
        self.ranks.lead(
            "update", step=step, pace=astuple(self.pace), micro_batch_tokens=self.machine.micro_batch_tokens
        )
        rows = self.rows_of(step)
        budget = self.ranks.micro_batch_tokens(self.machine.micro_batch_tokens)
        slices = self.ranks.slices(micro_batches(self.train.lengths, rows, budget))
        weight = max(float(self.train.weights[rows].sum()), 1.0)
        torch.manual_seed(hash((self.recipe.seed, step, *self.ranks.place)) & 0x7FFF_FFFF)
        total = torch.zeros((), device=self.machine.device)
        for share in self.ranks.shares(slices):
            batch = {name: t.to(self.machine.device) for name, t in self.task.batch(self.train, share.rows).items()}
            states = nullcontext() if self.prefix_cache is None else self.prefix_cache.given(share.rows, batch)
            with states, self.machine.autocast():
                loss = self.ranks.loss(self.task, self.model, batch, share) / weight
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.ranks.clip(self.trained, self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.padded += padded_tokens(self.train.lengths, [part for cut in slices for part in cut if len(part)])
        self.real += int(self.train.lengths[rows].sum())
        return self.ranks.total(total)

    def rate(self, step: int) -> float:
        """The learning rate of the update that follows `step` done ones, taken at the update's middle."""
        progress = self.pace.progress(step + 0.5)
        return self.recipe.rate * rate_factor(progress, self.recipe.warmup, self.recipe.decay)

    def rows_of(self, step: int) -> NDArray[np.int64]:
        """The row ids of one update."""
        epoch, index = divmod(step, self.epoch_updates)
        if self._epoch[0] != epoch:
            lengths = self.train.lengths
            self._epoch = (epoch, plan_epoch(lengths, self.recipe.rows_per_update, self.recipe.seed, epoch))
        return self._epoch[1][index]

    # blocks of steps, under the governor

    def _review(self) -> bool:
        """Let recorded or new decisions change the plan; False when the run is to end here."""
        step, planned = self.step, self.pace.planned
        change = self.watch.decisions.recorded("planned_steps", step) if step else None
        if change is None and self.watch.governor is not None and step >= self.watch.reached and step > 0:
            proposal = self.watch.governor.review(step, planned, self.step_seconds())
            if proposal is not None and not (self.ending and proposal > planned):
                because = f"{self.step_seconds():.3f} s a step leaves room for {proposal} of {self.full_steps} steps"
                change = self.watch.decisions.take("planned_steps", lambda: (proposal, because), step)
        if change is not None and change != planned:
            if change <= step:
                self.ending = self.ending or "budget"
                return False
            self.pace = self.pace.refitted(step, change)
        stop = self.watch.decisions.recorded("stop", step)
        if stop is not None:
            self.ending = stop
        return stop is None

    def _block(self, validate_every: int) -> None:
        """Some steps, reserved before and metered after: about half a second's, up to the next thing to do."""
        count = max(1, int(BLOCK_SECONDS / self.step_seconds()))
        boundary = min(self.pace.planned, (self.step // validate_every + 1) * validate_every)
        recorded = self.watch.decisions.next_step(self.step)
        end = min(self.step + count, boundary, recorded if recorded is not None else boundary)
        upper = sum(self._upper(step) for step in range(self.step, end)) + UPPER_FLOOR
        losses: list[tuple[int, torch.Tensor]] = []
        block_began = time.monotonic()
        with self.watch.unit("steps", upper):
            while self.step < end:
                began, padded = time.monotonic(), self.padded
                losses.append((self.step, self.update(self.step)))
                self.step += 1
                tokens = self.padded - padded
                seconds = time.monotonic() - began
                self.recent.append(seconds / tokens)
                self.watch.events.buffer(
                    "training.step",
                    step=self.step,
                    planned=self.pace.planned,
                    epoch=self.step / self.epoch_updates,
                    loss=self._finite(*losses[-1]),
                    rate=self.rate(self.step - 1),
                    tokens=int(self.train.lengths[self.rows_of(self.step - 1)].sum()),
                    padded_tokens=tokens,
                    seconds=seconds,
                )
                crash_point("step.done")
        self._review_breach(time.monotonic() - block_began, upper)

    def _review_breach(self, seconds: float, upper: float) -> None:
        """End the training when a block took longer than its bound and another such block could not be paid for.

        A stall that the limits can bear is paid in full and shown; the plan is re-fitted to what is left.
        """
        governor = self.watch.governor
        if governor is None or seconds <= upper or self.step < self.watch.reached:
            return
        free = governor.free()
        if free < seconds:
            because = f"steps took {seconds:.1f} s, {upper:.1f} s at most was expected; {free:.1f} s are left"
            self._stop("breach", because)

    def step_seconds(self) -> float:
        """A step's expected seconds: the median of the latest rates times the mean padded tokens of a step."""
        return median(self.recent) * self.step_tokens

    def _upper(self, step: int) -> float:
        rows = self.rows_of(step)
        return UPPER_FACTOR * max(self.recent) * len(rows) * int(self.train.lengths[rows].max())

    def _finite(self, step: int, loss: torch.Tensor) -> float:
        self.loss = loss.item()
        if not math.isfinite(self.loss):
            rows = self.rows_of(step).tolist()
            raise BadInput(
                "the training loss is no longer a number",
                where=f"update {step + 1}, training rows {rows[:8]}{' …' if len(rows) > 8 else ''}",
                found=f"loss {self.loss}",
                expected="a finite loss",
                way_out=f"lower train.learning_rate (now {self.recipe.rate}); the last checkpoint is kept",
            )
        return self.loss

    def _ended_here(self) -> bool:
        """Whether an earlier process stopped at this very step, and so may not have been able to validate it."""
        return self.watch.decisions.recorded("stop", self.step) is not None

    def _stop(self, why: str, because: str) -> None:
        self.ending = self.watch.decisions.take("stop", lambda: (why, because), self.step)

    # validation and checkpoints

    def _validate(self, upper_seconds: float) -> None:
        with self.watch.unit("validation", upper_seconds), self.machine.autocast():
            figures = self.ranks.validate(self.task, self.model, self.validation, self.machine.read_batch_tokens)
        self.validated = self.step
        gained = not self.best.state or self._gain(figures, self.best.figures) > self.recipe.min_gain
        if gained:
            self.best = _Best(self.step, figures, self.ranks.trained(self.model))
        else:
            self.best.stale += 1
        self.watch.events.emit(
            "training.validation",
            step=self.step,
            loss=figures["loss"],
            metrics={name: value for name, value in figures.items() if name != "loss"},
            best=gained,
        )
        if self.best.stale >= self.recipe.patience and not self.ending and self.step < self.pace.planned:
            self._end_early()

    def _validate_last(self, upper_seconds: float) -> None:
        """Validate the final weights, or, where even that is not paid for, keep the best or the last unvalidated."""
        if self.watch.decisions.recorded("final_validation", self.step) is None:
            try:
                self._validate(upper_seconds)
                return
            except OutOfBudget as refusal:
                because = refusal.what
                self.watch.decisions.take("final_validation", lambda: ("skipped", because), self.step)
        if not self.best.state:
            self.best = _Best(self.step, {}, self.ranks.trained(self.model))

    def _gain(self, figures: dict[str, float], before: dict[str, float]) -> float:
        """How much better the watched figure is; equal figures are told apart by the loss."""
        name = self.recipe.watch
        gain = figures[name] - before[name] if self.recipe.higher_is_better else before[name] - figures[name]
        return gain if gain != 0 else min(before["loss"] - figures["loss"], 1e-12)

    def _end_early(self) -> None:
        """Patience is spent: decay the rate to its end over a few more steps instead of stopping abruptly."""
        end = min(self.pace.planned, self.step + max(1, round(self.recipe.ending_share * self.step)))
        self.ending = "patience"
        because = f"{self.best.stale} validations without a better {self.recipe.watch}"
        self.watch.decisions.take("ending", lambda: (end, because), self.step)
        self.pace = self.pace.refitted(self.step, end)
        self.full_steps = end

    def _checkpoint_when_due(self) -> None:
        interrupted = self.watch.interrupted()
        if interrupted or time.monotonic() - self._saved_at >= self.watch.checkpoint_seconds:
            with self.watch.unit("checkpoint", self.checkpoint_upper):
                self.save()
        if interrupted:
            raise Interrupted("interrupted", way_out="the same command goes on from here")

    def save(self) -> None:
        """Write a checkpoint now."""
        began = time.monotonic()
        progress = {
            "pace": [self.pace.planned, self.pace.origin_step, self.pace.origin_progress],
            "best": [self.best.step, self.best.figures, self.best.stale],
            "ending": self.ending,
            "full_steps": self.full_steps,
            "validated": self.validated,
            "padded": self.padded,
            "real": self.real,
            "loss": self.loss,
        }
        save_checkpoint(
            self.watch.checkpoints,
            Checkpoint(
                self.step,
                self.ranks.trained(self.model),
                self.ranks.moments(self.model, self.optimizer),
                self.best.state,
                progress,
            ),
        )
        self._saved_at = time.monotonic()
        seconds = self._saved_at - began
        self.checkpoint_upper = max(self.checkpoint_upper, UPPER_FACTOR * seconds + UPPER_FLOOR)
        self.watch.events.emit("training.checkpoint", step=self.step, seconds=seconds)

    def _resume(self) -> None:
        found = load_latest(self.watch.checkpoints)
        if found is None:
            planned = self.watch.decisions.recorded("planned_steps", 0)
            self.pace = Pace(planned=self.full_steps if planned is None else min(planned, self.full_steps))
            return
        self.ranks.restore(self.model, self.optimizer, found.weights, found.moments)
        self.step = found.step
        self.pace = Pace(*found.progress["pace"])
        step, figures, stale = found.progress["best"]
        self.best = _Best(step, figures, found.best, stale)
        self.ending = found.progress["ending"]
        self.full_steps = found.progress["full_steps"]
        self.validated = found.progress["validated"]
        self.padded, self.real = found.progress["padded"], found.progress["real"]
        self.loss = found.progress["loss"]

    def _outcome(self) -> Outcome:
        return Outcome(
            steps=self.step,
            epochs=self.step / self.epoch_updates,
            stopped=self.ending or "planned",
            best_step=self.best.step,
            best=self.best.figures,
            final_loss=self.loss,
            padding_share=1.0 - self.real / self.padded if self.padded else 0.0,
        )
