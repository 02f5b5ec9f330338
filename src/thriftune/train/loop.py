"""The training loop.

One loop for every task: a `Task` says how rows are encoded, batched and scored, the batch plan says which rows come
when, and the governor, asked at every block of steps, says how many steps there are to be. Read `Loop.run` first.
"""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple
from functools import partial
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from thriftune.errors import Interrupted, OutOfBudget
from thriftune.faults import crash_point
from thriftune.memory import give_back_freed_memory, keep_freed_memory, peak, ran_out_of_memory
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.batches import micro_batches, padded_tokens, take
from thriftune.train.batchplan import BatchPlan
from thriftune.train.best import Best
from thriftune.train.checkpoint import (
    Checkpoint,
    copied,
    load_latest,
    save_checkpoint,
)
from thriftune.train.costs import UPPER_FACTOR, UPPER_FLOOR, Costs
from thriftune.train.ema import Average
from thriftune.train.machine import Machine
from thriftune.train.mishaps import checked_loss, half_of, nearly_full
from thriftune.train.optimizer import adamw, set_rates
from thriftune.train.prefix_cache import PrefixCache
from thriftune.train.ranks import ALONE, Ranks, Share
from thriftune.train.recipe import Recipe
from thriftune.train.scaling import LossScaling
from thriftune.train.schedule import Pace, rate_factor
from thriftune.train.stopping import end_after, height
from thriftune.train.supervision import Outcome, Supervision
from thriftune.train.unfreezing import Unfreezing
from thriftune.train.validation_states import ValidationStates

BLOCK_SECONDS = 0.5  # steps are reserved and metered in blocks of about this long
# What checkpoints carry beside the pace, the best, the loss scale and the average.
CARRIED = (
    *("ending", "full_steps", "validated", "padded", "real", "loss", "micro_batch_tokens", "stage", "stage_began"),
    *("curve", "began_at"),
)
PROBE_WEIGHT = 8  # how many of the loop's own steps the probe counts for: one odd step is not a new speed


class Loop:
    """Training as a state that goes forward step by step.

    Raises (from `run`):
        BadInput: the loss is no longer a number, and the message names the rows of the update; or the memory does not
            hold one row's training. The last good checkpoint stays.
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
        self.unfreezing = Unfreezing(self.model, recipe.phases)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self._optimizer()
        self.scaling = LossScaling(machine.precision, machine.device)
        self.average = Average(recipe.ema)
        self.plan = BatchPlan(train, recipe)
        self.full_steps = self.plan.full_steps
        self.step_tokens = self.plan.mean_tokens()

        self.kept: dict[int, PrefixCache] = {}  # the states of `train` under the frozen first layers, by depth
        self.prefix_cache: PrefixCache | None = None  # those that are used now
        self.validation_states: ValidationStates | None = None  # of the validation split, where they are kept as well
        self.micro_batch_tokens = machine.micro_batch_tokens
        self.step = 0
        self.checkpoint_upper = math.inf  # seconds to reserve for one: the probe's, then the slowest so far
        self.validated = -1  # the step of the latest validation
        self.pace = Pace(planned=self.full_steps)
        self.stage, self.stage_began = 0, 0  # the plan's stage, and the step at which it began
        self.best = Best()
        self.curve: list[tuple[int, float]] = []  # step and height of the validations that tell of what is to come
        self.began_at: float | None = None  # the height of the first validation
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
                if self.step >= self._stage_end() and self.step < self.pace.planned:
                    self._next_stage(costs.validation_upper)
                self._checkpoint_when_due()
            except OutOfBudget as refusal:
                self._stop("budget", refusal.what)
                break
        if self.validated != self.step:
            self._validate_last(costs.validation_upper)
        self.model = self.ranks.finished(self.task, self.model, self.best.state)
        self._tell_parts(self.plan.stages[self.stage].name, costs.validation_upper)
        return self._outcome()

    # one step

    def update(self, step: int) -> torch.Tensor:
        """One optimizer step on the global batch of `step`; returns its mean loss (a scalar on the device).

        The loss is summed over what counts in each micro-batch and divided by what counts in the whole update, so
        that accumulation changes nothing but memory. Randomness is seeded by the step, not carried along: a resumed
        step draws the same dropout masks. With several ranks each computes its share of every micro-batch.
        """
        self.ranks.lead("update", step=step, pace=astuple(self.pace), micro_batch_tokens=self.micro_batch_tokens)
        rows = self.rows_of(step)
        parts, total = self._gradients(step, rows)
        set_rates(self.optimizer, self.rate(step), self.pace.progress(step + 0.5), self.recipe.thaw)
        clip = partial(self.ranks.clip, self.trained, self.recipe.clip_norm)
        if self.scaling.step(self.optimizer, clip):
            self.average.follow(self.model)
        elif self.watch is not None:
            self.watch.events.buffer("training.overflow", step=step + 1, scale=self.scaling.scale)
        self.optimizer.zero_grad(set_to_none=True)
        self.padded += padded_tokens(self.train.lengths, parts, self.train.packed)
        self.real += int(self.train.lengths[rows].sum())
        return self.ranks.total(total)

    def _gradients(self, step: int, rows: NDArray[np.int64]) -> tuple[list[NDArray[np.int64]], torch.Tensor]:
        """Add up the gradients of an update: its micro-batches and its mean loss.

        Where the memory does not hold them, the update is begun again in micro-batches of half the size.
        """
        weight = float(self.train.weights[rows].sum()) or 1.0
        while True:
            budget = self.ranks.micro_batch_tokens(self.micro_batch_tokens)
            slices = self.ranks.slices(micro_batches(self.train.lengths, rows, budget, self.train.packed))
            parts = [part for cut in slices for part in cut if len(part)]
            torch.manual_seed(hash((self.recipe.seed, step, *self.ranks.place)) & 0x7FFF_FFFF)
            total = torch.zeros((), device=self.machine.device)
            try:
                for share in self.ranks.shares(slices):
                    total += self._part(share, weight)
                return parts, total
            except (MemoryError, RuntimeError) as error:
                if self.ranks.size > 1 or not ran_out_of_memory(error):
                    raise
            self.optimizer.zero_grad(set_to_none=True)
            self._halve(parts, "the memory does not hold one of this size")

    def _part(self, share: Share, weight: float) -> torch.Tensor:
        """The loss of this rank's share of a micro-batch, its gradients added to those that are there."""
        batch = {name: t.to(self.machine.device) for name, t in self.task.batch(self.train, share.rows).items()}
        states = nullcontext() if self.prefix_cache is None else self.prefix_cache.given(share.rows, batch)
        with states, self.machine.autocast():
            loss = self.ranks.loss(self.task, self.model, batch, share) / weight
        self.scaling.backward(loss)
        return loss.detach()

    def _halve(self, parts: list[NDArray[np.int64]], because: str) -> None:
        """Cut updates into smaller micro-batches from here on; the updates themselves stay as they are."""
        tokens = half_of(self.train.lengths, parts, self.train.packed)
        self.micro_batch_tokens = self.watch.decisions.revise("micro_batch_tokens", tokens, because, self.step)
        give_back_freed_memory()

    def rate(self, step: int) -> float:
        """The learning rate of the update that follows `step` done ones, taken at the update's middle.

        Each stage has the whole curve of the schedule.
        """
        factor = rate_factor(self._stage_progress(step + 0.5), self.recipe.warmup, self.recipe.decay)
        return self.recipe.rate * self.unfreezing.rate * factor

    def _stage_progress(self, step: float) -> float:
        stage = self.plan.stages[self.stage]
        return min(1.0, max(0.0, (self.pace.progress(step) - stage.start) / (stage.end - stage.start)))

    def rows_of(self, step: int) -> NDArray[np.int64]:
        """The row ids of one update."""
        return self.plan.rows(self.stage, step - self.stage_began)

    # stages, where the data's parts come one after the other

    def _stage_end(self) -> int:
        """The step at which the stage ends by the plan of now; it has one update at the least."""
        end = round(self.pace.step_at(self.plan.stages[self.stage].end))
        return min(self.pace.planned, max(end, self.stage_began + 1))

    def _next_stage(self, upper_seconds: float) -> None:
        """Go on with the next part; the best model is to be found in the last stage, which has seen them all."""
        self._tell_parts(self.plan.stages[self.stage].name, upper_seconds)
        self.stage, self.stage_began = self.stage + 1, self.step
        self.best, self.curve, self.began_at = Best(), [], None

    def _tell_parts(self, after: str, upper_seconds: float) -> None:
        """In a sequence, what the model makes of each part by now: a row of the forgetting matrix.

        Args:
            after: the part that it has just learned; empty before the first.
            upper_seconds: of a whole validation; that of all the parts is one.
        """
        parts = self.validation.parts
        if len(self.plan.stages) < 2 or parts is None:
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
        return self.plan.epochs_done(self.stage, self.step - self.stage_began)

    # blocks of steps, under the governor

    def _review(self) -> bool:
        """Let recorded or new decisions change the plan; False when the run is to end here."""
        step, planned = self.step, self.pace.planned
        change = self.watch.decisions.recorded("planned_steps", step) if step else None
        if change is None and self.watch.governor is not None and step >= self.watch.reached and step > 0:
            seconds = self.step_seconds() * self.unfreezing.ahead(self.pace.progress(step))
            proposal = self.watch.governor.review(step, planned, seconds)
            if proposal is not None and not (self.ending and proposal > planned):
                because = f"{seconds:.3f} s a step leaves room for {proposal} of {self.full_steps} steps"
                change = self.watch.decisions.take("planned_steps", lambda: (proposal, because), step)
        if change is not None and change != planned:
            if change <= step:
                self.ending = self.ending or "budget"
                return False
            self.pace = self.pace.refitted(step, change)
        stop = self.watch.decisions.recorded("stop", step)
        if stop is not None:
            self.ending = stop
        self.micro_batch_tokens = self.watch.decisions.recorded("micro_batch_tokens", step) or self.micro_batch_tokens
        self._unfreeze()
        return stop is None

    def _unfreeze(self) -> None:
        """Begin the phase that is due, if it is another than the one that holds."""
        progress = self.pace.progress(self.step)
        due = self.unfreezing.due(progress)
        if due != self.unfreezing.number:
            frozen, because = self.unfreezing.phases[due].frozen, f"progress is {progress:.3f}"
            self.enter(self.watch.decisions.take("phase", lambda: (due, f"{because}: {frozen} frozen"), self.step))

    def enter(self, phase: int) -> None:
        """Train what a phase trains. The moments that are there stay; those of newly freed layers are fresh."""
        slower = self.unfreezing.begin(phase)
        self.recent = deque((seconds * slower for seconds in self.recent), self.recent.maxlen)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self._optimizer(before=self.optimizer)
        if self.kept:
            self.prefix_cache = self.kept.get(self.unfreezing.frozen)
        if self.validation_states is not None:
            self.validation_states.clear()
        self.curve = []
        if self.best.state:  # what was frozen when the best was found is still as it was then
            self.best.state = copied(self.ranks.trained(self.model)) | self.best.state
            self.best.stale = 0

    def _optimizer(self, before: torch.optim.Optimizer | None = None) -> torch.optim.AdamW:
        recipe, freed_at = self.recipe, self.unfreezing.freed_at
        return adamw(
            self.model, recipe.rate, recipe.weight_decay, recipe.layer_decay, freed_at, before, recipe.head_rate
        )

    def _block(self, validate_every: int) -> None:
        """Some steps, reserved before and metered after: about half a second's, up to the next thing to do."""
        count = max(1, int(BLOCK_SECONDS / self.step_seconds()))
        boundary = min(self._stage_end(), (self.step // validate_every + 1) * validate_every)
        recorded = self.watch.decisions.next_step(self.step)
        end = min(self.step + count, boundary, recorded if recorded is not None else boundary)
        upper = sum(self._upper(step) for step in range(self.step, end)) + UPPER_FLOOR
        block_began = time.monotonic()
        with self.watch.unit("steps", upper), peak() as seen:
            while self.step < end and self.unfreezing.due(self.pace.progress(self.step)) == self.unfreezing.number:
                began, padded = time.monotonic(), self.padded
                loss, rows = self.update(self.step).item(), self.rows_of(self.step)
                self.loss = checked_loss(loss, self.step, self.train, rows, self.recipe.rate)
                self.step += 1
                tokens = self.padded - padded
                seconds = time.monotonic() - began
                self.recent.append(seconds / tokens)
                self.watch.events.buffer(
                    "training.step",
                    step=self.step,
                    planned=self.pace.planned,
                    epoch=self._epochs(),
                    loss=self.loss,
                    rate=self.rate(self.step - 1),
                    tokens=int(self.train.lengths[rows].sum()),
                    padded_tokens=tokens,
                    seconds=seconds,
                )
                crash_point("step.done")
        self._review_breach(time.monotonic() - block_began, upper)
        parts = micro_batches(
            self.train.lengths, self.rows_of(self.step - 1), self.micro_batch_tokens, self.train.packed
        )
        watched = self.machine.device == "cpu" and self.step >= self.watch.reached
        if watched and nearly_full(seen.bytes, parts):
            self._halve(parts, f"{seen.bytes / 2**30:.2f} GiB were held, close to the limit")

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
        return UPPER_FACTOR * max(self.recent) * padded_tokens(self.train.lengths, [rows], self.train.packed)

    def _ended_here(self) -> bool:
        """Whether an earlier process stopped at this very step, and so may not have been able to validate it."""
        return self.watch.decisions.recorded("stop", self.step) is not None

    def _stop(self, why: str, because: str) -> None:
        self.ending = self.watch.decisions.take("stop", lambda: (why, because), self.step)

    # validation and checkpoints

    def _validate(self, upper_seconds: float) -> dict[str, float]:
        with (
            self.watch.unit("validation", upper_seconds),
            self.machine.autocast(),
            self.average.shown(self.model),
            self._states_remembered(),
        ):
            figures = self.ranks.validate(self.task, self.model, self.validation, self.machine.read_batch_tokens)
        self.validated = self.step
        gained = self.best.beaten_by(figures, self.recipe)
        if gained:
            self.best = Best(self.step, figures, self._weights())
        else:
            self.best.stale += 1
        self.watch.events.emit(
            "training.validation",
            step=self.step,
            loss=figures["loss"],
            metrics={name: value for name, value in figures.items() if name != "loss"},
            best=gained,
        )
        found = height(figures, self.recipe)
        self.began_at = found if self.began_at is None else self.began_at
        if self._stage_progress(self.step) >= self.recipe.warmup:  # before, the rate's own rise bends the curve
            self.curve.append((self.step, found))
        last = self.stage == len(self.plan.stages) - 1 and self.unfreezing.is_last
        if last and not self.ending and self.step < self.pace.planned:
            self._end_early_where_due()
        return figures

    def _states_remembered(self) -> AbstractContextManager[None]:
        """Inside, the frozen first layers run for the validation split once, while the same ones are frozen."""
        if self.prefix_cache is None or self.validation_states is None:
            return nullcontext()
        return self.prefix_cache.prefix.remembered(self.validation_states, self.prefix_cache.depth)

    def _weights(self) -> dict[str, torch.Tensor]:
        """Copies of the trained parameters as they are kept: their average where there is one."""
        with self.average.shown(self.model):
            return copied(self.ranks.trained(self.model))

    def _validate_last(self, upper_seconds: float) -> None:
        """Validate the final weights, or, where even that is not paid for, keep the best or the last unvalidated."""
        if self.watch.decisions.recorded("final_validation", self.step) is None:
            try:
                self._prefer_last(self._validate(upper_seconds))
                return
            except OutOfBudget as refusal:
                because = refusal.what
                self.watch.decisions.take("final_validation", lambda: ("skipped", because), self.step)
        if not self.best.state:
            self.best = Best(self.step, {}, self._weights())

    def _prefer_last(self, figures: dict[str, float]) -> None:
        """Keep the last weights in the place of the best where only chance tells them apart."""
        best, watch = self.best, self.recipe.watch
        if best.step == self.step or not best.leads_by_chance(figures, len(self.validation), self.recipe):
            return
        because = (
            f"{watch} {figures[watch]:.4f} is within a standard error of {best.figures[watch]:.4f} at step {best.step},"
            f" on {len(self.validation)} rows, and the rate has fallen since"
        )
        self.watch.decisions.take("weights kept", lambda: ("the last", because), self.step)
        self.best = Best(self.step, figures, self._weights())

    def _end_early_where_due(self) -> None:
        """End when patience is spent, or when the rest would cost more than it can bring; or as was recorded here.

        What an earlier process found worth its cost stays so: only steps that nobody has gone beyond are weighed.
        """
        if self.best.stale >= self.recipe.patience:
            self._end_early("patience", f"{self.best.stale} validations without a better {self.recipe.watch}")
        elif self.watch.decisions.recorded("ending", self.step) is not None:
            self._end_early("gain", "")
        elif self.watch.stopping is not None and self.watch.governor is not None and self.step >= self.watch.reached:
            overheads, rows = self.watch.governor.overheads, len(self.validation)
            seconds = overheads.step_seconds(self.step_seconds())
            every, planned, began_at = overheads.validate_every, self.pace.planned, self.began_at or 0.0
            weighed = self.watch.stopping.weigh(self.curve, began_at, planned, every, seconds, self.recipe, rows)
            if weighed is not None:
                self.watch.events.emit("training.weighed", step=self.step, **weighed.told())
            if weighed is not None and not weighed.pays:
                self._end_early("gain", self.watch.stopping.reason(weighed, self.recipe.watch))

    def _end_early(self, why: str, because: str) -> None:
        """Decay the rate to its end over a few more steps instead of stopping abruptly."""
        self.ending = why
        end = end_after(self.step, self.pace.planned, self.recipe)
        end = self.watch.decisions.take("ending", lambda: (end, because), self.step)
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
            "scaling": self.scaling.state(),
            "averaged": self.average.updates,
            "phase": self.unfreezing.number,
        } | {name: getattr(self, name) for name in CARRIED}
        save_checkpoint(
            self.watch.checkpoints,
            Checkpoint(
                self.step,
                self.ranks.trained(self.model),
                self.ranks.moments(self.model, self.optimizer),
                self.best.state,
                progress,
                self.average.weights,
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
            self.enter(0)
            return
        self.enter(found.progress["phase"])
        self.ranks.restore(self.model, self.optimizer, found.weights, found.moments)
        self.step = found.step
        self.pace = Pace(*found.progress["pace"])
        step, figures, stale = found.progress["best"]
        self.best = Best(step, figures, found.best, stale)
        self.average.weights, self.average.updates = found.average, found.progress["averaged"]
        self.scaling.load(found.progress["scaling"])
        for name in CARRIED:
            setattr(self, name, found.progress[name])

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
