"""Trials: real trainings of configurations on folds, each paused after a look and taken up again when it is its turn.

A trial is the training loop itself, without a governor: a search stops between looks and never re-fits a trial, so
that a noisy machine cannot rank configurations. Looks lie at steps of the trial, which are counted, never timed.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from thriftune.budget.decisions import Decisions
from thriftune.errors import Interrupted, OutOfBudget
from thriftune.events import Event, Recorder
from thriftune.search.curves import Look
from thriftune.search.policies import Proposal
from thriftune.search.space import Space
from thriftune.tasks.base import Task
from thriftune.train.costs import Costs
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.mishaps import NotANumber
from thriftune.train.probe import probe_costs
from thriftune.train.supervision import Supervision, UnitMeter
from thriftune.train.train import Work

PREFIX = "trial."  # of the kinds of a trial's events
TRIAL_KINDS = (f"{PREFIX}decision", f"{PREFIX}training.validation")  # what a trial that is taken up again must know
PROBE_SECONDS = 1.0  # of steps past the first two: trials measure on
NO_PATIENCE = 1_000_000  # validations: a trial goes on to its end, or is left by the policy


class OutOfMoney(Exception):
    """A trial stopped in the middle, since the next unit is not paid for."""


class Failed(Exception):
    """A configuration cannot be trained further, such as one whose loss is no longer a number; the message says why."""


class TrialEvents:
    """Records a trial's events as the attempt's, under kinds and a name of their own, and remembers its validations."""

    def __init__(self, events: Recorder, trial: str) -> None:
        self._events, self._trial = events, trial
        self.figures: dict[int, dict[str, float]] = {}

    def emit(self, kind: str, /, **data: Any) -> None:
        """Record an event; it is durable when this returns."""
        self.remember(kind, data)
        self._events.emit(PREFIX + kind, trial=self._trial, **data)

    def remember(self, kind: str, data: Mapping[str, Any]) -> None:
        """Note what a validation found, by its step."""
        if kind == "training.validation":
            self.figures[data["step"]] = {"loss": data["loss"]} | data["metrics"]

    def buffer(self, kind: str, /, **data: Any) -> None:
        """Record an event within a second."""
        self._events.buffer(PREFIX + kind, trial=self._trial, **data)


def recorded_of(trial: str, events: Iterable[Event]) -> list[Event]:
    """A trial's own events among those of its attempt, under the kinds that its loop knows."""
    return [
        replace(event, kind=event.kind.removeprefix(PREFIX))
        for event in events
        if event.kind.startswith(PREFIX) and event.data["trial"] == trial
    ]


@dataclass
class Trials:
    """The trials of a search.

    Args:
        work_of: what is to be trained for a configuration (its number) on a fold.
        machine: how to compute.
        costs: of the parts of training, by the probe.
        meter: charges every unit; None where another process does.
        events: the attempt's.
        recorded: reads what was recorded of trials so far.
        folder: where paused trials are kept.
        interrupted: whether the user has asked to stop.
        study: the name of the study, by which the events of its trials are told apart.
        prepare: what is done to a loop before it begins, given the configuration's number and the fold.
    """

    work_of: Callable[[int, int], Work]
    machine: Machine
    costs: Costs
    meter: UnitMeter | None
    events: Recorder
    recorded: Callable[[], Sequence[Event]]
    folder: Path
    interrupted: Callable[[], bool]
    study: str = ""
    prepare: Callable[[Loop, int, int], None] | None = None
    _target: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._loop = lru_cache(maxsize=1)(self._make_loop)

    def look(self, proposal: Proposal, rungs: int) -> float:
        """Go on with a trial up to a look, of so many at a whole training; the score, of which more is better.

        Raises:
            OutOfMoney: what is left does not pay for it.
            Failed: its training broke down.
            Interrupted: the user stopped it; the trial is kept as it is.
        """
        number, fold = proposal.configuration, proposal.fold
        try:
            loop, events = self._loop(number, fold)
        except OutOfBudget as refusal:  # of the pass that its frozen layers' states take
            raise OutOfMoney from refusal
        every = -(-loop.full_steps // rungs)
        self._target = min(proposal.rung * every, loop.full_steps)
        stopped = ""
        try:
            stopped = loop.run(every, self.costs).stopped
        except Interrupted:
            if self.interrupted():
                raise
        except NotANumber as refusal:
            raise Failed(refusal.what) from refusal
        if self._target not in events.figures or stopped in {"budget", "breach"}:
            raise OutOfMoney
        return score_of(events.figures[self._target], loop.recipe.watch, loop.recipe.higher_is_better)

    def trained(self, number: int, fold: int) -> tuple[Task, torch.nn.Module]:
        """The task and the model of the trial that was looked at last: at its end, with its best weights."""
        loop, _ = self._loop(number, fold)
        return loop.task, loop.model

    def drop(self, number: int, fold: int) -> None:
        """Give a paused trial's place on the disk back; it would begin anew."""
        shutil.rmtree(self.folder / _name(number, fold), ignore_errors=True)

    def bytes_by_trial(self) -> dict[tuple[int, int], int]:
        """What each paused trial holds on the disk."""
        return {
            (int(number), int(fold)): _bytes_in(folder)
            for folder in self.folder.glob("*-*")
            for number, fold in [folder.name.split("-")]
        }

    def _make_loop(self, number: int, fold: int) -> tuple[Loop, TrialEvents]:
        work = self.work_of(number, fold)
        name = self.study + _name(number, fold)
        events = TrialEvents(self.events, name)
        recorded = recorded_of(name, self.recorded())
        for event in recorded:
            events.remember(event.kind, event.data)
        watch = Supervision(
            decisions=Decisions(events, recorded),
            events=events,
            meter=self.meter,
            governor=None,
            checkpoints=self.folder / _name(number, fold),
            interrupted=lambda: self.interrupted() or (loop.step >= self._target and loop.step < loop.full_steps),
        )
        recipe = replace(work.recipe, patience=NO_PATIENCE)
        loop = Loop(work.task, work.task.build(), work.train, work.validation, recipe, self.machine, watch)
        if self.prepare is not None:
            self.prepare(loop, number, fold)
        return loop, events


def probed(work: Work, machine: Machine, decisions: Decisions, events: Recorder, folder: Path, root: Path) -> Costs:
    """What the parts of a training take here, by real steps.

    Args:
        work: what is trained.
        machine: how to compute.
        decisions: the attempt's journal.
        events: the attempt's.
        folder: for the probe's own files.
        root: a folder on the disk that will hold checkpoints.
    """
    watch = Supervision(decisions, events, None, None, folder)
    loop = Loop(work.task, work.task.build(), work.train, work.validation, work.recipe, machine, watch)
    return probe_costs(loop, PROBE_SECONDS, root)


def _bytes_in(folder: Path) -> int:
    """Of all files; a worker may be replacing some of them."""
    found = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found += file.stat().st_size if file.is_file() else 0
    return found


def score_of(figures: dict[str, float], watch: str, higher_is_better: bool) -> float:
    """A validation as a score: a metric as it is, a loss as its negative logarithm."""
    return figures[watch] if higher_is_better else -math.log(max(figures[watch], 1e-9))


def paid_looks(events: Iterable[Event], space: Space, study: str = "") -> list[tuple[Look, float]]:
    """The looks of a study that an earlier process of the attempt has paid for, and the seconds of each."""
    found = []
    for event in events:
        if event.kind == "search.look" and event.data.get("study", "") == study:
            number, fold, rung = event.data["configuration"], event.data["fold"], event.data["rung"]
            look = Look(number, fold, rung, event.data["score"], space.configurations[number].rung_cost)
            found.append((look, event.data["seconds"]))
    return found


def _name(number: int, fold: int) -> str:
    return f"{number}-{fold}"
