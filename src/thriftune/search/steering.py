"""A search steered by hand while it runs: trials stopped, taken up again, and cloned with changes.

A request is an event that another process writes (`thriftune search …`). The search takes requests up between looks,
each as a recorded decision, so that a search that is killed goes on with what it was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ASKED = "search.asked"  # the kind of a request's event
BY_HAND = "search_by_hand"  # begins the names of the decisions

Wish = Literal["stop", "resume", "clone"]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        wish: stop a trial or, without one, the search; resume a trial; clone one with changes.
        trial: the number of the configuration.
        changes: of a clone, option by name.
    """

    wish: Wish
    trial: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def because(self) -> str:
        """The request in words."""
        what = "the search" if self.trial is None else f"trial {self.trial}"
        with_what = ", ".join(f"{name} {value}" for name, value in self.changes.items())
        return f"asked for by hand: {self.wish} {what}{f' with {with_what}' if with_what else ''}"


@dataclass
class Steering:
    """What was asked for so far, as it stands.

    Args:
        stopped: trials that are not gone on with.
        wanted: trials that are seen to their end next, in this order.
        ended: whether the search is to end.
    """

    stopped: set[int] = field(default_factory=set)
    wanted: list[int] = field(default_factory=list)
    ended: bool = False

    def follow(self, wish: Wish, trial: int | None) -> None:
        """Do what is asked for a trial (of a clone, its own number), or for the search where it names none."""
        if trial is None:
            self.ended = True
        elif wish == "stop":
            self.stopped.add(trial)
            self.satisfied(trial)
        else:
            self.stopped.discard(trial)
            self.satisfied(trial)
            self.wanted.append(trial)

    def satisfied(self, trial: int) -> None:
        """A trial is not wanted any more."""
        self.wanted = [other for other in self.wanted if other != trial]
