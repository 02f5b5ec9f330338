"""The outlook: every part of a run that is still to come, each with the best forecast there is by now.

It is filled from the record and from priors before anything is known, sharpened as parts are probed, and emptied as
they are done. Whenever it is asked, it says what the rest takes: the plan, the refusal, and the tail that the
governor leaves free are all read from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from thriftune.budget.forecast import Forecast, total
from thriftune.plan.plan import Limits, Part, Plan


@dataclass
class Outlook:
    """The parts to come, in order.

    Args:
        parts: by name.
        memory: the most of this process that will be in memory in each phase, bytes, once it is probed.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    memory: dict[str, Forecast] = field(default_factory=dict)

    def expect(self, what: str, phase: str, seconds: Forecast) -> None:
        """Add a part at the end."""
        self.parts[what] = Part(phase, what, seconds)

    def sharpen(self, what: str, seconds: Forecast, minimum: Forecast | None = None) -> None:
        """Know better how long a part takes; one that lies behind stays there."""
        if what in self.parts:
            self.parts[what] = Part(self.parts[what].phase, what, seconds, minimum)

    def done(self, what: str) -> None:
        """A part lies behind."""
        self.parts.pop(what, None)

    def before(self, what: str) -> Forecast:
        """Seconds of all that comes before a part."""
        names = list(self.parts)
        return total([self.parts[name].seconds for name in names[: names.index(what)]])

    def after(self, what: str) -> float:
        """Upper bound of all that comes after a part, seconds."""
        names = list(self.parts)
        later = names[names.index(what) + 1 :] if what in self.parts else names
        return total([self.parts[name].seconds for name in later]).p95

    def plan(self, limits: Limits, **facts: Any) -> Plan:
        """What is to come, held against the limits."""
        return Plan(tuple(self.parts.values()), limits, memory=dict(self.memory), **facts)
