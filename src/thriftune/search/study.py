"""A study: look after look at the trials of one space on one set of rows, until allowance or hope is used up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from thriftune.context import Context
from thriftune.errors import BadInput
from thriftune.search.curves import Look
from thriftune.search.folds import repeated_folds
from thriftune.search.options import ALLOWANCE
from thriftune.search.policies import Policy, Proposal, Standing, to_its_end
from thriftune.search.sampled import policy_of
from thriftune.search.space import LOOKS, Space, make_space, product_of
from thriftune.search.states import SharedStates
from thriftune.search.steering import ASKED, BY_HAND, Steering
from thriftune.search.summary import found_of, known
from thriftune.search.trainings import Trainings, checked
from thriftune.search.trials import TRIAL_KINDS, Failed, OutOfMoney, Trials, paid_looks
from thriftune.search.types import Found, Means, Sought
from thriftune.search.worker import Brief
from thriftune.tasks.kinds import kind_of
from thriftune.train.costs import Costs
from thriftune.train.machine import Machine
from thriftune.train.options import TrainOptions
from thriftune.train.train import Work

OUT_OF_MONEY = "the budget or the deadline held no more of it"


class Study:
    """One search on some rows: its space, which may grow by hand, and what was paid for.

    Args:
        sought: what is searched.
        means: what may be used.
        context: the run's.
        rows: to search on.
        name: "" for the search itself; of an outer fold's, what its events are told apart by.
    """

    def __init__(self, sought: Sought, means: Means, context: Context, rows: pl.DataFrame, name: str = "") -> None:
        self._sought, self._means, self._context, self._rows, self.name = sought, means, context, rows, name
        options, by_class = sought.options, kind_of(sought.task).classes
        self._candidates = [checked(sought.train, values) for values in product_of(options.space, context.seed)]
        held_out = repeated_folds(rows, options.folds, options.repeats, by_class, context.seed)
        self._trainings = Trainings(sought.train, sought.reference, sought.work_of, rows, held_out, self._candidates)
        self.folds = len(held_out)
        room = min(means.room, 0.999 * context.meter.remaining_seconds())
        with context.meter.unit("training", "search: the first configuration is read", room):
            self.first = self._trainings.work(sought.reference, sought.train, 0)
            self._sizes = [self._size(*one) for one in self._candidates]
        self._rung = min(cost for cost, _ in self._sizes) / LOOKS
        self._steering = Steering()
        self._asked = 0  # the number of the latest request's event that was taken up
        self._by_hand = 0  # requests so far
        self._grown()
        self._follow_recorded()
        paid = paid_looks(means.earlier, self.space, name)
        self.looks, self.spent = [look for look, _ in paid], [seconds for _, seconds in paid]
        for event in means.earlier:
            if event.kind == "search.look" and event.data["study"] == name and event.data["failed"]:
                self.close(event.data["configuration"])

    def go_on(self, machine: Machine, costs: Costs, scratch: Path, looking: Callable[[Study, Trials], str]) -> Found:
        """Look after look, until what is allowed is used up or nothing is worth its price any more.

        Args:
            machine: how to compute.
            costs: of the parts of training, by the probe.
            scratch: where paused trials are kept.
            looking: how the looks are made, one by one or side by side; it tells why there is none any more.
        """
        trials = self._trials(self.name, machine, costs, scratch, self._trainings.work_of)
        trials.prepare = partial(self._trainings.give_states, self._shared_states(costs))
        because = looking(self, trials)
        if not self.looks:
            return Found({}, [], 0.0, because)
        within = self._sought.options.cheapest_within
        return found_of(self.space, self.looks, self.spent, self._standing(), self._serving(), within, because)

    @property
    def ended(self) -> bool:
        """Whether it is to end, by hand."""
        return self._steering.ended

    def close(self, number: int) -> None:
        """Do not go on with a trial any more."""
        self._steering.stopped.add(number)
        self._steering.satisfied(number)

    def judged(
        self, values: Mapping[str, Any], held_out: pl.DataFrame, machine: Machine, costs: Costs, scratch: Path
    ) -> float:
        """The score, on rows that this study has not seen, of a configuration trained on all that it has.

        Raises:
            OutOfMoney: what is left does not pay for it.
        """
        number = next(at for at, (known, _) in enumerate(self._candidates) if known == values)

        def work_of(number: int, _fold: int) -> Work:
            values, options = self._candidates[number]
            reference = values.get("model", self._sought.reference)
            return self._sought.work_of(reference, options, self._rows, held_out)

        rungs = self.space.configurations[number].rungs
        trials = self._trials(f"{self.name}judged.", machine, costs, scratch, work_of)
        return trials.look(Proposal(number, 0, rungs, math.inf, 0.0), rungs)

    def _trials(
        self, name: str, machine: Machine, costs: Costs, scratch: Path, work_of: Callable[[int, int], Work]
    ) -> Trials:
        context, events = self._context, self._context.events
        recorded = partial(events.read, attempt=context.attempt, kinds=TRIAL_KINDS)
        interrupted = self._means.interrupted
        return Trials(work_of, machine, costs, context.meter, events, recorded, scratch, interrupted, name)

    def brief(self, trials: Trials) -> Brief:
        """What a worker must know to make looks of these trials in a process of its own."""
        context = self._context
        return Brief(
            database=context.store.url,
            project=context.project,
            attempt=context.attempt,
            root=context.root,
            folder=trials.folder,
            study=self.name,
            trainings=self._trainings,
            machine=trials.machine,
            costs=trials.costs,
        )

    def next_look(self, costs: Costs, busy: Collection[int]) -> tuple[Proposal | None, str]:
        """The next look, without the configurations that are being looked at; or why there is none.

        What is allowed, the same for the search and for each outer fold's, is asked anew each time: a review may have
        cut it meanwhile.
        """
        if self._steering.ended:
            return None, "it was stopped by hand"
        rate = self._seconds_per_unit(costs)
        allowed = self._means.decisions.recorded(ALLOWANCE) / (1 + self._sought.options.nested)
        left = (allowed - math.fsum(self.spent)) / rate
        proposal = self._wanted(left, busy)
        if proposal is None:
            proposal = self._policy.propose(self.looks, left, self._steering.stopped.union(busy))
        if proposal is None:
            return None, f"what is left of its {allowed:.0f} s holds no training"
        least = self._least_gain(rate * proposal.cost)
        if proposal.gain < least:
            return None, f"the best next look promises {100 * proposal.gain:.3f} points, less than {100 * least:.3f}"
        return proposal, ""

    def _seconds_per_unit(self, costs: Costs) -> float:
        """Of the space's costs: tokens by the probe, then what looks really took."""
        if not self.spent:
            return costs.seconds_per_token
        return math.fsum(self.spent) / math.fsum(look.cost for look in self.looks)

    def _least_gain(self, seconds: float) -> float:
        """What a look must promise that takes so long to its training's end."""
        worth = self._means.worth_per_score
        if not worth:
            return self._sought.options.least_gain
        nodes = self._sought.nodes
        beside = 0 if nodes is None else nodes.seconds_cost(self._sought.options.workers, seconds)
        return (seconds * float(self._context.meter.price_per_hour) / 3600 + float(beside)) / worth

    def _wanted(self, left: float, busy: Collection[int]) -> Proposal | None:
        """The next look at what was asked for by hand, if it fits."""
        for number in [number for number in self._steering.wanted if number not in busy]:
            proposal = to_its_end(self.space, self.looks, self.folds, number)
            if proposal is not None and proposal.cost <= left:
                return proposal
            if proposal is not None:
                what = f"trial {number}, which was asked for by hand, does not fit into what is left any more"
                self._context.events.emit("warning", where="search", what=what)
            self._steering.satisfied(number)
        return None

    def record(
        self,
        proposal: Proposal,
        score: float | None,
        seconds: float,
        trials: Trials,
        failed: str = "",
        busy: Collection[int] = (),
    ) -> None:
        """Note what a look found, durably, before anything else is begun.

        Args:
            proposal: the look.
            score: that it found; None where its training broke down, which counts as the worst so far.
            seconds: that it took.
            trials: of which those that promise least lose their place on the disk, should it get scarce.
            failed: why its training broke down; the trial is closed.
            busy: configurations that others are looking at.
        """
        one = self.space.configurations[proposal.configuration]
        if score is None:
            score = min((look.score for look in self.looks), default=0.0)
            self.close(proposal.configuration)
        look = Look(proposal.configuration, proposal.fold, proposal.rung, score, one.rung_cost)
        self.looks.append(look)
        self.spent.append(seconds)
        standing = self._standing()
        self._context.events.emit(
            "search.look",
            study=self.name,
            configuration=look.configuration,
            values=dict(one.values),
            fold=look.fold,
            rung=look.rung,
            rungs=one.rungs,
            score=score,
            seconds=seconds,
            failed=failed,
            best=dict(self.space.configurations[standing.winner].values),
            expected=float(standing.mean[standing.winner]),
            deviation=known(standing.deviation[standing.winner]),
        )
        if look.rung == one.rungs:
            trials.drop(look.configuration, look.fold)
            self._steering.satisfied(look.configuration)
        _keep_within(trials, standing, self._sought.options.disk_gb * 1e9, busy)

    def _standing(self) -> Standing:
        return self._policy.standing(self.looks)

    def _serving(self) -> list[float]:
        models = [values.get("model", self._sought.reference) for values, _ in self._candidates]
        by_model = {model: self._sought.serving_of(model) for model in dict.fromkeys(models)}
        return [by_model[model] for model in models]

    # what is trained

    def _shared_states(self, costs: Costs) -> SharedStates:
        meter, most = self._context.meter, self._sought.train.prefix_cache_bytes
        unit = partial(meter.unit, "training")
        return SharedStates(self._context.root, most, costs, unit, self._context.events)

    def _size(self, _values: Mapping[str, Any], options: TrainOptions) -> tuple[float, int]:
        """Tokens that a configuration's training takes on a fold, counted as if none of the model were frozen, and its
        updates. A frozen layer is run but not trained, which is a third of its work."""
        rows, task = len(self.first.train), self._sought.task
        epochs = options.epochs_for(task, rows)
        frozen = min(1.0, options.freeze_layers / max(1, self.first.layers))
        share = 1.0 - frozen * 2 / 3
        return self.first.train_tokens * epochs * share, epochs * -(-rows // options.batch_rows_for(task))

    # the space, and what is asked for by hand

    def _grown(self) -> None:
        """The space and the policy of the candidates as they are now."""
        options = self._sought.options
        costs, steps = zip(*self._sizes, strict=True)
        own = {name: self._own(name) for name in options.space}
        self.space: Space = make_space([values for values, _ in self._candidates], costs, own, steps, self._rung)
        self._policy: Policy = policy_of(options.sampler, options.pruner, self.space, self.folds, self._context.seed)

    def _own(self, name: str) -> Any:
        """What an option is without a search."""
        recipe = self.first.recipe
        resolved = {
            "model": self._sought.reference,
            "learning_rate": recipe.rate,
            "batch_rows": recipe.rows_per_update,
            "epochs": recipe.epochs,
            "schedule": recipe.decay,
            "lora.rank": self._sought.train.lora.rank,
        }
        return resolved[name] if name in resolved else getattr(self._sought.train, name)

    def _follow_recorded(self) -> None:
        """Stand where the requests that an earlier process took up have led."""
        for event in self._means.earlier:
            if not self.name and event.kind == "decision" and event.data["what"].startswith(BY_HAND):
                self._follow(event.data["chosen"])

    def take_up_requests(self) -> None:
        """Take up what was asked for since the look before, each as a recorded decision."""
        if self.name:
            return
        events = self._context.events
        for event in events.read(attempt=self._context.attempt, kinds=[ASKED], after=self._asked):
            chosen = event.data | {"asked": event.seq}
            self._means.decisions.take(f"{BY_HAND} {self._by_hand + 1}", partial(_as_asked, chosen))
            self._follow(chosen)

    def _follow(self, told: Mapping[str, Any]) -> None:
        self._asked, self._by_hand = told["asked"], self._by_hand + 1
        number = told["trial"]
        if number is not None and number >= len(self.space):
            return
        if told["wish"] == "clone":
            try:
                number = self._cloned(self.space.configurations[number].values | told["changes"])
            except BadInput as refusal:
                self._context.events.emit("warning", where="search", what=f"{told['because']}: {refusal.what}")
                return
        self._steering.follow(told["wish"], number)

    def _cloned(self, values: dict[str, Any]) -> int:
        """The number of the configuration with these values, which is made where it is not there."""
        for number, (there, _) in enumerate(self._candidates):
            if there == values:
                return number
        one = checked(self._sought.train, values)
        self._candidates.append(one)
        self._sizes.append(self._size(*one))
        self._grown()
        return len(self.space) - 1


def look_alone(study: Study, trials: Trials) -> str:
    """One look after the other in this process until none is left to make; why."""
    because = ""
    while not because:
        study.take_up_requests()
        because = _look(study, trials)
    return because


def _look(study: Study, trials: Trials) -> str:
    """Pay for the next look; why there is none any more, or nothing where it was made."""
    proposal, because = study.next_look(trials.costs, ())
    if proposal is None:
        return because
    began = time.monotonic()
    try:
        score = trials.look(proposal, study.space.configurations[proposal.configuration].rungs)
    except OutOfMoney:
        return OUT_OF_MONEY
    except Failed as failure:
        study.record(proposal, None, time.monotonic() - began, trials, str(failure))
    else:
        study.record(proposal, score, time.monotonic() - began, trials)
    return ""


def _as_asked(request: Mapping[str, Any]) -> tuple[Any, str]:
    return request, str(request["because"])


def _keep_within(trials: Trials, standing: Standing, most_bytes: float, busy: Collection[int]) -> None:
    """Drop the paused trials that promise least until the rest is within the bound."""
    held = trials.bytes_by_trial()
    for trial in sorted((trial for trial in held if trial[0] not in busy), key=lambda trial: standing.mean[trial[0]]):
        if sum(held.values()) <= most_bytes:
            return
        trials.drop(*trial)
        held.pop(trial)
