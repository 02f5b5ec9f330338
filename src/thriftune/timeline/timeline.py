"""The timeline of a project: its phases in time, its milestones, and the chance of the deadline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from thriftune.budget.forecast import Forecast
from thriftune.plan.sampling import observed
from thriftune.timeline.options import TimelineOptions
from thriftune.timeline.phases import Course, Recorded, all_phases, course_of
from thriftune.timeline.schedule import Phase, Schedule, schedule

FIRST_CHECKPOINT = 30.0  # seconds after training began, at most (train.checkpoint_seconds)


@dataclass(frozen=True)
class Milestone:
    """An instant that people wait for.

    Args:
        name: what is reached.
        at: when, an instant (UTC seconds) with its interval; exact where it lies behind.
        reached: whether it lies behind.
        chance: that it is reached by the deadline; None without a deadline, or where it does not bind this one.
    """

    name: str
    at: Forecast
    reached: bool
    chance: float | None


@dataclass(frozen=True)
class Timeline:
    """A project in time.

    Args:
        project: its name.
        now: the instant that it is seen from.
        zone: the time zone that instants are told in.
        schedule: the phases.
        milestones: in order.
        deadline_at: the instant of the deadline, the median one where it counts from a run that has not begun.
        chance: that the run has ended by the deadline; None without one.
        cut: whether training is cut so that the run ends by its limits.
    """

    project: str
    now: float
    zone: str
    schedule: Schedule
    milestones: tuple[Milestone, ...]
    deadline_at: float | None
    chance: float | None
    cut: bool


def timeline_of(
    project: str,
    options: TimelineOptions,
    deadline: datetime | timedelta | None,
    events: Iterable[Recorded],
    now: float,
    seed: int = 0,
    checkpoint_seconds: float = FIRST_CHECKPOINT,
    at_work: bool = True,
) -> Timeline | None:
    """The timeline as of now; None where no plan was ever made.

    Args:
        project: its name.
        options: people, working hours, buffers.
        deadline: of the project file; the one that a first run fixed goes before it.
        events: of one attempt, in their order.
        now: the instant; what is over is seen from its end.
        seed: of the draws.
        checkpoint_seconds: from the start of training to the first checkpoint, at most.
        at_work: whether the attempt's process, where none has said that it ended, is alive.
    """
    course = course_of(events, at_work)
    if not course.plan:
        return None
    phases = all_phases(options, course, now)
    laid = schedule(phases, now, options.buffer, seed)
    deadline_at, chance = _deadline(course, laid, phases, deadline)
    everywhere = isinstance(deadline, datetime)  # a date holds for users too, a duration for the run alone
    milestones = [
        _milestone(name, laid, phase, deadline_at if everywhere or phase.driver else None, offset, now)
        for name, phase, offset in _milestones(options, phases, checkpoint_seconds)
    ]
    return Timeline(project, now, options.people.time_zone, laid, tuple(milestones), deadline_at, chance, course.cut)


def _milestones(
    options: TimelineOptions, phases: list[Phase], checkpoint_seconds: float
) -> Iterable[tuple[str, Phase, float | None]]:
    """Name, phase, and seconds from the phase's beginning (None for its end) of each milestone."""
    by_name = {phase.name: phase for phase in phases}
    ends = {"data": "data complete", "search": "search done", "evaluation": "evaluation done"}
    for name, said in ends.items():
        if name in by_name:
            yield said, by_name[name], None
        if name == "data" and "training" in by_name:
            yield "first checkpoint", by_name["training"], checkpoint_seconds
    for name in options.rollout_phases[:1]:
        yield name.removeprefix("rollout ") + " rollout", by_name[name], 0.0
    for name in options.rollout_phases[-1:]:
        yield "full rollout", by_name[name], 0.0


def _milestone(
    said: str, laid: Schedule, phase: Phase, deadline_at: float | None, offset: float | None, now: float
) -> Milestone:
    import numpy as np

    ends = laid.draws[phase.name]
    at = ends if offset is None else np.minimum(laid.begins[phase.name] + offset, ends)
    known = phase.finished if offset is None else phase.started
    if known is not None and (offset is None or phase.finished is not None or known + offset <= now):
        return Milestone(said, Forecast.exact(float(at[0]), "measured"), True, None)
    chance = None if deadline_at is None else float(np.mean(at <= deadline_at))
    return Milestone(said, observed(at, phase.duration.basis), False, chance)


def _deadline(
    course: Course, laid: Schedule, phases: list[Phase], deadline: datetime | timedelta | None
) -> tuple[float | None, float | None]:
    """The instant of the deadline, and the chance that the run has ended by then."""
    run = [phase for phase in phases if phase.driver]
    if not run:
        return None, None
    first, last = run[0].name, run[-1].name
    if course.deadline_at is not None and course.began is not None:
        return course.deadline_at, laid.chance(last, course.deadline_at)
    if isinstance(deadline, datetime):
        return deadline.timestamp(), laid.chance(last, deadline.timestamp())
    if deadline is None:
        return None, None
    seconds = deadline.total_seconds()
    return laid.slot(first).starts.p50 + seconds, laid.chance_within(last, seconds, first)
