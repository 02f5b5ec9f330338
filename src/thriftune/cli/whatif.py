"""What if: reading the question from the command line, and showing the answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from thriftune.budget.forecast import Forecast
from thriftune.clock import SystemClock, utc
from thriftune.errors import BadInput
from thriftune.money.amounts import shown_money
from thriftune.options import parse_deadline
from thriftune.plan.plan import Plan
from thriftune.plan.whatif import Answer, Question
from thriftune.report.wording import duration

MOST_ROWS = 10**10

Value = TypeVar("Value")


def parse_question(budget: str | None, deadline: str | None, target: str | None, rows: str | None) -> Question:
    """The question that options ask.

    Raises:
        BadInput: one of them is not what it should be.
    """
    return Question(
        _parsed("--budget", budget, _budget),
        _parsed("--deadline", deadline, _deadline),
        _parsed("--target", target, _target),
        _parsed("--rows", rows, _rows),
    )


def show_answer(found: Answer) -> None:
    """Print what would change."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title="what if", title_justify="left")
    for heading in ("", "by the project file", "as asked"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, tell in _ROWS.items():
        before, after = tell(found.before), tell(found.after)
        table.add_row(name, before, after, style="" if before == after else "bold")
    console.print(table)
    for sentence in found.said():
        console.print(sentence)
    console.print("only the question was changed, not the project file")


def answer_json(found: Answer) -> dict[str, Any]:
    """The answer as plain JSON values."""
    question = found.question
    deadline = question.deadline
    if isinstance(deadline, timedelta):
        asked: Any = deadline.total_seconds()
    else:
        asked = None if deadline is None else deadline.isoformat()
    return {
        "asked": {
            "budget": None if question.budget is None else str(question.budget),
            "deadline": asked,
            "target": question.target,
            "rows": question.rows,
        },
        "outcome": found.outcome,
        "said": found.said(),
        "time_s": _quantiles(found.after.full),
        "cost": _quantiles(found.after.full.scaled(float(found.after.limits.price_per_hour) / 3600)),
        "steps": {"full": found.after.full_steps, "planned": found.after.planned_steps},
        "test_rows": {"full": found.after.full_rows, "planned": found.after.planned_rows},
        "left": {
            "money": None if found.after.limits.money_left is None else str(found.after.limits.money_left),
            "deadline_s": found.after.limits.time_seconds if math.isfinite(found.after.limits.time_seconds) else None,
        },
        "minimum": {"budget": str(found.after.minimum_budget()), "deadline_s": found.after.minimum_time()},
        "most_rows": found.most_rows,
    }


def _interval(forecast: Forecast, tell: Callable[[float], str]) -> str:
    return f"{tell(forecast.p50)} ({tell(forecast.p5)} to {tell(forecast.p95)})"


def _cost(plan: Plan) -> str:
    price, currency = float(plan.limits.price_per_hour) / 3600, plan.limits.currency
    return _interval(plan.full.scaled(price), lambda value: shown_money(Decimal(repr(value)), currency))


def _steps(plan: Plan) -> str:
    cut = min(plan.planned_steps, plan.full_steps)
    return f"{plan.full_steps:,}" if plan.fits_whole else f"{cut:,} of {plan.full_steps:,}"


_ROWS: dict[str, Callable[[Plan], str]] = {
    "money left": lambda plan: (
        "no limit" if plan.limits.money_left is None else shown_money(plan.limits.money_left, plan.limits.currency)
    ),
    "time left": lambda plan: (
        duration(plan.limits.time_seconds) if math.isfinite(plan.limits.time_seconds) else "no limit"
    ),
    "time of all steps, 90 %": lambda plan: _interval(plan.full, duration),
    "cost of all steps, 90 %": _cost,
    "steps": _steps,
    "least budget": lambda plan: shown_money(plan.minimum_budget(), plan.limits.currency),
    "least deadline": lambda plan: duration(plan.minimum_time()),
}


def _parsed(option: str, text: str | None, parse: Callable[[str], Value]) -> Value | None:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise BadInput("this cannot be asked", option, text, str(error), f"thriftune plan {option} VALUE") from None


def _budget(text: str) -> Decimal:
    from thriftune.project.file import parse_money

    amount = parse_money(text)
    if not amount:
        raise ValueError("an amount of money above zero, such as 5.00")
    return amount


def _deadline(text: str) -> timedelta | datetime:
    deadline = parse_deadline(text)
    if isinstance(deadline, timedelta) and deadline <= timedelta(0):
        raise ValueError("a duration above zero, such as 20m")
    now = SystemClock().now()
    if isinstance(deadline, datetime) and deadline.timestamp() <= now:
        raise ValueError(f"an instant after {utc(now):%Y-%m-%d %H:%M} UTC")
    return deadline


def _target(text: str) -> float:
    try:
        target = float(text)
    except ValueError:
        raise ValueError("a number, such as 0.85") from None
    if not math.isfinite(target) or target < 0:
        raise ValueError("a number from 0 up, such as 0.85")
    return target


def _rows(text: str) -> int:
    plain = text.replace(",", "").replace("_", "")
    if not (plain.isascii() and plain.isdigit()) or not 1 <= len(plain) <= 11 or not 10 <= int(plain) <= MOST_ROWS:
        raise ValueError(f"a whole number from 10 to {MOST_ROWS:,}")
    return int(plain)


def _quantiles(forecast: Forecast) -> dict[str, float]:
    return dict(zip(("p5", "p25", "p50", "p75", "p95"), forecast.quantiles(), strict=True))
