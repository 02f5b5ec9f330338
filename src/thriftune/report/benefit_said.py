"""Cost against benefit as tables of text, the same in the terminal and on the page."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from thriftune.report.benefit import Benefit, Between, Kpis, Marginal, benefit_of
from thriftune.report.model import Report
from thriftune.report.wording import MISSING, duration, instant, money, points, score, share

SMALL_CURVE = 8  # validations shown at most, evenly taken; JSON has them all

FEW_TIMES = 10  # from which on a return is told in multiples, not in per cent


@dataclass(frozen=True)
class Shown:
    """A table: its title, its columns, its rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(report: Report) -> list[Shown]:
    """What there is to show, those without rows left out."""
    found, currency = benefit_of(report), report.cost.currency
    shown = [
        _costs(report),
        _previous(report),
        _net(found, currency),
        _sensitivity(found, currency),
        _curve(found.marginal, currency),
        _key_figures(found.kpis, report, currency),
    ]
    return [one for one in shown if one.rows]


def _costs(report: Report) -> Shown:
    """Cost and cost per point by phase."""
    gained = report.returns.points_gained if report.returns.cost_per_point is not None else None
    rows = []
    for phase in report.cost.phases:
        if not phase.spent:
            continue
        a_point = MISSING if gained is None else money(phase.spent / Decimal(repr(gained)), report.cost.currency)
        part = share(float(phase.spent / report.cost.spent)) if report.cost.spent else MISSING
        rows.append((phase.phase, money(phase.spent, report.cost.currency), part, a_point))
    return Shown("Cost by phase", ("phase", "spent", "share", "for each point gained"), tuple(rows))


def _previous(report: Report) -> Shown:
    found = report.previous
    rows: tuple[tuple[str, ...], ...] = ()
    if found is not None:
        gain = found.gain
        low, value, high = (points(None if each is None else 100 * each) for each in (gain.low, gain.value, gain.high))
        this = money(report.cost.this_attempt, report.cost.currency)
        rows = ((f"points over attempt {found.attempt}, for {this}", low, value, high),)
    note = "Both models on as many test rows, not paired: the interval is wider than it need be." if rows else ""
    return Shown("Gain over the model before", ("", "low", "measured", "high"), rows, note)


def _net(found: Benefit, currency: str) -> Shown:
    rows = []
    if found.roi.value is not None:
        rows.append(("(value − cost) ÷ cost", *(_percent(each) for each in _spread(found.roi))))
    if found.break_even_at.value is not None:
        least, middle, most = _spread(found.break_even_at)
        rows.append(("paid back on", *(("never" if each is None else _day(each)) for each in (least, middle, most))))
    return Shown("Return on investment", ("", "at the least gain", "as measured", "at the greatest gain"), tuple(rows))


def _sensitivity(found: Benefit, currency: str) -> Shown:
    rows = tuple(
        (swing.what, swing.low, money(swing.at_low, currency), swing.high, money(swing.at_high, currency))
        for swing in found.sensitivity
    )
    return Shown("Value less cost, when one thing is otherwise", ("what", "if", "net", "if", "net"), rows)


def _curve(found: Marginal | None, currency: str) -> Shown:
    columns = ("step", "spent on steps", "score", "points since", "points for each unit of money")
    if found is None:
        return Shown("What money bought", columns, ())
    curve = found.curve
    if len(curve) > SMALL_CURVE:
        places = {round(each * (len(curve) - 1) / (SMALL_CURVE - 1)) for each in range(SMALL_CURVE)}
        curve = tuple(curve[place] for place in sorted(places))
    rows = []
    for place, one in enumerate(curve):
        gained = (one.best - curve[place - 1].best) * 100 if place else 0.0
        since = one.cost - curve[place - 1].cost if place else 0.0
        each = f"{gained / since:,.1f}" if since > 0 else ""
        rows.append((f"{one.step:,}", _money(one.cost, currency), score(one.score), points(gained), each))
    note = f"The last {_money(found.last_cost, currency)} bought {found.last_points:.1f} points"
    if found.next_points is None or found.next_most is None:
        note += "; there are too few validations to say what as much again would."
    else:
        note += f"; as much again is expected to buy {found.next_points:.1f}, and at most {found.next_most:.1f} (95 %)."
    return Shown("What money bought, on validation", columns, tuple(rows), note)


def _key_figures(found: Kpis, report: Report, currency: str) -> Shown:
    said: list[tuple[str, str | None]] = [
        ("time for an epoch", None if found.epoch_seconds is None else duration(found.epoch_seconds)),
        (f"tokens trained for 1 {currency}", _number(found.tokens_per_money)),
        ("tokens trained for 1 kWh", _number(found.tokens_per_kwh)),
        ("padding", None if found.padding_share is None else share(found.padding_share)),
        ("time for a held-out row, in batches", _latency(found.request_seconds)),
        (
            "cost of a thousand requests at that pace",
            None if found.cost_per_thousand is None else _money(found.cost_per_thousand, currency),
        ),
        (_energy_label(report), None if found.energy_kwh is None else f"{found.energy_kwh:.3g} kWh"),
        ("carbon dioxide, an estimate", None if found.carbon_grams is None else f"{found.carbon_grams:.3g} g"),
    ]
    parts = [("Energy", found.energy_basis), ("Carbon dioxide", found.carbon_basis)]
    note = " ".join(f"{name}: {basis}." for name, basis in parts if basis is not None)
    return Shown("Key figures", ("", "this attempt"), tuple((n, v) for n, v in said if v is not None), note)


def _energy_label(report: Report) -> str:
    return "energy, an estimate" if report.spending.measured_energy is None else "energy, by codecarbon"


def _spread(between: Between) -> tuple[float | None, float | None, float | None]:
    return between.low, between.value, between.high


def _percent(value: float | None) -> str:
    if value is None:
        return MISSING
    return (f"{value:+,.0f} ×" if abs(value) >= FEW_TIMES else f"{100 * value:+,.0f} %").replace("-", "−")


def _day(value: float) -> str:
    return instant(value)[:16]


def _money(value: float, currency: str) -> str:
    return money(Decimal(repr(value)), currency)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _latency(seconds: float | None) -> str | None:
    return None if seconds is None else f"{1000 * seconds:.3g} ms"
