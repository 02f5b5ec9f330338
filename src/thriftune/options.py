"""What every part of the project file shares: the strict base model, and money and time as people write them.

Each stage keeps its own part of the project file in its `options.py`, as a subclass of `Options`;
`project.py` composes them.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

DURATION_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_NUMBER = re.compile(r"\d+(\.\d+)?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP"}


class Options(BaseModel):
    """Base of all options: unknown keys are errors, values are never changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def parse_amount(value: Any) -> Decimal:
    """A sum of money (`5`, `"0.10"`, `"$5.00"`) as a finite, non-negative Decimal; a float is refused.

    Raises:
        ValueError: with what was expected, when it is none.
    """
    if isinstance(value, bool | float):
        raise ValueError("money is read as decimal text, such as 5.00")
    text = str(value).strip().lstrip("".join(CURRENCIES)).replace("_", "")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError("an amount of money, such as 5.00") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("an amount of money that is not negative, such as 5.00")
    return amount


def parse_seconds(value: Any) -> float:
    """A duration (`90`, `"20m"`, `"1h 30m"`, `"2d"`) in seconds; a bare number is seconds.

    Raises:
        ValueError: with what was expected, when it is none.
    """
    expected = "a duration such as 90s, 20m, 1h 30m or 2d"
    if isinstance(value, bool):
        raise ValueError(expected)
    text = str(value).strip().lower()
    if isinstance(value, int | float | Decimal) or _NUMBER.fullmatch(text):  # the project file's numbers are text
        seconds = float(text)
    else:
        parts = _DURATION.findall(text)
        if not parts or _DURATION.sub("", text).strip() or any(unit not in DURATION_UNITS for _, unit in parts):
            raise ValueError(expected)
        seconds = sum(float(number) * DURATION_UNITS[unit] for number, unit in parts)
    if not 0 <= seconds < 1e10:
        raise ValueError(expected)
    return seconds


def parse_deadline(value: Any) -> timedelta | datetime:
    """A deadline: a duration from the first run (timedelta), or a date or instant (aware UTC datetime).

    A date without a time means the end of that day, UTC.

    Raises:
        ValueError: with what was expected, when it is neither.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)
    text = str(value).strip()
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return parse_deadline(date.fromisoformat(text))
        if re.match(r"\d{4}-\d{2}-\d{2}", text):
            return parse_deadline(datetime.fromisoformat(text))
    except OverflowError:
        raise ValueError("a date before the year 9999") from None
    try:
        return timedelta(seconds=parse_seconds(value))
    except ValueError:
        raise ValueError("a duration such as 20m or 2h, or a date such as 2026-12-31") from None


Amount = Annotated[Decimal, BeforeValidator(parse_amount)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Deadline = Annotated[timedelta | datetime, BeforeValidator(parse_deadline)]
