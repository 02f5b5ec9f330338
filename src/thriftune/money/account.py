"""The whole account of a project in double entry: each entry takes an amount from one account and gives it to another.

Accounts are `funding` (where the budget comes from), `budget: PHASE` (what a phase may still spend), `spent: PHASE:
CATEGORY` and `reserved: PHASE`. The balance of `budget: PHASE` is its allowance less what it spent and reserved, as the
ledger has it; all debits are all credits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from thriftune.events import Event
from thriftune.money.ledger import UNALLOTTED, Balance, Transfer

FUNDING = "funding"


@dataclass(frozen=True)
class Entry:
    """An amount that goes from one account to another.

    Args:
        at: seconds since the epoch; None for what the project file stated.
        attempt: that it belongs to; 0 for none.
        what: what it is, for people.
        debit: the account that it goes to.
        credit: the account that it comes from.
        amount: in the budget's currency, above zero.
        seconds: of machine time that it pays for.
        estimated: the amount was inferred, not measured.
    """

    at: float | None
    attempt: int
    what: str
    debit: str
    credit: str
    amount: Decimal
    seconds: float = 0.0
    estimated: bool = False


def entries(balance: Balance, transfers: Sequence[Transfer], events: Sequence[Event]) -> list[Entry]:
    """The account's entries, in the order of time.

    Args:
        balance: what the ledger says.
        transfers: all of the project.
        events: of the kinds `budget.added` and `budget.moved`, in order.
    """
    opened = [entry for entry in _opening(balance, events) if entry.amount != 0]
    dated = [*_decided(events), *(_paid(transfer) for transfer in transfers if _counts(transfer))]
    return [*opened, *sorted(dated, key=lambda entry: entry.at or 0.0)]


def balances(found: Sequence[Entry]) -> dict[str, Decimal]:
    """Debits less credits of each account; they sum to zero."""
    sums: dict[str, Decimal] = {}
    for entry in found:
        sums[entry.debit] = sums.get(entry.debit, Decimal(0)) + entry.amount
        sums[entry.credit] = sums.get(entry.credit, Decimal(0)) - entry.amount
    return sums


def budget_account(phase: str) -> str:
    """The account of what a phase may still spend."""
    return f"budget: {phase}"


def _opening(balance: Balance, events: Sequence[Event]) -> Iterator[Entry]:
    """The budget that the project file states, and what it allots: what is there now less what was decided since."""
    added, moved = Decimal(0), dict.fromkeys([*balance.phases, UNALLOTTED], Decimal(0))
    for event in events:
        amount = Decimal(event.data["amount"])
        if event.kind == "budget.added":
            added += amount
        else:
            moved[event.data["source"]] -= amount
            moved[event.data["target"]] += amount
    unallotted = budget_account(UNALLOTTED)
    yield _entry("the project file's budget", unallotted, FUNDING, balance.total - added)
    for phase, of_phase in balance.phases.items():
        allotted = of_phase.allowance - moved[phase]
        yield _entry("allotted by the project file", budget_account(phase), unallotted, allotted)


def _entry(what: str, debit: str, credit: str, amount: Decimal) -> Entry:
    """An undated entry; a negative amount goes the other way."""
    return Entry(None, 0, what, debit, credit, amount) if amount >= 0 else Entry(None, 0, what, credit, debit, -amount)


def _decided(events: Sequence[Event]) -> Iterator[Entry]:
    for event in events:
        data, amount = event.data, Decimal(event.data["amount"])
        to = budget_account(data.get("target", UNALLOTTED))
        source = budget_account(data["source"]) if event.kind == "budget.moved" else FUNDING
        if amount < 0:  # a lowered total
            to, source, amount = source, to, -amount
        if amount:
            yield Entry(event.at, event.attempt, data["reason"], to, source, amount)


def _counts(transfer: Transfer) -> bool:
    return (transfer.state == "posted" and transfer.amount != 0) or (
        transfer.state == "pending" and transfer.reserved != 0
    )


def _paid(transfer: Transfer) -> Entry:
    posted = transfer.state == "posted"
    return Entry(
        at=transfer.at,
        attempt=transfer.attempt,
        what=transfer.unit,
        debit=f"spent: {transfer.phase}: {transfer.category}" if posted else f"reserved: {transfer.phase}",
        credit=budget_account(transfer.phase),
        amount=transfer.amount if posted else transfer.reserved,
        seconds=transfer.seconds,
        estimated=transfer.estimated,
    )
