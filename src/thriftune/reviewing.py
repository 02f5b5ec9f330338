"""The continuous review of a run: when it is made, what it knows by then, and the moves that the project file allows.

It listens to the run's own events: at each phase boundary, and at the first charge an hour after the last review, the
forecast to completion is renewed and recorded (`review`). A search may be cut before it begins and by each review in
its midst; other moves are made where nothing of what they change has begun, between the probe and the first step. Each
is a recorded decision, which a resumed run reads and makes again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from thriftune.budget.forecast import Forecast, total
from thriftune.errors import BadInput
from thriftune.events import Event
from thriftune.forecasting import (
    PRIOR_ENCODE_ROW,
    PRIOR_LOAD,
    ROW_EPOCH_PART,
    Bench,
    search_seconds,
)
from thriftune.money.prices import LOCAL, PriceTable
from thriftune.money.tables import interruptions
from thriftune.plan.outlook import Outlook
from thriftune.plan.plan import Part, Plan
from thriftune.plan.review import (
    DEEPER_FREEZE,
    FEWER_TRIALS,
    SMALLER_MODEL,
    SPOT,
    Proposal,
    Review,
    because,
    fewer_trials,
    in_danger,
    least_of,
    proposal_of,
    train_part,
    with_part,
)
from thriftune.plan.workload import SETUP_SECONDS, SETUP_SPREAD, Elsewhere
from thriftune.search.options import ALLOWANCE
from thriftune.session import Session
from thriftune.sizes import Size
from thriftune.tasks.kinds import KINDS

if TYPE_CHECKING:
    from thriftune.models.reference import ModelFolder

REVIEW_SECONDS = 3600.0
PACE_SPREAD = 0.15  # 95th percentile over the median of what the loop's own steps foretell of the rest
CLASSES = 2  # of the head of a model that is only counted
TAKEN_AT = 0  # the step that moves are recorded at: before the first


class Reviewer:
    """Renews the forecast of a run as its events come.

    Args:
        session: the run.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.bench: Bench | None = None
        self.probed: Plan | None = None
        self.size: Size | None = None
        self._reviewed_at = session.context.clock.now()
        self._phase: str | None = None
        self._search_taken: float | None = None
        self._first: Event | None = None
        self._last: Event | None = None

    def __call__(self, event: Event) -> None:
        """Take an event: a review is made where a phase begins, and every hour."""
        if event.kind == "training.step":
            self._first = self._first or event
            self._last = event
        elif event.kind == "stage.started":
            part = self.session.outlook.parts.get(event.data["stage"])
            if part is None:
                return
            before, self._phase = self._phase, part.phase
            if before is not None and before != part.phase:
                self.review(f"{before} is over, {part.phase} begins with {part.what}")
            if part.what == "search":
                self._search_begins()
        elif event.kind == "search.look" and self._search_taken is not None:
            self._search_taken += event.data["seconds"]
        elif event.kind == "charge" and self._is_due():
            self._cut_search(self.review("an hour has passed since the last review"))

    def review(self, when: str) -> Review:
        """Renew the forecast to completion, propose what could be given up where it may not fit, and record it."""
        self._reviewed_at = self.session.context.clock.now()
        plan = self.renewed()
        review = Review(when, plan, tuple(self.proposals(plan)) if in_danger(plan) else ())
        self.session.context.events.emit("review", **review.told())
        return review

    def renewed(self) -> Plan:
        """All that is to come, by what is known now."""
        session = self.session
        outlook = Outlook(dict(session.outlook.parts), dict(session.outlook.memory))
        limits = session.limits()
        train = outlook.parts.get("train")
        if train is not None:
            seconds = self._training()
            if seconds is not None:
                outlook.sharpen("train", seconds, train.minimum)
        search = session.project.file.search
        if search is not None and "search" in outlook.parts and train is not None:
            full = outlook.parts["train"].seconds.p50
            room = max(0.0, limits.seconds - outlook.after("search")) + full
            outlook.sharpen("search", _searching(self._search_left(search_seconds(session, room, full))))
        return outlook.plan(limits)

    def proposals(self, plan: Plan) -> Iterator[Proposal]:
        """What could be given up now, and what it would save."""
        may = self.session.project.file.budget.may
        search = fewer_trials(plan, may)
        if search is not None and search.saves:
            yield search
        if self._not_begun() and self.bench is not None:
            for move in (_deeper_freeze, _smaller_model):
                found = move(self.session, self.bench, plan)
                if found is not None:
                    yield found
        spot = self._spot(plan)
        if spot is not None and spot.saves:
            yield spot

    def _training(self) -> Forecast | None:
        """Training's seconds from now on: by its own pace, by the probe (None: as it stands), or by the record."""
        if self._first is not None and self._last is not None and self._last.data["planned"] is not None:
            done = self._last.data["step"] - self._first.data["step"]
            ahead = max(0, self._last.data["planned"] - self._last.data["step"])
            if done > 0:
                pace = (self._last.at - self._first.at) / done
                return Forecast.lognormal(ahead * pace, PACE_SPREAD, "measured")
        if self.bench is not None or self.size is None:
            return None
        file, rows = self.session.project.file, self.size.train
        passes = rows * file.train.epochs_for(file.objective.task, round(rows))
        known = self.session.record.forecast(f"{ROW_EPOCH_PART}/{file.model_references[0]}", passes, prior=0.0)
        return known if known.basis == "record" else None

    def _search_begins(self) -> None:
        """Count what its looks take, those of earlier processes included; one that goes on is reviewed at once."""
        earlier = self.session.context.events.read(attempt=self.session.context.attempt, kinds=["search.look"])
        self._search_taken = math.fsum(event.data["seconds"] for event in earlier)
        if self.session.decisions.recorded(ALLOWANCE) is not None:
            self._cut_search(self.review("the search goes on"))

    def _search_left(self, allowed: float) -> float:
        """Seconds that a search may still take."""
        if self._search_taken is None:
            return allowed
        recorded = self.session.decisions.recorded(ALLOWANCE)
        return max(0.0, (allowed if recorded is None else float(recorded)) - self._search_taken)

    def _cut_search(self, review: Review) -> None:
        """In the midst of a search: let it take as much less as is missing, where the project file allows it."""
        cut = next((each for each in review.proposals if each.move == FEWER_TRIALS and each.allowed), None)
        if cut is None or self._search_taken is None or self.session.decisions.recorded(ALLOWANCE) is None:
            return
        self.session.decisions.revise(ALLOWANCE, self._search_taken + cut.chosen, because(review.plan, cut), 0)

    def _not_begun(self) -> bool:
        """Whether no step of training was taken or planned, in this process or an earlier one of the attempt."""
        return self.session.decisions.recorded("planned_steps", 0) is None and self._last is None

    def _is_due(self) -> bool:
        return self.session.context.clock.now() - self._reviewed_at >= REVIEW_SECONDS

    def _spot(self, plan: Plan) -> Proposal | None:
        """The same machine on the spot market, its interruptions simulated; a person's move."""
        from thriftune.plan.compare import interrupted

        project, price = self.session.project, self.session.project.price
        if price.machine == LOCAL or price.market == SPOT or self.probed is None or self.probed.workload is None:
            return None
        now = self.session.context.clock.now()
        try:
            other = PriceTable.load().find(project.file.compute.machine, project.file.compute.region, SPOT)
        except BadInput:  # nobody sells it so
            return None
        rate = interruptions().get((other.provider, other.machine.lower(), other.region))
        if rate is None or other.currency != price.currency:
            return None
        work = self.probed.workload
        setup = Forecast.lognormal(SETUP_SECONDS, SETUP_SPREAD, "prior")
        there = Elsewhere(plan.full, total([setup, work.restart]), "")
        seconds, risk = interrupted(there, work, rate, now, project.file.seed)
        per_hour = other.times(project.file.compute.count)
        saved = Decimal(repr(plan.full.p50)) * plan.limits.price_per_hour - Decimal(repr(seconds.p50)) * per_hour
        says = f"{other.label} at {per_hour} an hour, {risk.interruptions:.2f} interruptions expected"
        enough = seconds.p95 <= plan.limits.time_seconds
        return Proposal(
            SPOT,
            f"{per_hour:f}",
            says,
            plan.full.p50 - seconds.p50,
            (saved / 3600).quantize(Decimal("1e-9")),
            enough,
        )


def watch(session: Session) -> Reviewer:
    """Review a run from now on."""
    reviewer = Reviewer(session)
    session.context.events.subscribe(reviewer)
    return reviewer


def proposed(session: Session, bench: Bench, plan: Plan, size: Size) -> tuple[Proposal, ...]:
    """What a run by this plan could give up, where it may not fit whole."""
    reviewer = Reviewer(session)
    reviewer.bench, reviewer.probed, reviewer.size = bench, plan, size
    return tuple(reviewer.proposals(plan)) if in_danger(plan) else ()


def room_for_search(reviewer: Reviewer, room: float) -> float:
    """Seconds for search and training together as the search is to see them: fewer where it is to try less.

    Args:
        room: that are left for both.
    """
    session = reviewer.session
    search = session.project.file.search
    kept = session.decisions.recorded(FEWER_TRIALS, TAKEN_AT)
    if kept is None and search is not None and FEWER_TRIALS in session.project.file.budget.may:
        plan = reviewer.renewed()
        proposal = fewer_trials(plan, session.project.file.budget.may) if in_danger(plan) else None
        if proposal is not None and proposal.saves:
            chosen, why = proposal.chosen, because(plan, proposal)
            kept = session.decisions.take(FEWER_TRIALS, lambda: (chosen, why), TAKEN_AT)
    return room if kept is None or search is None else min(room, float(kept) / search.share)


def make_again(session: Session) -> None:
    """Make the moves that an earlier process of this attempt recorded."""
    frozen = session.decisions.recorded(DEEPER_FREEZE, TAKEN_AT)
    if frozen is not None:
        _freeze(session, int(frozen))
    model = session.decisions.recorded(SMALLER_MODEL, TAKEN_AT)
    if model is not None:
        _change_model(session, str(model))


def move(reviewer: Reviewer, bench: Bench) -> bool:
    """Between the probe and the first step: review, and make the first move that is allowed and saves something.

    Returns:
        whether the session's project is another one now, so that model and rows are to be read and probed anew.
    """
    session = reviewer.session
    reviewer.bench = bench
    review = reviewer.review("training was probed")
    may = session.project.file.budget.may
    fitting = {each.move: each for each in review.proposals if each.allowed and each.move != FEWER_TRIALS}
    for name in may:
        proposal = fitting.get(name)
        if proposal is None or session.decisions.recorded(name, TAKEN_AT) is not None:
            continue
        chosen, why = proposal.chosen, because(review.plan, proposal)
        session.decisions.take(name, lambda: (chosen, why), TAKEN_AT)  # noqa: B023  called at once
        make_again(session)
        reviewer.bench = None
        _expect_again(reviewer)
        return True
    return False


def _searching(seconds: float) -> Forecast:
    """A search takes what it is allowed or ends sooner."""
    return Forecast.of([0.0, 0.5 * seconds, seconds, seconds, seconds], "probe")


def _deeper_freeze(session: Session, bench: Bench, plan: Plan) -> Proposal | None:
    """Freeze more of the first layers: the fewest with which all fits, or as many as can be."""
    from thriftune.models.reference import resolve

    file, work = session.project.file, bench.work
    if file.train.method_for(file.objective.task) != "full" or file.train.unfreeze != "none":
        return None
    now, row_tokens = file.train.freeze_layers, float(work.train.lengths.mean())
    model = resolve(file.model_references[0], base=session.project.folder)
    operations = dict(_operations(model, range(now, work.layers), row_tokens))
    if now not in operations:  # the family's layers are not separate
        return None
    candidates = []
    for frozen in range(now + 1, work.layers):
        after = _trained_in(session, bench, plan, operations[frozen] / operations[now])
        says = f"{frozen} of {work.layers} layers frozen instead of {now}"
        candidates.append(proposal_of(plan, after, DEEPER_FREEZE, frozen, says, file.budget.may))
    return least_of(candidates)


def _smaller_model(session: Session, bench: Bench, plan: Plan) -> Proposal | None:
    """Train one of the project's other models: the largest with which all fits, or the smallest."""
    from thriftune.models.reference import resolve

    file, folder = session.project.file, session.project.folder
    mine, *others = file.model_references
    if not others:
        return None
    row_tokens = float(bench.work.train.lengths.mean())
    here = resolve(mine, base=folder)
    own = dict(_operations(here, range(1), row_tokens)).get(0)
    candidates = []
    for reference in others:
        other = resolve(reference, base=folder)
        its = dict(_operations(other, range(1), row_tokens)).get(0)
        if own is not None and its is not None and other.kind == here.kind and its < own:
            after = _trained_in(session, bench, plan, its / own)
            says = f"{reference} instead of {mine}"
            candidates.append((its, proposal_of(plan, after, SMALLER_MODEL, reference, says, file.budget.may)))
    return least_of([each for _, each in sorted(candidates, key=lambda one: -one[0])])


def _trained_in(session: Session, bench: Bench, plan: Plan, share: float) -> Plan:
    """The plan where an update takes a share of its time, by the estimate that the plan itself was made with."""
    from thriftune.train import train

    part = train_part(plan)
    if part is None:
        return plan
    costs = replace(bench.costs, seconds_per_token=share * bench.costs.seconds_per_token, prefix=None, phases=())
    every, _ = train.validate_every(bench.work, costs)
    seconds = train.estimate(bench.work, costs, every, bench.work.full_steps, session.project.file.train)
    return with_part(plan, "train", seconds, part.minimum)


def _operations(model: ModelFolder, depths: range, row_tokens: float) -> Iterator[tuple[int, float]]:
    """Operations a token of training by the number of frozen layers, as `models/flops.py` counts them, without
    weights; nothing where the family's layers are not separate."""
    from thriftune.models.flops import training_flops
    from thriftune.models.footprint import empty_model
    from thriftune.models.inspection import config_of
    from thriftune.models.load import has_layer_list
    from thriftune.models.prefix import freeze_first

    with empty_model(config_of(model), model.kind, CLASSES) as empty:
        if not has_layer_list(empty):
            return
        for frozen in depths:
            freeze_first(empty, frozen)
            yield frozen, training_flops(empty, 1.0, row_tokens)


def _freeze(session: Session, layers: int) -> None:
    file = session.project.file
    train = file.train.model_copy(update={"freeze_layers": layers})
    session.project = replace(session.project, file=file.model_copy(update={"train": train}))


def _change_model(session: Session, reference: str) -> None:
    file = session.project.file
    models = (reference, *(one for one in file.model_references if one != reference))
    session.project = replace(session.project, file=file.model_copy(update={"models": models}))


def _expect_again(reviewer: Reviewer) -> None:
    """Put encoding, loading and probing of what is to be trained now before all else that is to come."""
    session = reviewer.session
    file, rows = session.project.file, 0.0 if reviewer.size is None else reviewer.size.rows
    reference = file.model_references[0]
    again = {
        "encode": session.record.forecast(f"encode/{reference}", rows, PRIOR_ENCODE_ROW),
        "load": session.record.forecast(f"load/{reference}", prior=PRIOR_LOAD),
        "probe": session.record.forecast(f"probe/{reference}", prior=KINDS[file.objective.task].probe_seconds),
    }
    parts = {what: Part("training", what, seconds) for what, seconds in again.items()}
    session.outlook.parts = {**parts, **session.outlook.parts}
