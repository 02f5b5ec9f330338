"""Kinds of cost, alerts, reviews, use of the machine and bills, for the report in a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thriftune.report.model import Report
from thriftune.report.spending import CategoryCost, Reviewed
from thriftune.report.wording import MISSING, duration, megabytes, money, plain, share

MANY_REVIEWS = 6  # the latest are shown in the terminal; the page has them all
ADVICE = {"up": "Scale up", "down": "Scale down", "stay": "Stay"}
NewTable = Callable[..., Table]


def sections(report: Report, table: NewTable) -> list[tuple[str, RenderableType | None]]:
    """The titled parts, None where there is nothing to tell.

    Args:
        report: what to show.
        table: makes a table of these headers, so many columns after the first aligned to the right.
    """
    return [
        ("Alerts", _alerts(report)),
        ("By kind of cost", _categories(report, table)),
        ("Use of the machine", _use(report, table)),
        ("Reviews", _reviews(report, table)),
        ("Metered and billed", _billed(report, table)),
        ("Watchdog", Group(*map(_text, report.spending.ended)) if report.spending.ended else None),
    ]


def _alerts(report: Report) -> RenderableType | None:
    alerts = report.spending.alerts
    return Group(*(_text(alert.text, "yellow") for alert in alerts)) if alerts else None


def _categories(report: Report, table: NewTable) -> RenderableType | None:
    found, currency = report.spending, report.cost.currency
    shown = [each for each in found.categories if each.spent or each.allowance is not None or each.amount is not None]
    if not shown:
        return None
    rows = table("", "spent", "allowance", "how much", numbers=3)
    for each in shown:
        allowance = "" if each.allowance is None else money(each.allowance, currency)
        rows.add_row(_text(each.category), _text(money(each.spent, currency)), _text(allowance), _text(_amount(each)))
    if found.energy is None:
        return rows
    cost = "" if found.energy.cost is None else f", {money(found.energy.cost, currency)}"
    energy = f"{found.energy.kwh:.4f} kWh{cost} ({found.energy.basis})"
    return Group(rows, _text(f"Energy, which the machine's price holds: {energy}."))


def _amount(found: CategoryCost) -> str:
    return "" if found.amount is None else found.amount.said


def _use(report: Report, table: NewTable) -> RenderableType | None:
    found, currency = report.spending, report.cost.currency
    if not found.use:
        return None
    rows = table("phase", "processor", "accelerator", "memory", "read", "written", "idle", "idle money", numbers=7)
    for each in found.use:
        rows.add_row(
            _text(each.phase),
            _text(f"{share(each.cpu)} of {each.cores}"),
            _text(MISSING if each.accelerator is None else share(each.accelerator)),
            _text(share(each.memory_peak)),
            _text(megabytes(each.read_bytes)),
            _text(megabytes(each.written_bytes)),
            _text(duration(each.idle_seconds)),
            _text(money(each.idle_cost, currency)),
        )
    if found.suggestion is None:
        return rows
    return Group(rows, _text(f"{ADVICE[found.suggestion.direction]}: {found.suggestion.because}."))


def _reviews(report: Report, table: NewTable) -> RenderableType | None:
    reviews = report.spending.reviews
    if not reviews:
        return None
    rows = table("when", "to come", "at most", "left", "proposed", numbers=3)
    for review in reviews[-MANY_REVIEWS:]:
        left = "no limit" if review.limit_seconds is None else duration(review.limit_seconds)
        rows.add_row(
            _text(review.when),
            _text(duration(review.seconds[2])),
            _text(duration(review.seconds[4]), "yellow" if review.in_danger else ""),
            _text(left),
            _text(_proposed(review, report.cost.currency)),
        )
    danger = sum(review.in_danger for review in reviews)
    return Group(rows, _text(f"{len(reviews)} reviews, {danger} of which found the total in danger."))


def _proposed(review: Reviewed, currency: str) -> str:
    if not review.proposals:
        return "in danger, nothing to give up" if review.in_danger else ""
    return "; ".join(
        f"{each.says}: saves {duration(each.saves_seconds)}, {money(each.saves_money, currency)}"
        f" ({'taken' if each.taken else 'allowed' if each.allowed else 'not allowed by budget.may'})"
        for each in review.proposals
    )


def _billed(report: Report, table: NewTable) -> RenderableType | None:
    currency = report.cost.currency
    if not report.spending.billed:
        return None
    rows = table("period", "metered", "billed", "difference", numbers=3)
    for period in report.spending.billed:
        figures = (money(each, currency) for each in (period.metered, period.billed, period.difference))
        rows.add_row(_text(period.name), *map(_text, figures))
    return rows


def _text(text: str, style: str = "") -> Text:
    return Text(plain(text), style=style)
