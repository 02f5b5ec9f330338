"""The journal of choices that came from a clock or from free memory.

Each is an event written before it takes effect. A resumed or replayed run reads it and never takes it again, which
is what makes the weights of a killed and resumed run equal those of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from thriftune.events import Event, Recorder
from thriftune.faults import crash_point


class Decisions:
    """The recorded choices of one attempt, and the way to take new ones.

    Args:
        events: where a new choice is written.
        recorded: the attempt's earlier events; kinds other than `decision` are passed over.
    """

    def __init__(self, events: Recorder, recorded: Iterable[Event] = ()) -> None:
        self._events = events
        self._chosen: dict[tuple[str, int], Any] = {}
        for event in recorded:
            if event.kind == "decision":
                self._chosen[event.data["what"], event.data["at_step"]] = event.data["chosen"]

    def recorded(self, what: str, at_step: int = 0) -> Any:
        """What was chosen there, or None when nothing was."""
        return self._chosen.get((what, at_step))

    def take(self, what: str, choose: Callable[[], tuple[Any, str]], at_step: int = 0) -> Any:
        """The recorded choice; where there is none, `choose` it (value and reason) and record it first."""
        if (what, at_step) not in self._chosen:
            chosen, because = choose()
            self._events.emit("decision", at_step=at_step, what=what, chosen=chosen, because=because)
            crash_point("decision.recorded")
            self._chosen[what, at_step] = chosen
        return self._chosen[what, at_step]

    def revise(self, what: str, chosen: Any, because: str, at_step: int) -> Any:
        """Record a choice in the place of the one that is recorded there, which has turned out not to do."""
        self._chosen.pop((what, at_step), None)
        return self.take(what, lambda: (chosen, because), at_step)

    def next_step(self, after: int) -> int | None:
        """The first step later than `after` at which something is recorded."""
        return min((step for _, step in self._chosen if step > after), default=None)
