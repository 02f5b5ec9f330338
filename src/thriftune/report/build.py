"""From the event stream and the ledger to a `Report`: a pure function, so that a report can be made of any attempt
at any time, on any machine that has the events."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate
from typing import Any

from thriftune.errors import BadInput
from thriftune.events import Event
from thriftune.money.bills import Period
from thriftune.money.ledger import Balance, PhaseBalance
from thriftune.plan.compare import from_data
from thriftune.report.durations import durations
from thriftune.report.model import (
    Breach,
    Compared,
    Comparison,
    Cost,
    DataStep,
    Decision,
    Environment,
    Estimate,
    ForecastScore,
    Look,
    Move,
    PartsRow,
    PhaseCost,
    ProjectSummary,
    Report,
    Scores,
    Searched,
    Span,
    TimeUse,
    Tokens,
    TrainingStep,
    Tried,
    Utilisation,
    Validation,
    Verdict,
    Warned,
)
from thriftune.report.previous import over_previous
from thriftune.report.returns import NOT_IN_POINTS, best_baseline, returns
from thriftune.report.spending import spending
from thriftune.report.wording import as_text
from thriftune.timeline.timeline import timeline_of
from thriftune.timeline.told import OUTSIDE, as_told, told_of

PHASES = ("collection", "training", "evaluation", "deployment", "upkeep")
TUNED = "tuned"
INHERITABLE = (
    "data.entry",
    "data.tokens",
    "warning",
    "decision",
    "training.step",
    "training.validation",
    "training.parts",
    "training.checkpoint",
    "evaluation.scores",
    "evaluation.comparison",
    "verdict",
)


def build(
    project: ProjectSummary,
    attempt: int,
    events: Sequence[Event],
    balance: Balance | None = None,
    settled: bool = True,
    billed: Sequence[Period] = (),
) -> Report:
    """The report of one attempt.

    Args:
        project: what the project file says that the events do not.
        attempt: the attempt's number.
        events: all events of the project, in order; later attempts than the one asked for are passed over.
        balance: what the ledger says now: it has the allowances, and is held against the charge events. None when
            it was not read, or the attempt is not the latest.
        settled: no process was at work while events and balance were read, so that they must agree.
        billed: metered against billed, where a bill was imported.

    Raises:
        BadInput: there is no such attempt.
    """
    past = [event for event in events if event.attempt <= attempt]
    own = [event for event in past if event.attempt == attempt]
    if not own:
        raise no_such_attempt(attempt, events)
    inherited = _inherited(own, past)
    told = {event.kind for event in own} - {"decision"}
    facts = _Facts([*(event for event in _events_of(inherited, past) if event.kind not in told), *own])
    cost = _cost(past, own, balance, settled)
    everything = _comparisons(facts)
    comparisons = tuple(comparison for comparison in everything if not comparison.part)
    metric = _primary_metric(project, comparisons, facts)
    scores = [_scores(event.data) for event in facts.of("evaluation.scores")]
    finished = ending(own)
    return Report(
        project=project,
        attempt=attempt,
        metric=metric,
        started_at=own[0].at,
        as_of=own[-1].at,
        outcome=_text(finished, "outcome") or None,
        message=_text(finished, "message"),
        verdict=_verdict(facts.last("verdict")),
        tuned=_on_test(scores, TUNED),
        baselines=_baselines(scores),
        comparisons=comparisons,
        part_comparisons=tuple(comparison for comparison in everything if comparison.part),
        cost=cost,
        time=_time(past, own),
        forecasts=_forecasts(own),
        data_ledger=tuple(_data_step(event.data) for event in facts.of("data.entry")),
        tokens=_tokens(facts.last("data.tokens")),
        warnings=tuple(dict.fromkeys(Warned(as_text(e.data["where"]), e.data["what"]) for e in facts.of("warning"))),
        decisions=tuple(_decision(event) for event in [*facts.of("decision"), *_outside(past)]),
        search=_searched(facts),
        steps=_steps(facts),
        validations=_validations(facts),
        forgetting=_forgetting(facts),
        spans=_spans(own),
        looks=tuple(_look(event) for event in past if event.kind == "evaluation.look"),
        breaches=tuple(_breach(event.data) for event in own if event.kind == "breach"),
        utilisation=_utilisation(_steps(facts)),
        environment=_environment(facts.last("attempt.started")),
        returns=returns(best_baseline(comparisons, metric), project.worth, cost.spent),
        previous=None if metric in NOT_IN_POINTS else over_previous(past, attempt, metric),
        timeline=timeline_of(project.name, as_told(project.timeline, told_of(past)), None, own, own[-1].at),
        durations=durations(past),
        compared=_compared(past),
        inherited={stage: source for stage, (source, _) in inherited.items()},
        spending=spending(past, own, balance, billed),
    )


def no_such_attempt(attempt: int, events: Sequence[Event]) -> BadInput:
    """The error for an attempt that the events do not know."""
    numbers = sorted({event.attempt for event in events} - {OUTSIDE})
    return BadInput(
        "there is no such attempt",
        where="--attempt",
        found=str(attempt),
        expected=f"one of {', '.join(map(str, numbers))}" if numbers else "a project that has been run",
        way_out="see them with `thriftune runs`" if numbers else "start one with `thriftune run`",
    )


def ending(own: Sequence[Event]) -> Event | None:
    """How the attempt ended; None while it runs, or when its last process ended without notice."""
    bounds = [event for event in own if event.kind in ("attempt.started", "attempt.finished")]
    return bounds[-1] if bounds and bounds[-1].kind == "attempt.finished" else None


class _Facts:
    """Events by kind."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._by_kind: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            self._by_kind[event.kind].append(event)

    def of(self, kind: str) -> list[Event]:
        return self._by_kind.get(kind, [])

    def last(self, kind: str) -> Event | None:
        found = self.of(kind)
        return found[-1] if found else None


def _compared(past: Sequence[Event]) -> Compared | None:
    """The latest comparison with other machines; None where nobody asked for one."""
    found = [event for event in past if event.kind == "plan.compared"]
    return Compared(found[-1].at, found[-1].data["ways"], from_data(found[-1].data)) if found else None


# What an attempt took over from earlier ones


def _inherited(own: Sequence[Event], past: Sequence[Event]) -> dict[str, tuple[int, str]]:
    """Stage → (attempt that computed it, key), for the stages that this attempt only looked up."""
    computed: dict[tuple[str, str], int] = {}
    for event in past:
        if event.kind == "stage.finished" and not event.data["reused"]:
            computed[event.data["stage"], event.data["key"]] = event.attempt
    found: dict[str, tuple[int, str]] = {}
    for event in own:
        if event.kind == "stage.finished" and event.data["reused"]:
            stage, key = event.data["stage"], event.data["key"]
            source = computed.get((stage, key))
            if key and source is not None and source != event.attempt:
                found[stage] = (source, key)
    return found


def _events_of(inherited: Mapping[str, tuple[int, str]], past: Sequence[Event]) -> list[Event]:
    """What was recorded while those stages ran in the attempts that computed them."""
    wanted = {(attempt, stage, key) for stage, (attempt, key) in inherited.items()}
    taken: list[Event] = []
    inside: tuple[int, str, str] | None = None
    for event in past:
        if event.kind == "stage.started":
            inside = (event.attempt, event.data["stage"], event.data["key"])
        elif event.kind == "stage.finished":
            inside = None
        elif event.kind in INHERITABLE and inside in wanted:
            taken.append(event)
    return taken


# Money and time


def _cost(past: Sequence[Event], own: Sequence[Event], balance: Balance | None, settled: bool) -> Cost:
    started = _Facts(past).last("attempt.started")
    charges = [event.data for event in past if event.kind == "charge"]
    moves = tuple(move for event in past if (move := _move(event)) is not None)
    spent = _amounts(charges)
    price = _text(started, "price_per_hour")
    return Cost(
        budget=_budget(past) if balance is None else balance.total,
        spent=spent,
        this_attempt=_amounts(event.data for event in own if event.kind == "charge"),
        currency=_text(started, "currency") if balance is None else balance.currency,
        price_per_hour=Decimal(price) if price else None,
        phases=_phases(charges, moves, {} if balance is None else balance.phases),
        moves=moves,
        ledger_difference=balance.spent - spent if balance is not None and settled else None,
    )


def _budget(past: Sequence[Event]) -> Decimal | None:
    """The total that the first attempt stated, plus every change that was recorded since."""
    stated = [event for event in past if event.kind == "attempt.started" and event.data["budget"] is not None]
    if not stated:
        return None
    changes = [event.data for event in past if event.kind == "budget.added" and event.seq > stated[0].seq]
    return Decimal(stated[0].data["budget"]) + _amounts(changes)


def _phases(
    charges: Sequence[Mapping[str, Any]], moves: Sequence[Move], balances: Mapping[str, PhaseBalance]
) -> tuple[PhaseCost, ...]:
    """Every phase that is allowed money or spent some, in the order of the line."""
    named = dict.fromkeys([*balances, *(charge["phase"] for charge in charges)])
    line = [phase for phase in PHASES if phase in named]
    return tuple(_phase(phase, charges, moves, balances.get(phase)) for phase in dict.fromkeys([*line, *named]))


def _phase(
    phase: str, charges: Sequence[Mapping[str, Any]], moves: Sequence[Move], balance: PhaseBalance | None
) -> PhaseCost:
    mine = [charge for charge in charges if charge["phase"] == phase]
    return PhaseCost(
        phase=phase,
        allowance=None if balance is None else balance.allowance,
        spent=_amounts(mine),
        moved_in=sum((move.amount for move in moves if move.target == phase), Decimal(0)),
        moved_out=sum((move.amount for move in moves if move.source == phase), Decimal(0)),
        estimated=_amounts([charge for charge in mine if charge["estimated"]]),
        seconds=math.fsum(charge["seconds"] or 0.0 for charge in mine),
    )


def _amounts(charges: Iterable[Mapping[str, Any]]) -> Decimal:
    return sum((Decimal(charge["amount"]) for charge in charges), Decimal(0))


def _move(event: Event) -> Move | None:
    data = event.data
    if event.kind == "budget.moved":
        return Move(event.at, data["source"], data["target"], Decimal(data["amount"]), data["reason"])
    if event.kind == "budget.added":
        return Move(event.at, None, None, Decimal(data["amount"]), data["reason"])
    return None


def _time(past: Sequence[Event], own: Sequence[Event]) -> TimeUse:
    starts = [event.data for event in past if event.kind == "attempt.started"]
    waits = [event.at for event in past if event.kind == "queue.waiting"]
    first = min([starts[0]["started_at"] if starts else past[0].at, *waits[:1]])
    deadline = starts[-1].get("deadline_at") if starts else None
    by_phase: dict[str, float] = defaultdict(float)
    by_unit: dict[tuple[str, str], float] = defaultdict(float)
    for event in own:
        if event.kind == "charge" and event.data["seconds"]:
            by_phase[event.data["phase"]] += event.data["seconds"]
            by_unit[event.data["phase"], event.data["unit"]] += event.data["seconds"]
    return TimeUse(
        deadline_s=None if deadline is None else deadline - first,
        used_s=own[-1].at - first,
        metered_s=math.fsum(by_phase.values()),
        by_phase=dict(by_phase),
        by_unit=dict(by_unit),
        waited_s=math.fsum(event.data["waited_s"] for event in own if event.kind == "queue.taken"),
    )


def _forecasts(own: Sequence[Event]) -> tuple[ForecastScore, ...]:
    """The first forecast of each quantity, which is the one that is scored: later ones know part of the answer."""
    actual = {(e.data["phase"], e.data["quantity"]): float(e.data["value"]) for e in own if e.kind == "actual"}
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for event in own:
        if event.kind == "forecast":
            first.setdefault((event.data["phase"], event.data["quantity"]), event.data)
    return tuple(
        ForecastScore(
            phase=phase,
            quantity=quantity,
            p5=float(data["p5"]),
            p25=float(data["p25"]),
            p50=float(data["p50"]),
            p75=float(data["p75"]),
            p95=float(data["p95"]),
            basis=data["basis"],
            actual=actual.get((phase, quantity)),
        )
        for (phase, quantity), data in first.items()
    )


# Quality


def _scores(data: Mapping[str, Any]) -> Scores:
    return Scores(
        predictor=data["predictor"],
        split=data["split"],
        rows=data.get("rows"),
        metrics={name: _estimate(value) for name, value in data["metrics"].items()},
        by_class=data.get("by_class") or {},
        by_part={
            part: {name: _estimate(value) for name, value in metrics.items()}
            for part, metrics in (data.get("by_part") or {}).items()
        },
        seconds=data.get("seconds"),
    )


def _estimate(value: Any) -> Estimate:
    if isinstance(value, Mapping):
        return Estimate(float(value["value"]), value.get("low"), value.get("high"))
    return Estimate(float(value))


def _on_test(scores: Sequence[Scores], predictor: str) -> Scores | None:
    return next((s for s in reversed(scores) if s.predictor == predictor and s.split == "test"), None)


def _baselines(scores: Sequence[Scores]) -> tuple[Scores, ...]:
    """The latest scores of each baseline: on the test split where it was looked at, else on validation."""
    names = dict.fromkeys(s.predictor for s in scores if s.predictor != TUNED)
    latest = {name: [s for s in scores if s.predictor == name] for name in names}
    return tuple(_on_test(scores, name) or latest[name][-1] for name in names)


def _comparisons(facts: _Facts) -> tuple[Comparison, ...]:
    """The latest comparison with each baseline on each metric, over all rows and over each part's."""
    told = [event.data for event in facts.of("evaluation.comparison")]
    latest = {(data["baseline"], data["metric"], data.get("part", "")): data for data in told}
    return tuple(
        Comparison(
            baseline=baseline,
            metric=metric,
            difference=float(data["difference"]),
            low=float(data["low"]),
            high=float(data["high"]),
            p_value=data.get("p_value"),
            outcome=data["outcome"],
            confidence=data.get("confidence"),
            part=part,
            rows=data.get("rows"),
        )
        for (baseline, metric, part), data in latest.items()
    )


def _primary_metric(project: ProjectSummary, comparisons: Sequence[Comparison], facts: _Facts) -> str | None:
    """The metric that the verdict looks at: the project's where it names one, else the first that was compared."""
    if project.target is not None and project.target.metric is not None:
        return project.target.metric
    if comparisons:
        return comparisons[0].metric
    scored = facts.last("evaluation.scores")
    return next(iter(scored.data["metrics"]), None) if scored is not None else None


def _verdict(event: Event | None) -> Verdict | None:
    return None if event is None else Verdict(event.data["decision"], tuple(event.data["reasons"]))


# The course of the run


def _steps(facts: _Facts) -> tuple[TrainingStep, ...]:
    """One entry a step, in order; a step that was done again after a crash counts as it was last done."""
    latest = {event.data["step"]: event.data for event in facts.of("training.step")}
    return tuple(
        TrainingStep(
            step=step,
            planned=data.get("planned"),
            epoch=data.get("epoch"),
            loss=data.get("loss"),
            rate=data.get("rate"),
            tokens=data.get("tokens"),
            padded_tokens=data.get("padded_tokens"),
            seconds=data.get("seconds"),
        )
        for step, data in sorted(latest.items())
    )


def _validations(facts: _Facts) -> tuple[Validation, ...]:
    latest = {event.data["step"]: event.data for event in facts.of("training.validation")}
    return tuple(
        Validation(step, data.get("loss"), data.get("metrics") or {}, bool(data.get("best")))
        for step, data in sorted(latest.items())
    )


def _searched(facts: _Facts) -> Searched | None:
    ended = facts.last("search.finished")
    if ended is None:
        return None
    looks = [event.data for event in facts.of("search.look") if not event.data.get("study")]
    data = ended.data
    seconds = accumulate(look["seconds"] for look in looks)
    return Searched(
        winner=ended.data["values"],
        configurations=tuple(Tried(**row) for row in ended.data["configurations"]),
        seconds=ended.data["seconds"],
        because=ended.data["because"],
        best=tuple(zip(seconds, (look["expected"] for look in looks), strict=True)),
        chosen_because=data.get("chosen_because", ""),
        top=data.get("top") or data["values"],
        saved_seconds=data.get("saved_seconds", 0.0),
        importance=data.get("importance", {}),
        nested=tuple(outer["score"] for outer in data.get("nested", ())),
    )


def _forgetting(facts: _Facts) -> tuple[PartsRow, ...]:
    latest = {event.data["after"]: event.data for event in facts.of("training.parts")}
    return tuple(PartsRow(data["step"], after, data["parts"]) for after, data in latest.items())


def _utilisation(steps: Sequence[TrainingStep]) -> Utilisation:
    if not steps:
        return Utilisation(0, None, None, None, None, None)
    tokens = _whole(step.tokens for step in steps)
    padded = _whole(step.padded_tokens for step in steps)
    seconds = _whole(step.seconds for step in steps)
    return Utilisation(
        steps=steps[-1].step,
        planned=steps[-1].planned,
        step_seconds=seconds / len(steps) if seconds else None,
        tokens=None if tokens is None else int(tokens),
        tokens_per_second=tokens / seconds if tokens is not None and seconds else None,
        padding_share=1 - tokens / padded if tokens is not None and padded else None,
    )


def _whole(values: Iterable[float | None]) -> float | None:
    """The sum, or None when a part of it is missing."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _spans(own: Sequence[Event]) -> tuple[Span, ...]:
    """The stages in the order of their start; what was open when a process ended is closed at its last event."""
    done: list[Span] = []
    running: dict[str, Span] = {}
    before = own[0].at
    for event in own:
        if event.kind == "attempt.started":
            done += [replace(span, finished_at=before, interrupted=True) for span in running.values()]
            running.clear()
        elif event.kind == "stage.started":
            running[event.data["stage"]] = Span(event.data["stage"], event.at)
        elif event.kind == "stage.finished":
            span = running.pop(event.data["stage"], Span(event.data["stage"], event.at))
            done.append(replace(span, finished_at=event.at, reused=bool(event.data["reused"])))
        before = event.at
    return tuple(sorted([*done, *running.values()], key=lambda span: span.started_at))


def _data_step(data: Mapping[str, Any]) -> DataStep:
    return DataStep(
        step=data["step"],
        rows_in=int(data["rows_in"]),
        kept=int(data["kept"]),
        dropped=dict(data.get("dropped") or {}),
        changed=int(data.get("changed") or 0),
        notes=as_text(data.get("notes")),
    )


def _tokens(event: Event | None) -> Tokens | None:
    if event is None:
        return None
    data = event.data
    return Tokens(data["train"], data["validation"], data["cut_tokens"], data["cut_rows"], data.get("cut_words", 0))


def _outside(past: Sequence[Event]) -> list[Event]:
    """Decisions that belong to no attempt: what people said of their tasks."""
    return [event for event in past if event.attempt == OUTSIDE and event.kind == "decision"]


def _decision(event: Event) -> Decision:
    data = event.data
    return Decision(event.at, int(data["at_step"]), data["what"], data["chosen"], data["because"])


def _look(event: Event) -> Look:
    data = event.data
    return Look(data["split"], data["predictor"], int(data["looks"]), event.attempt, data.get("candidate") or "")


def _breach(data: Mapping[str, Any]) -> Breach:
    return Breach(data["what"], data.get("upper_s"), data.get("actual_s"), data["cause"])


def _environment(started: Event | None) -> Environment:
    data = {} if started is None else started.data
    return Environment(
        machine=_mapping(data.get("machine")),
        versions=_mapping(data.get("versions")),
        seed=data.get("seed"),
        recipe=settings_of(data.get("recipe")),
        project_file=as_text(data.get("project_file")),
    )


def settings_of(recipe: Any) -> Any:
    """A recorded recipe as plain values: it is kept as JSON text."""
    if isinstance(recipe, str) and recipe.startswith("{"):
        return json.loads(recipe)
    return recipe


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {} if value is None else {"machine": value}


def _text(event: Event | None, key: str) -> str:
    value = None if event is None else event.data.get(key)
    return "" if value is None else str(value)
