"""Cost against benefit, from what a report holds: net return, break-even date, sensitivity, the marginal curve, KPIs.

Nothing here is measured anew. Money at a training step is the steps' own seconds at the machine's price, so that
validations and probes are no part of the marginal curve. Energy is what codecarbon measured, and the stated draw over
the metered seconds in which it did not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal

from thriftune.report.discounting import counted_periods, periods_to_earn
from thriftune.report.energy import MeasuredEnergy, energy_basis, energy_kwh
from thriftune.report.model import Report, Worth
from thriftune.report.returns import NOT_IN_POINTS, POINT

HOUR = 3600.0
YEAR = 365.25 * 86_400
FACTOR = 2  # by which what is stated is halved and doubled to see what hangs on it
ROW_DEVIATION = 0.5  # of a share's rows, at most


@dataclass(frozen=True)
class Between:
    """A figure with its interval; None where it does not follow."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Swing:
    """What the net value is when one input alone is another.

    Args:
        what: the input.
        low: its lesser setting, as people read it.
        high: its greater setting.
        at_low: value less cost with the lesser setting.
        at_high: the same with the greater.
    """

    what: str
    low: str
    high: str
    at_low: Decimal
    at_high: Decimal


@dataclass(frozen=True)
class Bought:
    """A validation of the learning curve, priced.

    Args:
        step: of training.
        cost: of all steps up to it.
        score: the report's metric on validation.
        best: the best so far.
        points: gained over the best before.
        points_per_money: the same for each unit of money since the validation before; None where nothing was spent.
    """

    step: int
    cost: float
    score: float
    best: float
    points: float
    points_per_money: float | None


@dataclass(frozen=True)
class Marginal:
    """What the last money bought, and what the next would.

    Args:
        curve: every validation, in order.
        last_cost: what the second half of the steps' money is.
        last_points: gained in it.
        next_points: expected for as much again (train/curve.py); None with too few validations to say.
        next_most: what that stays below nineteen times in twenty.
    """

    curve: tuple[Bought, ...]
    last_cost: float
    last_points: float
    next_points: float | None
    next_most: float | None


@dataclass(frozen=True)
class Kpis:
    """Key figures of an attempt; None where they were not measured, or nothing is known of the machine's draw.

    Args:
        epoch_seconds: the steps' seconds for one pass over the data.
        tokens_per_money: training tokens for a unit of money, at the steps' own cost.
        tokens_per_kwh: likewise for a kilowatt hour.
        padding_share: of what the steps computed on.
        request_seconds: a held-out row's share of the tuned model's answers, in batches.
        cost_per_thousand: money for a thousand requests at that pace.
        energy_kwh: of the attempt.
        carbon_grams: carbon dioxide of that.
        energy_basis, carbon_basis: where the two come from.
    """

    epoch_seconds: float | None
    tokens_per_money: float | None
    tokens_per_kwh: float | None
    padding_share: float | None
    request_seconds: float | None
    cost_per_thousand: float | None
    energy_kwh: float | None
    carbon_grams: float | None
    energy_basis: str | None = None
    carbon_basis: str | None = None


@dataclass(frozen=True)
class Benefit:
    """Cost against benefit.

    Args:
        roi: (value - cost) / cost over the horizon.
        break_even_at: an instant; `low` is the latest, of the least gain, None for never.
        sensitivity: the inputs that matter most first.
        marginal: None where no curve in points was recorded.
        kpis: key figures.
    """

    roi: Between
    break_even_at: Between
    sensitivity: tuple[Swing, ...]
    marginal: Marginal | None
    kpis: Kpis


def benefit_of(report: Report) -> Benefit:
    """What follows from a report."""
    found = report.returns
    roi = Between(*(None if each is None else each - 1 for each in (found.ratio, found.ratio_low, found.ratio_high)))
    return Benefit(roi, _break_even(report), _sensitivity(report), _marginal(report), _kpis(report))


def _break_even(report: Report) -> Between:
    """When the gain has paid the cost, counted from the report's last event."""
    found, worth = report.returns, report.project.worth
    gains = (found.points_gained, found.points_low, found.points_high)
    if worth is None or not worth.period_years or found.points_gained is None:
        return Between(None, None, None)

    def at(points: float | None) -> float | None:
        if points is None or points <= 0 or not worth.per_point:
            return None
        periods = periods_to_earn(worth, float(found.cost) / (points * float(worth.per_point)))
        return None if periods is None else report.as_of + periods * worth.period_years * YEAR

    return Between(*(at(points) for points in gains))


def _sensitivity(report: Report) -> tuple[Swing, ...]:
    """One input at a time: the gain over its interval, what is stated by half and double."""
    found, worth = report.returns, report.project.worth
    points, low, high = found.points_gained, found.points_low, found.points_high
    if worth is None or points is None or low is None or high is None:
        return ()

    def net(gain: float = points, stated: Worth = worth, cost: Decimal = found.cost) -> Decimal:
        return round(Decimal(repr(gain)) * stated.per_point * counted_periods(stated) - cost, 9)

    point, periods = worth.per_point, worth.periods
    rows = [
        Swing("gain, over its interval", f"{low:.1f} points", f"{high:.1f} points", net(gain=low), net(gain=high)),
        Swing(
            "worth of a point",
            "half",
            "double",
            *(net(stated=replace(worth, per_point=each)) for each in (point / FACTOR, point * FACTOR)),
        ),
        Swing("cost", "half", "double", net(cost=found.cost / FACTOR), net(cost=found.cost * FACTOR)),
    ]
    if worth.period_years:
        half, double = (net(stated=replace(worth, periods=each)) for each in (periods / FACTOR, periods * FACTOR))
        rows.append(Swing("horizon", "half", "double", half, double))
    if worth.discount:
        none, double = (net(stated=replace(worth, discount=each)) for each in (0.0, worth.discount * FACTOR))
        rows.append(Swing("discount", "none", "double", none, double))
    return tuple(sorted(rows, key=lambda row: -abs(row.at_high - row.at_low)))


def _marginal(report: Report) -> Marginal | None:
    price, metric = report.cost.price_per_hour, report.metric
    if price is None or metric is None or metric in NOT_IN_POINTS or not report.steps:
        return None
    per_second = float(price) / HOUR
    spent, total = {}, 0.0
    for step in report.steps:
        if step.seconds is None:
            return None
        total += step.seconds * per_second
        spent[step.step] = total
    curve: list[Bought] = []
    for validation in report.validations:
        if metric not in validation.metrics or validation.step not in spent:
            continue
        score, cost = validation.metrics[metric], spent[validation.step]
        before = curve[-1] if curve else None
        best = score if before is None else max(before.best, score)
        points = 0.0 if before is None else (best - before.best) / POINT
        since = 0.0 if before is None else cost - before.cost
        curve.append(Bought(validation.step, cost, score, best, points, points / since if since > 0 else None))
    if len(curve) < 2:
        return None
    half = max((one for one in curve[:-1] if one.cost <= curve[-1].cost / 2), key=lambda b: b.cost, default=curve[0])
    ahead = curve[-1].step + (curve[-1].step - half.step)
    following = _following(report, curve, ahead)
    last = curve[-1]
    return Marginal(tuple(curve), last.cost - half.cost, (last.best - half.best) / POINT, *following)


def _following(report: Report, curve: list[Bought], ahead: int) -> tuple[float | None, float | None]:
    """Points to be gained by a later step: expected, and at most."""
    from thriftune.train.curve import MIN_VALIDATIONS, future_gains

    rows = next((one.rows for one in report.baselines if one.split == "validation" and one.rows), None)
    rows = rows or (report.tuned.rows if report.tuned is not None else None)
    if len(curve) < MIN_VALIDATIONS or not rows:
        return None, None
    steps, scores = [one.step for one in curve], [one.score for one in curve]
    gains = future_gains(steps, scores, [ahead], ROW_DEVIATION / math.sqrt(rows))
    room = max(0.0, 1.0 - curve[-1].best) / POINT
    return tuple(min(float(each[0]) / POINT, room) for each in (gains.mean, gains.upper))  # type: ignore[return-value]


def _kpis(report: Report) -> Kpis:
    steps, price, power = report.steps, report.cost.price_per_hour, report.project.power
    timed = [step for step in steps if step.seconds is not None]
    seconds = math.fsum(step.seconds or 0.0 for step in timed) if len(timed) == len(steps) else 0.0
    tokens = report.utilisation.tokens
    tuned = report.tuned
    request = tuned.seconds / tuned.rows if tuned is not None and tuned.seconds and tuned.rows else None
    money_a_second = None if price is None else float(price) / HOUR
    measured, metered = report.spending.measured_energy, report.time.metered_s
    watts = None if power is None else power.watts
    energy = energy_kwh(measured, metered, watts)
    factor, factor_from = _grams_per_kwh(report)
    return Kpis(
        epoch_seconds=_epoch_seconds(report),
        tokens_per_money=_per(tokens, seconds, money_a_second),
        tokens_per_kwh=_per(tokens, seconds, _kwh_a_second(measured, watts)),
        padding_share=report.utilisation.padding_share,
        request_seconds=request,
        cost_per_thousand=None if request is None or money_a_second is None else 1000 * request * money_a_second,
        energy_kwh=energy,
        carbon_grams=None if energy is None or factor is None else energy * factor,
        energy_basis=None if energy is None else energy_basis(measured, metered, watts),
        carbon_basis=None if energy is None or factor is None else f"{factor:g} g a kWh, {factor_from}",
    )


def _kwh_a_second(measured: MeasuredEnergy | None, watts: float | None) -> float | None:
    """The mean draw as measured, else as stated."""
    if measured is not None and measured.seconds:
        return measured.kwh / measured.seconds
    return energy_kwh(None, 1.0, watts)


def _grams_per_kwh(report: Report) -> tuple[float | None, str]:
    """Of carbon dioxide: what the project file states, else codecarbon's for the country that it names, else the
    default; of a rented machine only the first two are known. And which of them it is."""
    power, measured = report.project.power, report.spending.measured_energy
    if power is not None and power.grams_are_stated:
        return power.grams_per_kwh, "stated in compute.local"
    if measured is not None and measured.grams_per_kwh is not None:
        return measured.grams_per_kwh, "codecarbon's for the country in compute.local"
    if power is None:
        return None, ""
    return power.grams_per_kwh, "the default of compute.local"


def _per(tokens: int | None, seconds: float, rate: float | None) -> float | None:
    return tokens / (seconds * rate) if tokens is not None and seconds and rate else None


def _epoch_seconds(report: Report) -> float | None:
    """Seconds of the steps after the first, over the epochs between the first and the last."""
    steps = report.steps
    if len(steps) < 2 or steps[0].epoch is None or steps[-1].epoch is None:
        return None
    epochs = steps[-1].epoch - steps[0].epoch
    taken = [step.seconds for step in steps[1:]]
    known = [seconds for seconds in taken if seconds is not None]
    return math.fsum(known) / epochs if epochs > 0 and len(known) == len(taken) else None
