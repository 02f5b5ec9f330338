"""What a board has of a timeline: a phase or task each, and what a service says of the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from thriftune.clock import utc
from thriftune.timeline.exports import p90
from thriftune.timeline.schedule import Slot
from thriftune.timeline.timeline import Timeline

MACHINE, PEOPLE, ROLLOUT = "Machine", "People", "Rollout"
MARK = "thriftune:"
TIMES = "Begins "  # how the line of the notes that tells instants begins


@dataclass(frozen=True)
class Item:
    """A phase or a person's task as it should stand on a board.

    Args:
        key: names it within the project.
        task: the person's task's name; empty for what is ours to state.
        title: as people read it.
        group: the section or list that it is put into when it is made.
        starts: an instant, UTC seconds.
        due: when it ends as likely as not, or as a person promised.
        finished: when it ended, where it has.
        notes: what else is to be told; its last line marks it as ours.
        mark: that line.
    """

    key: str
    task: str
    title: str
    group: str
    starts: float
    due: float
    finished: float | None
    notes: str
    mark: str

    @property
    def completed(self) -> bool:
        """Whether it is done."""
        return self.finished is not None


@dataclass(frozen=True)
class Entry:
    """The same on a service: an Asana task or a Trello card.

    Args:
        id: the service's.
        title: as it stands there.
        due: an instant; None for none.
        completed: whether it is ticked off.
        completed_at: when; None where the service does not say.
        notes: its description.
    """

    id: str
    title: str
    due: float | None
    completed: bool
    completed_at: float | None
    notes: str


class Board(Protocol):
    """A project of Asana's or a board of Trello's."""

    @property
    def service(self) -> str:
        """`asana` or `trello`."""
        ...

    @property
    def place(self) -> str:
        """The project's or board's id there."""
        ...

    def name(self) -> str:
        """What people call it; a `Refused` where there is no such place."""
        ...

    def entries(self) -> Iterator[Entry]:
        """All that stands on it, finished and archived entries included."""
        ...

    def find(self, id: str) -> Entry | None:
        """An entry wherever it stands; None where it was deleted."""
        ...

    def create(self, item: Item) -> Entry:
        """Put an item there, in its group."""
        ...

    def update(self, id: str, item: Item, with_due: bool) -> Entry:
        """Make an entry say what an item says; its due date only where that is wanted."""
        ...


def items_of(timeline: Timeline) -> list[Item]:
    """What a board should have, in the timeline's order."""
    return [_item(slot, timeline) for slot in timeline.schedule.slots]


def mark_of(project: str, key: str) -> str:
    """The line that tells an entry of ours from all others, also where its id was never recorded."""
    return MARK + hashlib.sha256(f"{project}/{key}".encode()).hexdigest()[:24]


def _item(slot: Slot, timeline: Timeline) -> Item:
    phase = slot.phase
    key = f"task/{phase.name}" if phase.who else f"phase/{phase.name}"
    group = PEOPLE if phase.who else MACHINE if phase.driver else ROLLOUT
    end = phase.finished if phase.finished is not None else phase.due if phase.due is not None else slot.ends.p50
    start = phase.started if phase.started is not None else slot.starts.p50
    mark = mark_of(timeline.project, key)
    said = [f"{timeline.project}: kept in step by Thriftune."]
    if phase.finished is None:
        said.append(f"{TIMES}{_local(start, timeline)}, ends {_local(slot.ends.p50, timeline)} as likely as not,")
        said[-1] += f" by {_local(p90(slot), timeline)} nine times in ten."
    if phase.after:
        said.append(f"After: {', '.join(phase.after)}.")
    if not phase.who:
        said.append("Its dates come from the plan: what is changed here is changed back.")
    return Item(
        key=key,
        task=phase.name if phase.who else "",
        title=f"{phase.name} ({phase.who})" if phase.who else phase.name,
        group=group,
        starts=float(round(start)),
        due=float(round(end)),
        finished=phase.finished,
        notes="\n".join([*said, "", mark]),
        mark=mark,
    )


def _local(instant: float, timeline: Timeline) -> str:
    at: datetime = utc(instant).astimezone(ZoneInfo(timeline.zone))
    return f"{at:%Y-%m-%d %H:%M %Z}"
