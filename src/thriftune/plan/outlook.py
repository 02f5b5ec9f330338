"""The outlook: every part of a run that is still to come, each with the best forecast there is by now.

It is filled from the record and from priors before anything is known, sharpened as parts are probed, and emptied as
they are done. Whenever it is asked, it says what the rest takes: the plan, the refusal, and the tail that the
governor leaves free are all read from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from thriftune.budget.forecast import Forecast, total
from thriftune.plan.plan import Limits, Part, Plan


@dataclass
class Outlook:
    """The parts to come, in order.

    Args:
        parts: by name.
    """

    parts: dict[str, Part] = field(default_factory=dict)

    def expect(self, what: str, phase: str, seconds: Forecast, minimum: Forecast | None = None) -> None:
        """Add a part, or sharpen the forecast of one that is there."""
        self.parts[what] = Part(phase, what, seconds, minimum)

    def done(self, what: str) -> None:
        """A part lies behind."""
        self.parts.pop(what, None)

    def upper(self, what: str) -> float:
        """The upper bound of one part, seconds."""
        return self.parts[what].seconds.p95

    def after(self, what: str) -> float:
        """Upper bound of all that comes after a part, seconds."""
        names = list(self.parts)
        later = names[names.index(what) + 1 :] if what in self.parts else names
        return total([self.parts[name].seconds for name in later]).p95

    def plan(self, limits: Limits, **facts: Any) -> Plan:
        """What is to come, held against the limits."""
        return Plan(tuple(self.parts.values()), limits, **facts)

    def by_phase(self, phases: Iterable[str]) -> dict[str, Forecast]:
        """Seconds to come of each phase."""
        return {phase: total([part.seconds for part in self.parts.values() if part.phase == phase]) for phase in phases}
