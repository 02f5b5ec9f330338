"""The plan: the parts of a run, each with a forecast, summed by phase and held against money and time.

`thriftune plan` prints it and `thriftune run` begins with it: both are made from the same estimates, which are made
from the same functions that the run executes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from thriftune.budget.forecast import Forecast, largest, total
from thriftune.errors import CannotLand
from thriftune.money.amounts import shown_money

NAMED_MARGIN = 1.1
QUIET = 0.25  # of what the record says: a machine that others use too may be four times as slow
WHOLE = "whole"
NOTHING = Forecast.exact(0.0)
PHASES = ("collection", "training", "evaluation", "deployment")


@dataclass(frozen=True)
class Part:
    """One part of the work.

    Args:
        phase: the phase that pays for it.
        what: what is done.
        seconds: how long it takes if nothing binds.
        minimum: how long the least of it that still makes a finished model takes; None where there is no less.
    """

    phase: str
    what: str
    seconds: Forecast
    minimum: Forecast | None = None

    @property
    def least(self) -> Forecast:
        """The least that must be done of it."""
        return self.minimum or self.seconds


@dataclass(frozen=True)
class Limits:
    """What the run may use, from now on.

    Args:
        seconds_used: since the process started.
        money_seconds: seconds that the money left pays for (infinite at a price of zero).
        time_seconds: seconds to the deadline (infinite without one).
        price_per_hour: of the machine.
        currency: of the budget.
        spent_before: money that earlier attempts spent.
        elapsed_before: seconds between the first run and this process.
        money_left: of the budget; None where nobody asked.
        to_buy: the most that is still to be bought beside the machine's time, which `money_seconds` leaves out.
        to_keep: the most that keeping the project's files will cost to the run's end, which it leaves out too.
    """

    seconds_used: float
    money_seconds: float
    time_seconds: float
    price_per_hour: Decimal
    currency: str
    spent_before: Decimal
    elapsed_before: float
    money_left: Decimal | None = None
    to_buy: Decimal = Decimal(0)
    to_keep: Decimal = Decimal(0)

    @property
    def seconds(self) -> float:
        """Seconds left of the limit that binds first."""
        return min(self.money_seconds, self.time_seconds)

    @property
    def binding(self) -> str:
        """`budget` or `deadline`, whichever binds first."""
        return "budget" if self.money_seconds <= self.time_seconds else "deadline"


@dataclass(frozen=True)
class Workload:
    """What a run asks of a machine.

    Args:
        flops: floating-point operations of all updates, forward and backward.
        updates: of all epochs.
        layers: of the model.
        tokens: trained on in all epochs, padding left out.
        flops_per_second: that training reaches on this machine.
        again: seconds that what is done here already takes where it must be done again.
        restart: seconds from a machine that is ready to the first update after a checkpoint.
        checkpoint_seconds: from one checkpoint to the next, the most work that an interruption loses.
        managed: whether a provider's chat models can be tuned to the same data.
    """

    flops: float
    updates: int
    layers: int
    tokens: int
    flops_per_second: float
    again: Forecast
    restart: Forecast
    checkpoint_seconds: float
    managed: bool = False


@dataclass(frozen=True)
class Plan:
    """The parts still to do, in order, and the limits they are held against.

    Args:
        parts: in order.
        limits: what may be used.
        full_steps: updates of all epochs.
        planned_steps: updates that the limits pay for.
        tokens: that training reads in all epochs.
        full_rows: test rows that each model is to answer; 0 of a plan that does not tell.
        planned_rows: test rows that the limits let each answer.
        memory: the most bytes of the process in each phase that is known so far.
        workload: what training asks of a machine; None before it is probed.
        conformed: seconds of a phase, or of the `WHOLE`, as earlier runs' errors shape the sum of the parts.
        in_turn: seconds of further trainings besides, each without some rows, should the test rows not tell.
    """

    parts: tuple[Part, ...]
    limits: Limits
    full_steps: int = 0
    planned_steps: int = 0
    tokens: int = 0
    full_rows: int = 0
    planned_rows: int = 0
    memory: dict[str, Forecast] = field(default_factory=dict)
    workload: Workload | None = None
    conformed: dict[str, Forecast] = field(default_factory=dict)
    in_turn: Forecast = NOTHING

    @property
    def full(self) -> Forecast:
        """Seconds from now if nothing binds."""
        return self.conformed.get(WHOLE) or self.summed()

    def summed(self, what: str = WHOLE) -> Forecast:
        """Seconds from now as the sum of the parts, of one phase or of the whole."""
        return total([part.seconds for part in self.parts if what in (WHOLE, part.phase)])

    @property
    def least_seconds(self) -> float:
        """Seconds from now that must be there: the least of every part, at the 95th percentile.

        A part that nobody has measured on this machine yet counts with its median: its 95th percentile says more
        about our ignorance than about the part.
        """
        return sum(part.least.p50 if part.least.basis == "prior" else part.least.p95 for part in self.parts)

    @property
    def surely_needed(self) -> float:
        """The same, with the lowest guess for what is not measured: more than this is needed for sure."""
        return self._needed({"prior": 1.0})

    @property
    def surely_needed_unprobed(self) -> float:
        """The same before this run has probed anything, when the record is a guess too.

        Its figures may be of hours in which others used the machine, and a refusal made from them would never be
        corrected, since what is refused measures nothing.
        """
        return self._needed({"prior": 1.0, "record": QUIET})

    def _needed(self, guessed: Mapping[str, float]) -> float:
        """Seconds of the least of every part: its upper bound, or where its basis is guessed so much of its lowest."""
        parts = [part.least for part in self.parts]
        return sum(guessed[part.basis] * part.p5 if part.basis in guessed else part.p95 for part in parts)

    def phase(self, name: str) -> Forecast:
        """Seconds of one phase from now on."""
        return self.conformed.get(name) or self.summed(name)

    @property
    def most_memory(self) -> Forecast:
        """The most bytes of the process in the whole run."""
        return largest(list(self.memory.values()))

    @property
    def fits_whole(self) -> bool:
        """Whether everything fits without cutting the training short."""
        return self.full.p95 <= self.limits.seconds

    @property
    def named_seconds(self) -> float:
        """Seconds from the process's start that a named minimum gives: the least and a margin, since by the next run
        the machine may be a little slower."""
        return self.limits.seconds_used + NAMED_MARGIN * self.least_seconds

    def minimum_time(self) -> float:
        """The smallest deadline that works, in seconds from the first run, rounded up to the second."""
        return math.ceil(self.limits.elapsed_before + self.named_seconds)

    def minimum_budget(self) -> Decimal:
        """The smallest budget that works, rounded up to the cent (to a tenth of a milli-unit below one cent)."""
        seconds = Decimal(self.named_seconds)
        money = self.limits.spent_before + seconds * self.limits.price_per_hour / 3600
        money += self.limits.to_buy + self.limits.to_keep
        step = Decimal("0.01") if money >= Decimal("0.1") else Decimal("0.0001")
        return (money / step).to_integral_value(rounding="ROUND_CEILING") * step

    def require(self, probed: bool = True) -> None:
        """Go on only if the least of everything fits.

        Args:
            probed: whether this run has measured what its steps take.

        Raises:
            CannotLand: it does not; names the minimum of budget and deadline that works.
        """
        needed = self.surely_needed if probed else self.surely_needed_unprobed
        if needed > self.limits.seconds:
            raise cannot_land(self)


def cannot_land(plan: Plan, because: str = "") -> CannotLand:
    """The refusal that names what would work."""
    limits = plan.limits
    total_budget = limits.spent_before + (
        Decimal(limits.seconds_used + limits.money_seconds) * limits.price_per_hour / 3600
        + limits.to_buy
        + limits.to_keep
        if math.isfinite(limits.money_seconds)
        else Decimal(0)
    )
    budget = shown_money(plan.minimum_budget(), limits.currency)
    deadline = f"{plan.minimum_time():.0f} s"
    given = []
    if math.isfinite(limits.money_seconds):
        given.append(f"a budget of {shown_money(total_budget, limits.currency)}")
    if math.isfinite(limits.time_seconds):
        given.append(f"a deadline of {limits.elapsed_before + limits.seconds_used + limits.time_seconds:.0f} s")
    return CannotLand(
        "this cannot end with an evaluated model inside its limits",
        found=" and ".join(given) + (f"; {because}" if because else ""),
        expected=f"at least a budget of {budget} and a deadline of {deadline}",
        way_out=f"set budget.total to {budget} or more and deadline to {deadline} or more in thriftune.yaml; "
        "a smaller model or fewer rows need less",
    )
