"""Reading a project's record from the database, for the report and the commands that show it."""

from __future__ import annotations

from sqlalchemy import select

from thriftune.clock import SystemClock
from thriftune.events import Event, EventLog
from thriftune.money.bills import compared
from thriftune.money.ledger import Balance, Ledger
from thriftune.report.build import build, ending, no_such_attempt
from thriftune.report.model import ProjectSummary, Report
from thriftune.store import Store
from thriftune.store.tables import budgets


def load_report(store: Store, project: ProjectSummary, attempt: int | None = None) -> Report:
    """The report of an attempt, the latest by default, from what the database holds.

    Raises:
        BadInput: the project has no attempt, or not this one.
    """
    events = read_events(store, project.name)
    latest = max((event.attempt for event in events), default=0)
    wanted = latest if attempt is None else attempt
    own = [event for event in events if event.attempt == wanted]
    if not own:
        raise no_such_attempt(wanted, events)
    # While a run is at work the ledger, read a moment later, is ahead of the events: they are compared at its end.
    ended = wanted == latest and ending(own) is not None
    balance = read_balance(store, project.name) if wanted == latest else None
    return build(project, wanted, events, balance, ended, compared(store, project.name))


def read_events(store: Store, project: str) -> list[Event]:
    """All events of a project, in their order."""
    return reader(store, project).read()


def read_balance(store: Store, project: str) -> Balance | None:
    """What the ledger says now; None for a project whose budget was never opened."""
    with store.read() as connection:
        opened = connection.execute(select(budgets.c.project).where(budgets.c.project == project)).one_or_none()
    if opened is None:
        return None
    return Ledger(store, SystemClock(), project, reader(store, project)).balance()


def reader(store: Store, project: str) -> EventLog:
    """A project's event log, to read from only."""
    return EventLog(store, SystemClock(), project, attempt=0)
