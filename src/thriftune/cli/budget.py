"""`thriftune budget`: more money, what was spent by hand, bills of a provider, and the account as a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from thriftune.money.ledger import Ledger
    from thriftune.project import Project
    from thriftune.store import Store

PROJECT_OPTION = Annotated[Path, typer.Option("--project", help="The project file.")]


@dataclass(frozen=True)
class Books:
    """A project's ledger, opened beside its runs."""

    project: Project
    store: Store
    ledger: Ledger

    @property
    def name(self) -> str:
        """The project's name."""
        return self.project.file.name

    def left_said(self) -> str:
        """What is left, in one line."""
        from thriftune.money.amounts import shown_money

        balance = self.ledger.balance()
        left, total = (shown_money(amount, balance.currency) for amount in (balance.left, balance.total))
        return f"{self.name}: {left} of {total} left"


def add(
    amount: Annotated[str, typer.Argument(help="How much more, such as 2.50, in the budget's currency.")],
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    reason: Annotated[str, typer.Option(help="Why; it is kept with the decision.")] = "added by the user",
) -> None:
    """Add money to the budget; what is done stays done, and the next run may use it."""
    with _opened(project) as books:
        books.ledger.add(_amount(amount), reason)
        print(books.left_said())


def spend(
    amount: Annotated[str, typer.Argument(help="How much was paid, such as 12.00, in the budget's currency.")],
    on: Annotated[str, typer.Option("--on", help="The kind of cost: storage, transfer, labels, tokens or machine.")],
    phase: Annotated[str, typer.Option(help="The phase that pays.")] = "collection",
    what: Annotated[str, typer.Option(help="What was bought, such as '200 labels'.")] = "paid by hand",
    project: PROJECT_OPTION = Path("thriftune.yaml"),
) -> None:
    """Charge what was paid outside of a run: labels, storage, transfer; it counts in full, as every charge does."""
    from thriftune.errors import BadInput
    from thriftune.money.amounts import to_nano
    from thriftune.money.ledger import CATEGORIES

    category = next((known for known in CATEGORIES if known.split()[0] == on), None)
    with _opened(project) as books:
        phases = list(books.ledger.balance().phases)
        for where, value, known in (("--on", category, [c.split()[0] for c in CATEGORIES]), ("--phase", phase, phases)):
            if value is None or (where == "--phase" and value not in known):
                found = on if where == "--on" else phase
                raise BadInput(
                    "there is no such kind of cost" if where == "--on" else "there is no such phase",
                    where,
                    found,
                    " or ".join(known),
                    "name one of these",
                )
        paid = _amount(amount)
        try:
            nano = to_nano(paid)
        except ValueError as error:
            raise BadInput("this is no amount", "AMOUNT", amount, str(error), "give one, such as 12.00") from None
        books.ledger.charge(phase, str(category), nano, what, 0.0)
        print(books.left_said())


def import_bill(
    bill: Annotated[Path, typer.Argument(help="A bill in the FOCUS format, CSV.")],
    resource: Annotated[list[str] | None, typer.Option(help="Only charges of this ResourceId; repeatable.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="Only charges of this ServiceName; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only charges with this tag, KEY=VALUE; repeatable.")] = None,
    project: PROJECT_OPTION = Path("thriftune.yaml"),
) -> None:
    """Take in a provider's bill; the report holds it against what was metered. The same bill twice counts once."""
    from thriftune.money import bills
    from thriftune.money.amounts import shown_money
    from thriftune.money.focus import read_bill

    lines = read_bill(bill)
    wanted = bills.Wanted(tuple(resource or ()), tuple(service or ()), dict(map(_tag, tag or ())))
    with _opened(project) as books:
        currency = books.ledger.balance().currency
        attempt = books.ledger.events.attempt
        found = bills.keep(books.store, books.ledger.clock, books.name, attempt, currency, lines, wanted)
        print(
            f"{books.name}: {found.new} charges are new, {found.revised} have another cost than before, {found.known}"
            f" were there already, {found.left_out} are not the project's"
        )
        for period in bills.compared(books.store, books.name):
            metered, billed, more = (
                shown_money(bills.rounded(each), currency)
                for each in (period.metered, period.billed, period.difference)
            )
            print(f"  {period.name}  metered {metered}  billed {billed}  difference {more}")


def export(
    file: Annotated[Path, typer.Argument(help="Where to write: a name that ends in .xlsx or .csv.")],
    project: PROJECT_OPTION = Path("thriftune.yaml"),
) -> None:
    """Write the whole account in double entry, its sums as formulas."""
    from thriftune.money import bills, spreadsheet
    from thriftune.money.account import entries

    with _opened(project) as books:
        ledger = books.ledger
        balance = ledger.balance()
        found = entries(balance, ledger.transfers(), ledger.events.read(kinds=["budget.added", "budget.moved"]))
        periods = bills.compared(books.store, books.name)
        spreadsheet.write(spreadsheet.Account(books.name, balance.currency, found, periods), file)
    print(f"{file}: {len(found)} entries")


@contextmanager
def _opened(path: Path) -> Iterator[Books]:
    """The books of a project that was run.

    Raises:
        BadInput: it never was.
    """
    from thriftune.budget.alerts import notified
    from thriftune.cli.records import load_project, opened
    from thriftune.clock import SystemClock
    from thriftune.errors import BadInput
    from thriftune.events import EventLog, latest_attempt
    from thriftune.money.ledger import Ledger

    loaded = load_project(path)
    name = loaded.file.name
    with opened(loaded) as store:
        last = None if store is None else latest_attempt(store, name)
        if store is None or last is None:
            raise BadInput(
                "the project has no budget yet",
                str(path),
                "a project that was never run",
                "a project that was run",
                "set budget.total in the project file",
            )
        clock = SystemClock()
        events = EventLog(store, clock, name, last.attempt)
        notifier = notified(events, loaded.file.budget.notify)
        yield Books(loaded, store, Ledger(store, clock, name, events))
        if notifier is not None:
            notifier.finish()


def _amount(text: str) -> Decimal:
    from thriftune.errors import BadInput
    from thriftune.options import parse_amount

    try:
        return parse_amount(text)
    except ValueError as error:
        raise BadInput("this is no amount", "AMOUNT", text, str(error), "give one, such as 2.50") from None


def _tag(text: str) -> tuple[str, str]:
    from thriftune.errors import BadInput

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput("this is no tag", "--tag", text, "KEY=VALUE", "give one, such as project=films")
    return key, value
