"""The continuous review: what is to come, held anew against budget and deadline, and what could be given up for them.

A review is made at each phase boundary and every hour. Where the whole of what is to come may not fit, it proposes
moves, each with the seconds and the money that the same estimates as the plan's say it would save. Which of them a run
may make by itself is the project file's to say (`budget.may`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from thriftune.budget.forecast import Forecast
from thriftune.plan.plan import Part, Plan

FEWER_TRIALS, DEEPER_FREEZE, SMALLER_MODEL, SPOT = "fewer_trials", "deeper_freeze", "smaller_model", "spot"
MOVES = (FEWER_TRIALS, DEEPER_FREEZE, SMALLER_MODEL)
"""Moves that a run can make by itself; another market of machines takes a person, or the next launch."""


@dataclass(frozen=True)
class Proposal:
    """Something that could be given up.

    Args:
        move: its name.
        chosen: what it would be: seconds for a search, frozen layers, a model, a price.
        says: the same in words.
        seconds: that it saves, by the medians; negative where it takes longer.
        money: that it saves.
        enough: whether all that is to come would fit then.
        allowed: whether the project file lets a run make it.
    """

    move: str
    chosen: Any
    says: str
    seconds: float
    money: Decimal
    enough: bool
    allowed: bool = False

    @property
    def saves(self) -> bool:
        """Whether it saves anything."""
        return self.seconds > 0 or self.money > 0

    def told(self) -> dict[str, Any]:
        """The proposal as plain JSON values; money is decimal text."""
        return {
            "move": self.move,
            "chosen": self.chosen,
            "says": self.says,
            "saves_seconds": self.seconds,
            "saves_money": f"{self.money:f}",
            "enough": self.enough,
            "allowed": self.allowed,
        }


@dataclass(frozen=True)
class Review:
    """The forecast to completion as of one moment.

    Args:
        when: what gave rise to it.
        plan: all that is to come, and the limits.
        proposals: what could be given up, where the total is in danger.
    """

    when: str
    plan: Plan
    proposals: tuple[Proposal, ...] = ()

    def told(self) -> dict[str, Any]:
        """The review as the data of its event; money is decimal text."""
        plan, limits = self.plan, self.plan.limits
        price = limits.price_per_hour
        return {
            "when": self.when,
            "seconds": list(plan.full.quantiles()),
            "cost": [_amount(seconds, price) for seconds in plan.full.quantiles()],
            "to_buy": f"{limits.to_buy:f}",
            "basis": plan.full.basis,
            "seconds_left": limits.time_seconds if math.isfinite(limits.time_seconds) else None,
            "money_left": None if limits.money_left is None else f"{limits.money_left:f}",
            "binding": limits.binding,
            "limit_seconds": limits.seconds if math.isfinite(limits.seconds) else None,
            "in_danger": in_danger(plan),
            "proposals": [each.told() for each in self.proposals],
        }


def in_danger(plan: Plan) -> bool:
    """Whether all that is to come may not fit: its 95th percentile is more than what is left of time or money."""
    return not plan.fits_whole


def because(plan: Plan, proposal: Proposal) -> str:
    """Why a move is made, in one sentence with its figures."""
    limits = plan.limits
    return (
        f"what is to come may take {plan.full.p95:,.0f} s and the {limits.binding} leaves {limits.seconds:,.0f} s; "
        f"{proposal.says} saves {proposal.seconds:,.0f} s, {proposal.money:.4f} {limits.currency}"
    )


def with_part(plan: Plan, what: str, seconds: Forecast, minimum: Forecast | None = None) -> Plan:
    """The plan with another forecast of one part."""
    parts = (replace(part, seconds=seconds, minimum=minimum) if part.what == what else part for part in plan.parts)
    return replace(plan, parts=tuple(parts))


def proposal_of(plan: Plan, after: Plan, move: str, chosen: Any, says: str, allowed: Sequence[str]) -> Proposal:
    """A move by the plan as it is and as it would be, at the same price an hour."""
    saved = plan.full.p50 - after.full.p50
    money = Decimal(_amount(saved, plan.limits.price_per_hour))
    return Proposal(move, chosen, says, saved, money, after.fits_whole, move in allowed)


def fewer_trials(plan: Plan, allowed: Sequence[str]) -> Proposal | None:
    """Cut the search that is to come by what is missing, to nothing at most; None without one.

    The search of an allowance takes at most that, so its 95th percentile is the allowance.
    """
    search = next((part for part in plan.parts if part.what == "search"), None)
    if search is None or search.seconds.p95 <= 0:
        return None
    missing = max(0.0, plan.full.p95 - plan.limits.seconds)
    kept = max(0.0, search.seconds.p95 - missing)
    after = with_part(plan, "search", search.seconds.scaled(kept / search.seconds.p95))
    says = f"a search of at most {kept:,.0f} s instead of {search.seconds.p95:,.0f} s"
    return proposal_of(plan, after, FEWER_TRIALS, kept, says, allowed)


def least_of(candidates: Sequence[Proposal]) -> Proposal | None:
    """Of moves of one kind, from the smallest to the largest: the first that is enough, or else what saves most."""
    saving = [each for each in candidates if each.saves]
    fitting = [each for each in saving if each.enough]
    return fitting[0] if fitting else max(saving, key=lambda each: each.seconds, default=None)


def train_part(plan: Plan) -> Part | None:
    """Training, where it is still to come."""
    return next((part for part in plan.parts if part.what == "train"), None)


def _amount(seconds: float, price_per_hour: Decimal) -> str:
    """Money for seconds of the machine, to the ledger's unit, as decimal text."""
    return f"{(Decimal(repr(seconds)) * price_per_hour / 3600).quantize(Decimal('1e-9')):f}"
