"""The outlook: every part of a run that is still to come, each with the best forecast there is by now.

It is filled from the record and from priors before anything is known, sharpened as parts are probed, and emptied as
they are done. Whenever it is asked, it says what the rest takes: the plan, the refusal, and the tail that the
governor leaves free are all read from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from thriftune.budget.forecast import Forecast, total
from thriftune.plan.plan import Limits, Part, Plan

DOUBT = 2.0  # how many parts that took what they take as a rule one supposes beside those that were seen


@dataclass
class Outlook:
    """The parts to come, in order.

    Args:
        parts: by name.
        memory: the most of this process that will be in memory in each phase, bytes, once it is probed.
        ratios: of what parts took in this process to the median of the record.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    memory: dict[str, Forecast] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)

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

    def took(self, what: str, seconds: float) -> None:
        """A part that the record foretold took so long."""
        foretold = self.parts[what].seconds
        if foretold.basis == "record" and foretold.p50 > 0 and seconds > 0:
            self.ratios.append(seconds / foretold.p50)

    @property
    def slowness(self) -> float:
        """How many times longer than the record says parts take today, at the least 1.

        What slows the parts that lie behind, a neighbour or a throttled core, slows those to come.
        """
        if not self.ratios:
            return 1.0
        seen = len(self.ratios)
        return max(1.0, math.exp(median(map(math.log, self.ratios)) * seen / (seen + DOUBT)))

    def cautious(self, what: str) -> Forecast:
        """Seconds of a part for what is kept free and reserved: one that is known from the record alone takes as many
        times longer as those before it did."""
        seconds = self.parts[what].seconds
        return seconds.scaled(self.slowness) if seconds.basis == "record" else seconds

    def before(self, what: str) -> Forecast:
        """Seconds of all that comes before a part."""
        names = list(self.parts)
        return total([self.parts[name].seconds for name in names[: names.index(what)]])

    def after(self, what: str) -> float:
        """Upper bound of all that comes after a part, seconds."""
        names = list(self.parts)
        later = names[names.index(what) + 1 :] if what in self.parts else names
        return total([self.cautious(name) for name in later]).p95

    def tail(self, what: str, seconds: float) -> float:
        """The same, to be kept free of so many seconds that are left for a part and it: the caution of a slow day does
        not take the least that the part needs."""
        names = list(self.parts)
        plain = total([self.parts[name].seconds for name in names[names.index(what) + 1 :]]).p95
        return max(plain, min(self.after(what), seconds - self.parts[what].least.p95))

    def plan(self, limits: Limits, **facts: Any) -> Plan:
        """What is to come, held against the limits."""
        return Plan(tuple(self.parts.values()), limits, memory=dict(self.memory), **facts)
