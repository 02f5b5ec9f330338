"""Return on investment: what the proven gain is worth against everything that was spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from thriftune.report.discounting import counted_periods, periods_to_earn
from thriftune.report.model import Comparison, Return, Worth

POINT = 0.01  # a point is a hundredth of a 0…1 metric
NO_POINTS = 1e-9  # less is rounding: one row of a billion moves a metric by a hundred times as much
NOT_IN_POINTS = frozenset({"perplexity", "bits_per_character", "margin", "loss"})


def best_baseline(comparisons: Sequence[Comparison], metric: str | None) -> Comparison | None:
    """The comparison with the strongest baseline on the metric: the one that the tuned model gains least over."""
    on_metric = [comparison for comparison in comparisons if comparison.metric == metric]
    return min(on_metric, key=lambda comparison: comparison.difference, default=None)


def returns(comparison: Comparison | None, worth: Worth | None, cost: Decimal) -> Return:
    """The return of a gain.

    Args:
        comparison: tuned against the best baseline; None when nothing was compared.
        worth: what a point is worth; None when the project states none.
        cost: all money spent by the project up to now.

    Returns:
        The figures that follow from these, and None for those that do not: no figure is invented.
    """
    if comparison is None:
        return Return("not measured", cost)
    if comparison.metric in NOT_IN_POINTS:
        return Return("not in points", cost, comparison.metric, comparison.baseline)
    points = comparison.difference / POINT
    gained, proven = points > NO_POINTS, comparison.low > 0
    gain = Return(
        status="no gain" if not gained else "not proven" if not proven else "measured" if worth else "no worth stated",
        cost=cost,
        metric=comparison.metric,
        baseline=comparison.baseline,
        points_gained=points,
        points_low=comparison.low / POINT,
        points_high=comparison.high / POINT,
        cost_per_point=_nano(cost / Decimal(repr(points))) if gained else None,
    )
    return gain if worth is None else _valued(gain, worth, (points, gain.points_low or 0.0, gain.points_high or 0.0))


def _valued(gain: Return, worth: Worth, points: tuple[float, float, float]) -> Return:
    """The gain with its points read as money: the value, and its interval from the comparison's."""
    cost, counted = gain.cost, counted_periods(worth)
    value, low, high = (_nano(Decimal(repr(each)) * worth.per_point * counted) for each in points)
    a_point, a_period = worth.per_point * counted, Decimal(repr(points[0])) * worth.per_point
    return replace(
        gain,
        value=value,
        value_low=low,
        value_high=high,
        ratio=float(value / cost) if cost else None,
        ratio_low=float(low / cost) if cost else None,
        ratio_high=float(high / cost) if cost else None,
        break_even_points=float(cost / a_point) if a_point else None,
        break_even_periods=periods_to_earn(worth, float(cost / a_period))
        if gain.cost_per_point is not None and a_period
        else None,
    )


def _nano(amount: Decimal) -> Decimal:
    """Money to the ledger's own precision."""
    return round(amount, 9)
