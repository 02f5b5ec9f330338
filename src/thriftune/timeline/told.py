"""What people said of their tasks outside the project file: decisions of the project, read into its options.

A decision holds as long as the project file says what it said when the decision was taken; a file that was changed
since goes before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from thriftune.clock import utc
from thriftune.timeline.options import PersonTask, TimelineOptions

if TYPE_CHECKING:
    from thriftune.timeline.phases import Recorded

WHAT = "timeline.task"
OUTSIDE = 0  # the attempt of events that belong to none: they do not make one last longer
Field = Literal["done", "due"]


@dataclass(frozen=True)
class Told:
    """A person's task is done, is open again, or is promised for another date.

    Args:
        task: its name.
        field: what was said of it.
        instant: the new value; None: open again, or promised for no date.
        stated: what the project file said then.
        source: where it was said.
    """

    task: str
    field: Field
    instant: float | None
    stated: float | None
    source: str

    def as_decision(self) -> dict[str, Any]:
        """The event's data."""
        because = {
            ("done", True): "ticked off",
            ("done", False): "opened again",
            ("due", True): "its due date was moved",
            ("due", False): "its due date was taken away",
        }[self.field, self.instant is not None]
        chosen = {
            "task": self.task,
            "field": self.field,
            "value": None if self.instant is None else utc(self.instant).isoformat(),
            "stated": None if self.stated is None else utc(self.stated).isoformat(),
            "source": self.source,
        }
        return {"at_step": 0, "what": WHAT, "chosen": chosen, "because": f"{because} in {self.source.title()}"}


def told_of(events: Iterable[Recorded]) -> list[Told]:
    """What was said, in the order in which it was recorded."""
    found = []
    for event in events:
        if event.kind == "decision" and event.data.get("what") == WHAT:
            chosen = event.data["chosen"]
            value, stated = (_instant(chosen[name]) for name in ("value", "stated"))
            found.append(Told(chosen["task"], chosen["field"], value, stated, chosen["source"]))
    return found


def as_told(options: TimelineOptions, told: Sequence[Told]) -> TimelineOptions:
    """The options with what people said of their tasks in them."""
    if not told:
        return options
    latest = {(one.task, one.field): one for one in told}
    tasks = tuple(
        _with(task, latest.get((task.name, "done")), latest.get((task.name, "due"))) for task in options.tasks
    )
    return options.model_copy(update={"tasks": tasks})


def stated_of(task: PersonTask, field: Field) -> float | None:
    """What the project file says."""
    value: datetime | None = getattr(task, field)
    return None if value is None else value.timestamp()


def _with(task: PersonTask, done: Told | None, due: Told | None) -> PersonTask:
    changes: dict[str, datetime | None] = {}
    for told in (done, due):
        if told is not None and stated_of(task, told.field) == told.stated:
            changes[told.field] = None if told.instant is None else utc(told.instant)
    finished = changes.get("done")
    if finished is not None and task.started is not None:
        changes["done"] = max(finished, task.started)
    return task.model_copy(update=changes)


def _instant(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()
