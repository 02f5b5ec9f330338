"""Showing a comparison: a table of ways to do the run, the frontier, and which one to take and why."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from thriftune.budget.forecast import Forecast
from thriftune.clock import SystemClock
from thriftune.errors import BadInput
from thriftune.plan.compare import Comparison, Market, Option, compare, telling, to_data
from thriftune.plan.plan import Plan
from thriftune.project import Project
from thriftune.report.frontier import frontier_picture, frontier_text
from thriftune.report.svg import write_picture
from thriftune.report.wording import duration, money

PIPE_WIDTH = 200  # columns when nobody watches


def compared(project: Project, plan: Plan) -> Comparison:
    """Every way to do what a plan holds.

    Raises:
        BadInput: nothing is probed that a comparison could be made from, or a table cannot be read.
    """
    from thriftune.budget.record import Record
    from thriftune.memory import resident_bytes, usable_bytes
    from thriftune.money.prices import PriceTable
    from thriftune.money.tables import accelerators, interruptions
    from thriftune.money.tokens import token_prices

    if plan.workload is None:
        raise BadInput(
            "there is nothing left to compare",
            where="thriftune plan --compare",
            found="a plan without training",
            expected="a project that is still to be trained",
            way_out="change what is to be trained",
        )
    trained = [price for price in token_prices() if price.use == "training"]
    market = Market(PriceTable.load().rows, accelerators(), interruptions(), trained, Record.load().figures)
    here = float(usable_bytes() + resident_bytes())
    now = SystemClock().now()
    return compare(plan, plan.workload, market, project.price, here, now, project.file.seed)


def keep_comparison(project: Project, found: Comparison) -> None:
    """Record it, so that the report shows the latest one."""
    from thriftune.cli.records import opened
    from thriftune.events import EventLog, latest_attempt

    with opened(project) as store:
        last = None if store is None else latest_attempt(store, project.file.name)
        if store is not None and last is not None:
            events = EventLog(store, SystemClock(), project.file.name, last.attempt)
            events.emit("plan.compared", **to_data(found))
            events.close()


def show_comparison(project: Project, found: Comparison, picture: Path | None) -> None:
    """Print it, and write its picture where one is asked for."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    table = Table(title=f"{project.file.name}: the same run elsewhere", title_justify="left")
    for heading in ("where", "market", "accelerators"):
        table.add_column(heading, overflow="fold")
    for heading in ("cost", "50 %", "90 %", "time", "90 %"):
        table.add_column(heading, justify="right")
    for heading in ("memory", "interruptions", "price", "why not"):
        table.add_column(heading, overflow="fold")
    rows = telling(found)
    for option in rows:
        table.add_row(*_cells(option, found), style="bold green" if option is found.chosen else "")
    console.print(table)
    left_out = len(found.options) - len(rows)
    if left_out:
        console.print(f"and {left_out} more, which `thriftune plan --compare --json` has")
    console.print(verdict(found))
    for source in dict.fromkeys(option.basis for option in rows if option.kind != "local"):
        console.print(f"not measured, but foretold ({source})")
    for source in dict.fromkeys(option.risk.rate for option in rows if option.risk and option.risk.rate):
        console.print(f"interruptions: {source}")
    for note in found.notes:
        console.print(note)
    console.print("\ncost against time, both on logarithmic scales (@ the one to take, * the frontier):")
    console.print(frontier_text(found), soft_wrap=True)
    write_frontier(project, found, picture)


def write_frontier(project: Project, found: Comparison, path: Path | None) -> None:
    """Write the picture of the frontier.

    Raises:
        BadInput: the place cannot be written, or there is nothing to show.
    """
    if path is None:
        return
    picture = frontier_picture(found, project.file.name)
    if picture is None:
        raise BadInput("there is nothing to draw", str(path), "no way with a cost", "a price above 0", "leave it out")
    write_picture(picture, path)


def verdict(found: Comparison) -> str:
    """Which one to take, in a sentence."""
    if found.chosen is None:
        return "[yellow]none meets budget and deadline for sure[/yellow]: the nearest ones say above why"
    cost = "" if found.chosen.cost is None else f" ({money(Decimal(repr(found.chosen.cost.p50)), found.currency)})"
    return f"[green]the cheapest that meets budget and deadline[/green]: {found.chosen.name}, {found.chosen.kind}{cost}"


def comparison_json(found: Comparison) -> dict[str, Any]:
    """The comparison as plain JSON values."""
    return {
        "chosen": None if found.chosen is None else {"name": found.chosen.name, "kind": found.chosen.kind},
        "money_left": None if found.money_left is None else str(found.money_left),
        "seconds_left": found.seconds_left if math.isfinite(found.seconds_left) else None,
        "currency": found.currency,
        "notes": list(found.notes),
        "options": [_option_json(option, found) for option in found.options],
    }


def _option_json(option: Option, found: Comparison) -> dict[str, Any]:
    risk = option.risk
    return {
        "name": option.name,
        "kind": option.kind,
        "accelerators": option.accelerators,
        "price": option.price,
        "price_is_old": option.old,
        "time_s": _quantiles(option.seconds),
        "cost": _quantiles(option.cost),
        "memory": option.memory,
        "risk": None
        if risk is None
        else {
            "rate": risk.rate or "not known",
            "interruptions": _known(risk.interruptions),
            "lost_s": _known(risk.lost_seconds),
        },
        "basis": option.basis,
        "on_frontier": option.on_frontier,
        "why_not": found.why_not(option),
    }


def _cells(option: Option, found: Comparison) -> Iterable[str]:
    cost = [_money(q, found.currency) for q in option.cost.quantiles()] if option.cost else ["not known"] * 5
    time = [duration(q) for q in option.seconds.quantiles()] if option.seconds else ["not known"] * 5
    age = f"[yellow]{option.price}[/yellow]" if option.old else option.price
    spans = [f"{low} - {high}" for low, high in ((cost[1], cost[3]), (cost[0], cost[4]), (time[0], time[4]))]
    if option.cost is None:
        spans[:2] = ["", ""]
    if option.seconds is None:
        spans[2] = ""
    return (
        option.name,
        option.kind,
        option.accelerators,
        cost[2],
        spans[0],
        spans[1],
        time[2],
        spans[2],
        option.memory,
        _risk(option),
        age,
        found.why_not(option),
    )


def _risk(option: Option) -> str:
    if option.risk is None:
        return "none"
    if not option.risk.rate:
        return "not known"
    return f"{option.risk.interruptions:.2g} expected, {duration(option.risk.lost_seconds)} lost"


def _money(value: float, currency: str) -> str:
    return money(Decimal(repr(value)), currency)


def _quantiles(forecast: Forecast | None) -> dict[str, float] | None:
    if forecast is None:
        return None
    return dict(zip(("p5", "p25", "p50", "p75", "p95"), forecast.quantiles(), strict=True))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
