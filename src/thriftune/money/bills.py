"""Bills that were imported, kept beside the ledger: what was invoiced is held against what was metered, never charged.

The same bill twice counts once. A charge that comes again with another cost, as in the next export of a month that is
not over, takes the place of the earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import reduce

from sqlalchemy import insert, select, update

from thriftune.clock import Clock, utc
from thriftune.errors import BadInput
from thriftune.events import EventLog
from thriftune.money.amounts import NANO, NANOSECONDS
from thriftune.money.focus import BillLine
from thriftune.store import Store
from thriftune.store.tables import bill_lines, transfers

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Wanted:
    """Which charges of a bill are the project's; without any of these all are.

    Args:
        resources: ids, one of which a charge must have.
        services: names, one of which a charge must have.
        tags: that a charge must have, each with its value.
    """

    resources: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    tags: Mapping[str, str] | None = None

    def takes(self, line: BillLine) -> bool:
        """Whether a charge is the project's."""
        return (
            (not self.resources or line.resource in self.resources)
            and (not self.services or line.service in self.services)
            and all(line.tags.get(key) == value for key, value in (self.tags or {}).items())
        )


@dataclass(frozen=True)
class Imported:
    """What came of an import, in charges: new ones, those whose cost changed, those that were there, the others'."""

    new: int
    revised: int
    known: int
    left_out: int
    billed: Decimal


@dataclass(frozen=True)
class Period:
    """What was metered and what was billed in one period.

    Args:
        name: a day (`2026-11-03`) or, where a charge period goes beyond one, a month (`2026-11`).
        metered: by the ledger, in that period.
        billed: by the charges whose period begins in it.
    """

    name: str
    metered: Decimal
    billed: Decimal

    @property
    def difference(self) -> Decimal:
        """Billed less metered."""
        return self.billed - self.metered


def keep(
    store: Store, clock: Clock, project: str, attempt: int, currency: str, lines: Sequence[BillLine], wanted: Wanted
) -> Imported:
    """Keep the project's charges of a bill, all of them or, if one cannot be, none.

    Raises:
        BadInput: a charge is in another currency than the budget.
    """
    mine = [line for line in lines if wanted.takes(line)]
    other = next((line for line in mine if line.currency != currency), None)
    if other is not None:
        raise BadInput(
            "the bill is in another currency than the budget",
            where=f"column BillingCurrency, {other.service} from {utc(other.began):%Y-%m-%d}",
            found=other.currency,
            expected=currency,
            way_out=f"export it in {currency}, or take only the project's charges with --resource, --service or --tag",
        )
    with store.begin() as transaction:
        of_project = select(bill_lines.c.line_key, bill_lines.c.billed).where(bill_lines.c.project == project)
        there = {row.line_key: Decimal(row.billed) for row in transaction.execute(of_project)}
        new = [line for line in mine if line.key not in there]
        revised = [line for line in mine if line.key in there and there[line.key] != line.billed]
        rows = [
            {
                "project": project,
                "line_key": line.key,
                "billed": f"{line.billed:f}",
                "began": line.began,
                "ended": line.ended,
                "currency": line.currency,
                "category": line.category,
                "service": line.service,
                "resource": line.resource,
            }
            for line in new
        ]
        if rows:
            transaction.execute(insert(bill_lines), rows)
        for line in revised:
            which = (bill_lines.c.project == project) & (bill_lines.c.line_key == line.key)
            transaction.execute(update(bill_lines).where(which).values(billed=f"{line.billed:f}"))
        billed = reduce(_plus, (line.billed for line in mine), Decimal(0))
        known = len(mine) - len(new) - len(revised)
        found = Imported(len(new), len(revised), known, len(lines) - len(mine), billed)
        EventLog(store, clock, project, attempt).emit(
            "bill.imported",
            inside=transaction,
            new=found.new,
            revised=found.revised,
            known=found.known,
            left_out=found.left_out,
            billed=f"{billed:f}",
            currency=currency,
        )
    return found


def compared(store: Store, project: str) -> tuple[Period, ...]:
    """Metered against billed, period by period, over the periods that a bill was imported for."""
    with store.read() as connection:
        lines = connection.execute(select(bill_lines).where(bill_lines.c.project == project)).all()
        spent = connection.execute(
            select(transfers.c.posted_nano, transfers.c.seconds, transfers.c.settled_at_ns).where(
                transfers.c.project == project, transfers.c.state == "posted", transfers.c.posted_nano > 0
            )
        ).all()
    if not lines:
        return ()
    daily = all(_midnight(row.began) + DAY_SECONDS >= row.ended for row in lines)
    billed: dict[str, Decimal] = {}
    for row in lines:
        name = _name(row.began, daily)
        billed[name] = _plus(billed.get(name, Decimal(0)), Decimal(row.billed))
    metered: dict[str, int] = {}
    for row in spent:
        for name, nano in _spread(row.posted_nano, row.seconds, row.settled_at_ns / NANOSECONDS, daily):
            metered[name] = metered.get(name, 0) + nano
    return tuple(Period(name, Decimal(metered.get(name, 0)).scaleb(-9), cost) for name, cost in sorted(billed.items()))


def _spread(nano: int, seconds: float, ended: float, daily: bool) -> Iterable[tuple[str, int]]:
    """A charge's nano-units over the periods that its seconds lie in; the parts sum to the whole."""
    began = ended - seconds
    left, at = nano, began
    while left > 0:
        nxt = _next(at, daily)
        if nxt >= ended or seconds <= 0:
            yield _name(min(at, ended), daily), left
            return
        part = min(left, math.floor(nano * ((nxt - at) / seconds)))
        yield _name(at, daily), part
        left, at = left - part, nxt


def _midnight(instant: float) -> float:
    return math.floor(instant / DAY_SECONDS) * DAY_SECONDS


def _next(instant: float, daily: bool) -> float:
    """The beginning of the next period."""
    if daily:
        return _midnight(instant) + DAY_SECONDS
    first = utc(instant).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    later = first + timedelta(days=32)
    return datetime(later.year, later.month, 1, tzinfo=UTC).timestamp()


def _name(instant: float, daily: bool) -> str:
    return f"{utc(instant):%Y-%m-%d}" if daily else f"{utc(instant):%Y-%m}"


def _plus(one: Decimal, other: Decimal) -> Decimal:
    """An exact sum: amounts of a bill may have more digits than Decimal's usual 28."""
    with localcontext(prec=80):
        return one + other


def rounded(amount: Decimal) -> Decimal:
    """An amount of a bill to the ledger's unit."""
    with localcontext(prec=80):
        return amount.quantize(Decimal(1) / NANO, rounding=ROUND_HALF_EVEN)
