"""Alerts: each level of an allowance, or of the total, is told of once, in the transaction that spends it."""

from __future__ import annotations

import json

from sqlalchemy import bindparam, func, select

from thriftune.events import EventLog
from thriftune.money.amounts import from_nano
from thriftune.store import Transaction
from thriftune.store.tables import budgets, phases, transfers
from thriftune.store.tables import events as events_table

LEVELS = (50, 80, 100)  # per cent of an allowance, or of the total, that are told of when they are spent

# The statements of every unit of work, built once: building one costs more than running it.
_STANDING = select(
    budgets.c.currency,
    budgets.c.declared,
    budgets.c.total_nano,
    budgets.c.spent_nano,
    phases.c.allowance_nano,
    phases.c.spent_nano.label("phase_spent_nano"),
).where(budgets.c.project == bindparam("of"), phases.c.project == budgets.c.project, phases.c.phase == bindparam("by"))
_SPENT_ON = select(func.coalesce(func.sum(transfers.c.posted_nano), 0)).where(
    transfers.c.project == bindparam("of"), transfers.c.category == bindparam("on"), transfers.c.state == "posted"
)
_ALERTS = select(events_table.c.data).where(events_table.c.project == bindparam("of"), events_table.c.kind == "alert")

Alerted = tuple[str, str, int, int]
"""What an alert is known by: `total`, `phase` or `category`; which; the level; of the total also its amount in
nano-units, since money that is added begins a new account of it."""


class Alerts:
    """Looks at a project's allowances whenever money was spent.

    Args:
        project: the project's name.
        events: takes the `alert` events.
    """

    def __init__(self, project: str, events: EventLog) -> None:
        self._project = project
        self._events = events
        self._known: set[Alerted] = set()  # that are recorded, as far as this process knows
        self._spent_on: dict[str, int] = {}  # by category that has an allowance, as far as this process knows

    def look(self, transaction: Transaction, phase: str, category: str, amount_nano: int) -> None:
        """Record, once, each level of an allowance or of the total that is spent now."""
        now = transaction.execute(_STANDING, {"of": self._project, "by": phase}).one()
        accounts = [
            ("total", "", now.spent_nano, now.total_nano, now.total_nano),
            ("phase", phase, now.phase_spent_nano, now.allowance_nano, 0),
        ]
        allowance = json.loads(now.declared).get("categories", {}).get(category)
        if allowance is not None:
            accounts.append(("category", category, self._spent(transaction, category, amount_nano), allowance, 0))
        for scope, name, spent, allowed, account in accounts:
            for level in LEVELS:
                key = (scope, name, level, account)
                if spent <= 0 or 100 * spent < level * allowed or key in self._known:
                    continue
                if key not in self._recorded(transaction):
                    self._events.emit(
                        "alert",
                        inside=transaction,
                        scope=scope,
                        name=name,
                        level=level,
                        account=account,
                        spent=f"{from_nano(spent):f}",
                        allowance=f"{from_nano(allowed):f}",
                        currency=now.currency,
                    )
                transaction.after_commit.append(lambda key=key: self._known.add(key))  # type: ignore[misc]

    def _spent(self, transaction: Transaction, category: str, amount_nano: int) -> int:
        """What a category has cost, the transfer of this transaction included."""
        before = self._spent_on.get(category)
        if before is None:
            spent = int(transaction.execute(_SPENT_ON, {"of": self._project, "on": category}).scalar_one())
        else:
            spent = before + amount_nano
        transaction.after_commit.append(lambda: self._spent_on.update({category: spent}))
        return spent

    def _recorded(self, transaction: Transaction) -> set[Alerted]:
        found = (json.loads(data) for data in transaction.execute(_ALERTS, {"of": self._project}).scalars())
        return {(data["scope"], data["name"], data["level"], data["account"]) for data in found}
