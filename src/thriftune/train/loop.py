"""The training loop.

One loop for every task: a `Task` says how rows are encoded, batched and scored, the batch plan says which rows come
when, and the governor, asked at every block of steps, says how many steps there are to be. Read `Loop.run` first.
"""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from thriftune.errors import BadInput, Interrupted, OutOfBudget
from thriftune.faults import crash_point
from thriftune.memory import keep_freed_memory
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.batches import micro_batches, padded_tokens, take
from thriftune.train.batchplan import BatchPlan
from thriftune.train.checkpoint import (
    Checkpoint,
    load_latest,
    load_optimizer,
    load_trained,
    optimizer_state,
    save_checkpoint,
    trained_state,
)
from thriftune.train.costs import UPPER_FACTOR, UPPER_FLOOR, Costs
from thriftune.train.machine import Machine
from thriftune.train.optimizer import adamw
from thriftune.train.prefix_cache import PrefixCache
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
    ) -> None:
        keep_freed_memory()
        self.task, self.train, self.validation = task, train, validation
        self.recipe, self.machine, self.watch = recipe, machine, supervision
        self.model = model.to(machine.device).train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = adamw(self.model, recipe.rate, recipe.weight_decay)
        self.plan = BatchPlan(train, recipe)
        self.full_steps = self.plan.full_steps
        self.step_tokens = self.plan.mean_tokens()

        self.prefix_cache: PrefixCache | None = None  # the states of `train` under the frozen first layers
        self.step = 0
        self.checkpoint_upper = math.inf  # seconds to reserve for one: the probe's, then the slowest so far
        self.validated = -1  # the step of the latest validation
        self.pace = Pace(planned=self.full_steps)
        self.phase, self.phase_began = 0, 0  # the plan's phase, and the step at which it began
        self.best = _Best()
        self.ending = ""  # why the end was brought forward, if it was
        self.recent: deque[float] = deque(maxlen=40)  # seconds per padded token of the latest steps
        self.padded = self.real = 0  # tokens computed, and those that were no padding
        self.loss = math.nan
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
        if self.step == 0:
            self._tell_parts("", costs.validation_upper)
        while self._review() and self.step < self.pace.planned:
            try:
                self._block(validate_every)
                if self.step % validate_every == 0 and self.step < self.pace.planned and not self._ended_here():
                    self._validate(costs.validation_upper)
                if self.step >= self._phase_end() and self.step < self.pace.planned:
                    self._next_phase(costs.validation_upper)
                self._checkpoint_when_due()
            except OutOfBudget as refusal:
                self._stop("budget", refusal.what)
                break
        if self.validated != self.step:
            self._validate_last(costs.validation_upper)
        load_trained(self.model, self.best.state)
        self._tell_parts(self.plan.phases[self.phase].name, costs.validation_upper)
        return self._outcome()

    # one step

    def update(self, step: int) -> torch.Tensor:
        """One optimizer step on the global batch of `step`; returns its mean loss (a scalar on the device).

        The loss is summed over what counts in each micro-batch and divided by what counts in the whole update, so
        that accumulation changes nothing but memory. Randomness is seeded by the step, not carried along: a resumed
        step draws the same dropout masks.
        """
        rows = self.rows_of(step)
        parts = micro_batches(self.train.lengths, rows, self.machine.micro_batch_tokens)
        weight = max(float(self.train.weights[rows].sum()), 1.0)
        torch.manual_seed(hash((self.recipe.seed, step)) & 0x7FFF_FFFF)
        total = torch.zeros((), device=self.machine.device)
        for part in parts:
            batch = {name: t.to(self.machine.device) for name, t in self.task.batch(self.train, part).items()}
            states = nullcontext() if self.prefix_cache is None else self.prefix_cache.given(part, batch)
            with states, self.machine.autocast():
                loss = self.task.loss(self.model, batch) / weight
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.padded += padded_tokens(self.train.lengths, parts)
        self.real += int(self.train.lengths[rows].sum())
        return total

    def rate(self, step: int) -> float:
        """The learning rate of the update that follows `step` done ones, taken at the update's middle.

        Each phase has the whole curve of the schedule.
        """
        phase = self.plan.phases[self.phase]
        progress = (self.pace.progress(step + 0.5) - phase.start) / (phase.end - phase.start)
        return self.recipe.rate * rate_factor(min(1.0, max(0.0, progress)), self.recipe.warmup, self.recipe.decay)

    def rows_of(self, step: int) -> NDArray[np.int64]:
        """The row ids of one update."""
        return self.plan.rows(self.phase, step - self.phase_began)

    # phases, where the data's parts come one after the other

    def _phase_end(self) -> int:
        """The step at which the phase ends by the plan of now; it has one update at the least."""
        end = round(self.pace.step_at(self.plan.phases[self.phase].end))
        return min(self.pace.planned, max(end, self.phase_began + 1))

    def _next_phase(self, upper_seconds: float) -> None:
        """Go on with the next part; the best model is to be found in the last phase, which has seen them all."""
        self._tell_parts(self.plan.phases[self.phase].name, upper_seconds)
        self.phase, self.phase_began = self.phase + 1, self.step
        self.best = _Best()

    def _tell_parts(self, after: str, upper_seconds: float) -> None:
        """In a sequence, what the model makes of each part by now: a row of the forgetting matrix.

        Args:
            after: the part that it has just learned; empty before the first.
            upper_seconds: of a whole validation; that of all the parts is one.
        """
        parts = self.validation.parts
        if len(self.plan.phases) < 2 or parts is None:
            return
        figures = {}
        try:
            with self.watch.unit("validation by part", upper_seconds), self.machine.autocast():
                for number, name in enumerate(self.recipe.mixing.parts):
                    own = take(self.validation, np.flatnonzero(parts == number))
                    figures[name] = self.task.validate(self.model, own, self.machine.read_batch_tokens)
        except OutOfBudget as refusal:
            self.watch.events.emit("warning", where="training", what=f"parts were not validated: {refusal.what}")
            return
        self.watch.events.emit("training.parts", step=self.step, after=after, parts=figures)

    def _epochs(self) -> float:
        """Passes over the data so far."""
        return self.plan.epochs_done(self.phase, self.step - self.phase_began)

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
        boundary = min(self._phase_end(), (self.step // validate_every + 1) * validate_every)
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
                    epoch=self._epochs(),
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
            figures = self.task.validate(self.model, self.validation, self.machine.read_batch_tokens)
        self.validated = self.step
        gained = not self.best.state or self._gain(figures, self.best.figures) > self.recipe.min_gain
        if gained:
            self.best = _Best(self.step, figures, trained_state(self.model))
        else:
            self.best.stale += 1
        self.watch.events.emit(
            "training.validation",
            step=self.step,
            loss=figures["loss"],
            metrics={name: value for name, value in figures.items() if name != "loss"},
            best=gained,
        )
        last = self.phase == len(self.plan.phases) - 1
        if last and self.best.stale >= self.recipe.patience and not self.ending and self.step < self.pace.planned:
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
            self.best = _Best(self.step, {}, trained_state(self.model))

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
            "phase": [self.phase, self.phase_began],
            "validated": self.validated,
            "padded": self.padded,
            "real": self.real,
            "loss": self.loss,
        }
        save_checkpoint(
            self.watch.checkpoints,
            Checkpoint(
                self.step,
                trained_state(self.model),
                optimizer_state(self.model, self.optimizer),
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
        load_trained(self.model, found.weights)
        load_optimizer(self.model, self.optimizer, found.moments)
        self.step = found.step
        self.pace = Pace(*found.progress["pace"])
        step, figures, stale = found.progress["best"]
        self.best = _Best(step, figures, found.best, stale)
        self.ending = found.progress["ending"]
        self.full_steps = found.progress["full_steps"]
        self.phase, self.phase_began = found.progress["phase"]
        self.validated = found.progress["validated"]
        self.padded, self.real = found.progress["padded"], found.progress["real"]
        self.loss = found.progress["loss"]

    def _outcome(self) -> Outcome:
        return Outcome(
            steps=self.step,
            epochs=self._epochs(),
            stopped=self.ending or "planned",
            best_step=self.best.step,
            best=self.best.figures,
            final_loss=self.loss,
            padding_share=1.0 - self.real / self.padded if self.padded else 0.0,
        )
