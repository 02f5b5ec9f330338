"""Later money in today's: a payment at the end of each period, discounted by a yearly rate."""

from __future__ import annotations

import math
from decimal import Decimal

from thriftune.report.model import Worth


def counted_periods(worth: Worth) -> Decimal:
    """How many periods' earnings today the horizon is worth: its periods, where nothing is discounted.

    A payment stands at the end of each whole period; the rest of the horizon pays its share at its end.
    """
    rate = _period_rate(worth)
    if not rate:
        return worth.periods
    whole = int(worth.periods)
    rest = float(worth.periods - whole)
    value = (1 - (1 + rate) ** -whole) / rate + rest * (1 + rate) ** -float(worth.periods)
    return Decimal(repr(value))


def periods_to_earn(worth: Worth, earnings: float) -> float | None:
    """After how many periods so many periods' earnings are made, in today's money; None for never."""
    rate = _period_rate(worth)
    if not rate:
        return earnings
    left = 1 - rate * earnings
    return -math.log(left) / math.log1p(rate) if left > 0 else None


def _period_rate(worth: Worth) -> float:
    return math.expm1(worth.period_years * math.log1p(worth.discount))
