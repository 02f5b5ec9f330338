"""Phases in time: when each begins and ends, by simulation over their forecasts; buffers, and who ate them.

A phase begins when all before it have ended. Machine phases run around the clock; a person's task takes working time.
What shares a driver (one machine, say) is slow together: such phases get the same normal scores in a draw, as a plan's
sums are comonotone; others are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thriftune.budget.forecast import Forecast
from thriftune.errors import BadInput
from thriftune.plan.sampling import draws, observed
from thriftune.timeline.calendars import WorkingTime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Instants = NDArray[np.float64]

DRAWS = 10_000


@dataclass(frozen=True)
class Phase:
    """Something that takes time.

    Args:
        name: what it is.
        duration: seconds, of the machine or of working time; what is left of it where it has started.
        planned: the same as it was foretold before it began, for its buffer.
        after: what must have ended before.
        who: a person, or empty for the machine.
        working: working hours; None for around the clock.
        driver: phases with the same one are slow together; empty for none.
        earliest: not before this instant.
        due: when a person promised its end; None for no promise.
        started: when it began, where it has.
        finished: when it ended, where it has.
        note: what the duration rests on.
    """

    name: str
    duration: Forecast
    planned: Forecast
    after: tuple[str, ...] = ()
    who: str = ""
    working: WorkingTime | None = None
    driver: str = ""
    earliest: float | None = None
    due: float | None = None
    started: float | None = None
    finished: float | None = None
    note: str = ""

    def ends(self, starts: Instants, seconds: Instants) -> Instants:
        """When so many seconds of it are done."""
        return starts + seconds if self.working is None else self.working.after(starts, seconds)

    def begins(self, ready: Instants) -> Instants:
        """When it can begin once all before it have ended."""
        import numpy as np

        at = ready if self.earliest is None else np.maximum(ready, self.earliest)
        return at if self.working is None else self.working.after(at, np.zeros_like(at))

    def seconds(self, start: float, end: float) -> float:
        """How much of its own kind of time lies between two instants."""
        return end - start if self.working is None else self.working.between(start, end)


@dataclass(frozen=True)
class Eaten:
    """A part of a buffer that was used.

    Args:
        of: the phase whose buffer it was.
        by: the phase that took longer than planned.
        seconds: how much of it.
    """

    of: str
    by: str
    seconds: float


@dataclass(frozen=True)
class Slot:
    """A phase in time.

    Args:
        starts: when it begins, an instant (UTC seconds).
        ends: when it ends.
        planned_start: by the plan with buffers.
        planned_end: by the same, its own buffer left out.
        buffer: seconds kept free after it.
        buffer_left: what is left of them.
        critical: whether it is on the critical path of the medians.
        criticality: in which share of the draws it is on the critical path.
    """

    phase: Phase
    starts: Forecast
    ends: Forecast
    planned_start: float
    planned_end: float
    buffer: float
    buffer_left: float
    critical: bool
    criticality: float


@dataclass(frozen=True)
class Schedule:
    """All phases in their order.

    Args:
        slots: a slot a phase.
        ends: when the last one ends.
        eaten: whose buffers were used, and by whom.
        draws: ends of each phase in every draw, for chances.
        begins: the same of their beginnings.
    """

    slots: tuple[Slot, ...]
    ends: Forecast
    eaten: tuple[Eaten, ...]
    draws: Mapping[str, Instants] = field(repr=False, compare=False)
    begins: Mapping[str, Instants] = field(repr=False, compare=False)

    def slot(self, name: str) -> Slot:
        """The slot of a phase."""
        return next(slot for slot in self.slots if slot.phase.name == name)

    def chance(self, name: str, by: float) -> float:
        """The probability that a phase has ended by an instant."""
        import numpy as np

        return float(np.mean(self.draws[name] <= by))

    def chance_within(self, name: str, seconds: float, first: str) -> float:
        """The probability that a phase has ended so many seconds after another one began."""
        import numpy as np

        return float(np.mean(self.draws[name] - self.begins[first] <= seconds))

    @property
    def critical_path(self) -> tuple[str, ...]:
        """The phases that the end hangs on, in their order."""
        return tuple(slot.phase.name for slot in self.slots if slot.critical)


def schedule(phases: Sequence[Phase], now: float, buffer: float, seed: int = 0, size: int = DRAWS) -> Schedule:
    """Lay phases out in time.

    Args:
        phases: in any order.
        now: the instant before which nothing more can begin.
        buffer: kept free after each, as a share of it.
        seed: of the draws.
        size: how many of them.

    Raises:
        BadInput: a phase waits for one that is not there, or for itself.
    """
    import numpy as np

    ordered = in_order(phases)
    random = np.random.default_rng(seed)
    starts: dict[str, Instants] = {}
    ends: dict[str, Instants] = {}
    scores: dict[str, Instants] = {}
    for phase in ordered:
        own = random.standard_normal(size)  # drawn for each, so that a phase more leaves the others as they are
        scored = scores.setdefault(phase.driver, own) if phase.driver else own
        starts[phase.name], ends[phase.name] = _laid(phase, ends, now, scored)
    on_path = _criticality(ordered, starts, ends)
    middle: tuple[dict[str, Instants], dict[str, Instants]] = ({}, {})
    for phase in ordered:
        placed = _laid(phase, middle[1], now, np.zeros(1))
        middle[0][phase.name], middle[1][phase.name] = placed
    path = _criticality(ordered, *middle)
    begun = min([now, *(p.started for p in ordered if p.started is not None), *_finished(ordered)])
    planned, eaten, left = _buffers(ordered, begun, now, buffer)
    slots = tuple(
        Slot(
            phase,
            observed(starts[phase.name], phase.duration.basis),
            observed(ends[phase.name], phase.duration.basis),
            *planned[phase.name],
            left[phase.name],
            bool(path[phase.name][0]),
            float(np.mean(on_path[phase.name])),
        )
        for phase in ordered
    )
    last = np.max(np.stack(list(ends.values())), axis=0) if ends else np.full(1, now)
    return Schedule(slots, observed(last, "prior"), tuple(eaten), ends, starts)


def in_order(phases: Sequence[Phase]) -> list[Phase]:
    """The phases, each after those it waits for, else as given.

    Raises:
        BadInput: one waits for a phase that is not there, or for itself.
    """
    known = {phase.name for phase in phases}
    for phase in phases:
        for other in phase.after:
            if other not in known:
                raise _bad_order(phase.name, f"it waits for {other}, which is not there")
    waiting, ordered, placed = list(phases), [], set[str]()
    while waiting:
        ready = next((phase for phase in waiting if placed.issuperset(phase.after)), None)
        if ready is None:
            raise _bad_order(waiting[0].name, f"{', '.join(p.name for p in waiting)} wait for each other")
        waiting.remove(ready)
        ordered.append(ready)
        placed.add(ready.name)
    return ordered


def _bad_order(name: str, found: str) -> BadInput:
    return BadInput(
        "the tasks have no order",
        where=f"timeline.tasks, {name}",
        found=found,
        expected="tasks of which each waits for others that can end before it",
        way_out="change after or before of one of them",
    )


def _laid(phase: Phase, ends: Mapping[str, Instants], now: float, scores: Instants) -> tuple[Instants, Instants]:
    """When a phase begins and ends, in every draw."""
    import numpy as np

    whole = np.full_like(scores, now)
    if phase.finished is not None:
        finished = np.full_like(scores, phase.finished)
        return (finished if phase.started is None else np.full_like(scores, phase.started)), finished
    seconds = draws(phase.duration, scores)
    if phase.started is not None:
        return np.full_like(scores, phase.started), _promised(phase, whole, phase.ends(whole, seconds))
    ready = whole
    for other in phase.after:
        ready = np.maximum(ready, ends[other])
    begins = phase.begins(ready)
    return begins, _promised(phase, begins, phase.ends(begins, seconds))


def _promised(phase: Phase, not_before: Instants, ends: Instants) -> Instants:
    """Ends of which the median is what a person promised, as spread as they were, and never before the work begins.

    A promise for a day before the work can begin says nothing of its end.
    """
    import numpy as np

    if phase.due is None or phase.due <= np.median(not_before):
        return ends
    return np.maximum(ends + (phase.due - np.median(ends)), not_before)


def _criticality(
    ordered: Sequence[Phase], starts: Mapping[str, Instants], ends: Mapping[str, Instants]
) -> dict[str, NDArray[np.bool_]]:
    """In which draws each phase is on the critical path: the last to end, and back along what each waited for."""
    import numpy as np

    if not ordered:
        return {}
    last = np.max(np.stack([ends[p.name] for p in ordered]), axis=0)
    taken = np.zeros(last.shape, dtype=bool)
    on_path = {phase.name: np.zeros(last.shape, dtype=bool) for phase in ordered}
    for phase in reversed(ordered):
        ends_last = (ends[phase.name] == last) & ~taken
        on_path[phase.name] |= ends_last
        taken |= ends_last
        if not phase.after:
            continue
        waited = np.max(np.stack([ends[other] for other in phase.after]), axis=0)
        found = np.zeros(last.shape, dtype=bool)
        for other in phase.after:
            held = on_path[phase.name] & (ends[other] == waited) & ~found & (waited <= starts[phase.name])
            if phase.earliest is not None:
                held &= waited >= phase.earliest
            on_path[other] |= held
            found |= held
    return on_path


def _finished(ordered: Sequence[Phase]) -> list[float]:
    return [phase.finished for phase in ordered if phase.finished is not None]


def _buffers(
    ordered: Sequence[Phase], begun: float, now: float, share: float
) -> tuple[dict[str, tuple[float, float, float]], list[Eaten], dict[str, float]]:
    """The plan with buffers (start, end, buffer a phase), who ate which, and what is left.

    A phase that takes longer than it was planned to eats its own buffer first; what is beyond that delays what waits
    for it, and eats their buffers. What is left where a phase took less is not handed on as credit.
    """
    import numpy as np

    planned: dict[str, tuple[float, float, float]] = {}
    free: dict[str, float] = {}
    eaten: list[Eaten] = []
    left: dict[str, float] = {}
    owed: dict[str, list[tuple[str, float]]] = {}
    for phase in ordered:
        ready = max([begun, *(free[other] for other in phase.after)])
        start = float(phase.begins(np.asarray([ready]))[0])
        middle = phase.planned.p50
        end = float(phase.ends(np.asarray([start]), np.asarray([middle]))[0])
        free[phase.name] = float(phase.ends(np.asarray([end]), np.asarray([share * middle]))[0])
        room = share * middle
        planned[phase.name] = (start, end, room)
        debts = [debt for other in phase.after for debt in owed[other]]
        debts = list({by: (by, max(s for name, s in debts if name == by)) for by, _ in debts}.values())
        over = _overrun(phase, now)
        if over > 0:
            debts.append((phase.name, over))
        rest = []
        for by, seconds in debts:
            taken = min(seconds, room) if phase.started is not None or phase.finished is not None or over > 0 else 0.0
            if taken > 0:
                eaten.append(Eaten(phase.name, by, taken))
            room -= taken
            if seconds > taken:
                rest.append((by, seconds - taken))
        owed[phase.name] = rest
        left[phase.name] = room
    return planned, eaten, left


def _overrun(phase: Phase, now: float) -> float:
    """Seconds that a phase took, or has taken already, beyond what it was planned to."""
    if phase.started is None:
        return 0.0
    end = now if phase.finished is None else phase.finished
    return max(0.0, phase.seconds(phase.started, end) - phase.planned.p50)
