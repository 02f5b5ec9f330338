"""From a project's events and its people to the phases of a timeline, with what has already happened.

A plan is recorded whenever a run makes one (`plan.made`); a part counts as planned by the last plan before it began.
Stages' events say when parts began and ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from thriftune.budget.forecast import Forecast, total
from thriftune.budget.record import RECORD_SPREAD
from thriftune.plan.sampling import remaining
from thriftune.timeline.calendars import WorkingTime
from thriftune.timeline.options import PersonTask, TimelineOptions
from thriftune.timeline.schedule import Phase, in_order

MACHINE = "machine"
KINDS = ("attempt.started", "attempt.finished", "plan.made", "stage.started", "stage.finished", "training.step")
PARTS = {
    "data": ("collect", "prepare"),
    "baselines": ("baselines",),
    "set-up": ("imports", "encode", "load", "probe", "untuned"),
    "search": ("search",),
    "training": ("train", "save"),
    "evaluation": ("open", "tuned", "verdict", "evidence", "report", "exit"),
}
PHASE_OF = {part: name for name, parts in PARTS.items() for part in parts}
IN_MEMORY = ("imports", "encode", "load", "probe")  # parts that the next process does again
SILENT = ("save", "exit")  # parts that no event tells the end of: they go with what stands before them
PERSON_SPREAD = 0.5  # people's hours, 95th percentile over the median, where the project file states none
ENOUGH_STEPS = 10  # from which on the rest of training is reckoned from its own steps
STEP_SPREAD = 0.15
HOUR = 3600.0


class Recorded(Protocol):
    """An event of a project."""

    @property
    def kind(self) -> str:
        """What happened."""
        ...

    @property
    def at(self) -> float:
        """When, in seconds since the epoch."""
        ...

    @property
    def data(self) -> Mapping[str, Any]:
        """Plain JSON values."""
        ...


@dataclass
class Actual:
    """What became of a part so far: planned by the last plan before it began, and when it began and ended."""

    planned: Forecast | None = None
    started: float | None = None
    finished: float | None = None


@dataclass
class Course:
    """What an attempt's events tell of its course.

    Args:
        plan: the latest forecast of each part.
        actuals: what became of each part.
        began: when the attempt's first process began; None where none did.
        deadline_at: of the project, where a first run has fixed it.
        ended: whether the attempt came to its end.
        ended_at: when its last process ended.
        others: parts that `PARTS` does not name, with the phase that they go with.
        only_planned: whether nothing but a plan was made in it.
        steps: the last training step, the steps planned, and the seconds of the latest steps.
        cut: whether training was cut to the limits in the latest plan.
    """

    plan: dict[str, Forecast] = field(default_factory=dict)
    actuals: dict[str, Actual] = field(default_factory=dict)
    began: float | None = None
    deadline_at: float | None = None
    ended: bool = False
    ended_at: float = 0.0
    others: dict[str, str] = field(default_factory=dict)
    only_planned: bool = False
    steps: tuple[int, int, list[float]] = (0, 0, [])
    cut: bool = False


def course_of(events: Iterable[Recorded], at_work: bool = True) -> Course:
    """The course of one attempt.

    Args:
        events: in their order.
        at_work: whether its process, where none has said that it ended, is alive; what one that was killed had in
            hand is begun again.
    """
    course = Course()
    for event in events:
        data = event.data
        if event.kind == "attempt.started":
            course.began = data["started_at"] if course.began is None else course.began
            course.deadline_at = data["deadline_at"] if data.get("deadline_fixed") else None
            course.ended, course.only_planned = False, False
            _left_by_a_process(course)
        elif event.kind == "attempt.finished":
            course.ended = data["outcome"] == "done"
            course.only_planned = data["outcome"] == "planned"
            course.ended_at = event.at
            if not course.ended:
                _left_by_a_process(course)
        elif event.kind == "plan.made":
            course.plan = {part["what"]: _forecast(part) for part in data["parts"]}
            _place(course)
            course.cut = bool(data["cut"])
        elif event.kind == "stage.started":
            _begin(course, data["stage"], event.at)
        elif event.kind == "stage.finished":
            _finish(course, data["stage"], event.at)
        elif event.kind == "training.step":
            _, _, seconds = course.steps
            took = data.get("seconds")
            course.steps = (data["step"], data.get("planned") or 0, [*seconds[-49:], *([took] if took else [])])
    if not at_work and not course.ended:
        _left_by_a_process(course)
    return course


def machine_phases(course: Course, now: float, earliest: float | None = None) -> list[Phase]:
    """The phases of the run, one after the other, with what has already happened."""
    found: list[Phase] = []
    for name, parts in PARTS.items():
        own = (*parts, *(part for part, phase in course.others.items() if phase == name))
        known = [part for part in own if part in course.plan or part in course.actuals]
        if not known:
            continue
        phase = _phase(course, name, known, now)
        before = (found[-1].name,) if found else ()
        first = earliest if not found else None
        found.append(Phase(**phase, after=before, earliest=first))
    return found


def people_phases(options: TimelineOptions, now: float) -> list[Phase]:
    """The tasks of people, each person's one after the other."""
    working = WorkingTime(options.people)
    found: list[Phase] = []
    last: dict[str, str] = {}
    for task in options.tasks:
        planned = _hours(task)
        started = None if task.started is None else task.started.timestamp()
        finished = None if task.done is None else task.done.timestamp()
        elapsed = 0.0 if started is None else working.between(started, max(started, now))
        after = tuple(dict.fromkeys([*task.after, *([last[task.who]] if task.who in last else [])]))
        found.append(
            Phase(
                name=task.name,
                duration=planned if started is None else remaining(planned, elapsed),
                planned=planned,
                after=after,
                who=task.who,
                working=working,
                due=None if task.due is None else task.due.timestamp(),
                started=started,
                finished=finished,
                note="stated",
            )
        )
        last[task.who] = task.name
    return found


def rollout_phases(options: TimelineOptions, after: tuple[str, ...]) -> list[Phase]:
    """The steps of a rollout, each watched for as long as is stated."""
    found: list[Phase] = []
    for name in options.rollout_phases:
        each = Forecast.exact(options.rollout.each if options.rollout else 0.0)
        found.append(Phase(name, each, each, (found[-1].name,) if found else after, note="stated"))
    return found


def all_phases(options: TimelineOptions, course: Course, now: float) -> list[Phase]:
    """Machine, people and rollout together, with the tasks that others wait for put before them."""
    earliest = None if options.starts is None else options.starts.timestamp()
    run = machine_phases(course, now, earliest)
    found = [*run, *people_phases(options, now), *rollout_phases(options, tuple(p.name for p in run[-1:]))]
    names = {phase.name for phase in found}
    waits: dict[str, list[str]] = {phase.name: [n for n in phase.after if n in names] for phase in found}
    for task in options.tasks:
        for other in task.before:
            if other in waits:
                waits[other].append(task.name)
    waiting = [replace(phase, after=tuple(dict.fromkeys(waits[phase.name]))) for phase in found]
    ordered = in_order(waiting)
    return _begun_again(ordered) if course.only_planned else ordered


def _begun_again(ordered: Sequence[Phase]) -> list[Phase]:
    """The phases, those that a plan went through before people were ready: they must be done again after them."""
    done: dict[str, Phase] = {}
    for phase in ordered:
        early = phase.driver == MACHINE and phase.started is not None
        if early and any(done[other].finished is None for other in phase.after):
            took = phase.duration if phase.finished is None else _took(phase.finished - (phase.started or 0.0))
            done[phase.name] = replace(phase, duration=took, started=None, finished=None)
        else:
            done[phase.name] = phase
    return list(done.values())


def _took(seconds: float) -> Forecast:
    """The forecast of something that took so long once, on this machine."""
    return Forecast.lognormal(seconds, RECORD_SPREAD, "measured")


def _phase(course: Course, name: str, parts: Sequence[str], now: float) -> dict[str, Any]:
    """The fields of a phase of the run."""
    actuals = [course.actuals.get(part, Actual()) for part in parts]
    begun = [actual.started for actual in actuals if actual.started is not None]
    telling = [actual for part, actual in zip(parts, actuals, strict=True) if part not in SILENT]
    finished = bool(telling) and all(actual.finished is not None for actual in telling)
    planned = total([_planned(course, part, actual) for part, actual in zip(parts, actuals, strict=True)])
    left = [_left(course, part, actual, now) for part, actual in zip(parts, actuals, strict=True)]
    ended = max((actual.finished for actual in telling if actual.finished is not None), default=None)
    if course.ended and not finished:  # what was left out on the way is over with the run
        finished, ended = True, course.ended_at if ended is None else ended
        begun = begun or [course.ended_at if ended is None else ended]
        left = []
    return {
        "name": name,
        "duration": total(left),
        "planned": planned,
        "driver": MACHINE,
        "started": min(begun, default=None),
        "finished": ended if finished else None,
        "note": "cut to the limits" if course.cut and name == "training" else planned.basis,
    }


def _planned(course: Course, part: str, actual: Actual) -> Forecast:
    """How long a part was to take; what nobody planned was to take as long as it did."""
    took = 0.0
    if actual.started is not None and actual.finished is not None:
        took = actual.finished - actual.started
    return actual.planned or course.plan.get(part) or Forecast.exact(took, "measured")


def _left(course: Course, part: str, actual: Actual, now: float) -> Forecast:
    """What is left of a part."""
    foretold = course.plan.get(part) or actual.planned or Forecast.exact(0.0)
    if actual.finished is not None:
        return Forecast.exact(0.0)
    step, planned, seconds = course.steps
    if part == "train" and len(seconds) >= ENOUGH_STEPS and planned >= step:  # a run goes on from its checkpoint
        each = sorted(seconds)[len(seconds) // 2]
        return Forecast.lognormal((planned - step) * each, STEP_SPREAD, "measured")
    if actual.started is None:
        return foretold
    return remaining(foretold, now - actual.started)


def _place(course: Course) -> None:
    """Parts that no phase names go with the part before them."""
    phase = next(iter(PARTS))
    for part in course.plan:
        phase = PHASE_OF.get(part, phase)
        if part not in PHASE_OF:
            course.others.setdefault(part, phase)


def _left_by_a_process(course: Course) -> None:
    """What ended with a process: parts that were half-done, and those that live in its memory, are begun again."""
    trained = course.actuals.get("train", Actual()).finished is not None
    for part, actual in course.actuals.items():
        if actual.finished is None:
            actual.started = None
        elif part in IN_MEMORY and not trained and actual.started is not None:
            actual.planned = _took(actual.finished - actual.started)
            actual.started = actual.finished = None


def _begin(course: Course, part: str, at: float) -> None:
    if part not in PHASE_OF and part not in course.others:
        return
    actual = course.actuals.setdefault(part, Actual())
    if part in course.plan:
        actual.planned = course.plan[part]
    actual.started, actual.finished = at, None


def _finish(course: Course, part: str, at: float) -> None:
    actual = course.actuals.get(part)
    if actual is None:
        return
    actual.finished = at
    for silent, leader in (("save", "train"), ("exit", "report")):
        if part == leader and silent in course.plan:
            course.actuals[silent] = Actual(course.plan[silent], at, at)


def _hours(task: PersonTask) -> Forecast:
    most = task.most_hours or (1 + PERSON_SPREAD) * task.hours
    return Forecast.lognormal(HOUR * task.hours, most / task.hours - 1, "stated")


def _forecast(part: Mapping[str, Any]) -> Forecast:
    return Forecast.of((float(part[name]) for name in ("p5", "p25", "p50", "p75", "p95")), str(part["basis"]))
