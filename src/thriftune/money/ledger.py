"""The ledger of a project: a budget, its allowances by phase, and transfers that are pending, then posted or voided.

Reserving is one conditional update of the budget's row inside a write transaction, so that two processes cannot spend
the same money. What a unit really took is posted in full, also beyond what was reserved: charges are never clamped.
Each posting writes its `charge` event in the same transaction, so that the events sum to the ledger.

Rows are always locked in one order (lease, budget, phases, transfers, events), so that two processes never wait for
each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, Select, bindparam, insert, select, update

from thriftune.clock import Clock
from thriftune.errors import BadInput, OutOfBudget
from thriftune.events import EventLog
from thriftune.faults import crash_point
from thriftune.money.alerts import Alerts
from thriftune.money.amounts import LARGEST_NANO, NANOSECONDS, from_nano, shown_money, to_nano, to_nanoseconds
from thriftune.money.fence import Fence, beat
from thriftune.store import Store, Transaction
from thriftune.store.tables import budgets, phases, transfers

UNALLOTTED = "unallotted"  # the part of the total that no phase's allowance holds
CATEGORIES = ("machine", "storage", "transfer", "tokens bought", "labels")

# The statements of every unit of work, built once: building one costs more than running it.
_LEFT = budgets.c.total_nano - budgets.c.spent_nano - budgets.c.reserved_nano
_ROOM = phases.c.allowance_nano - phases.c.spent_nano - phases.c.reserved_nano
_HOLD = (
    update(budgets)
    .where(budgets.c.project == bindparam("of"), bindparam("held") <= _LEFT)
    .values(reserved_nano=budgets.c.reserved_nano + bindparam("held"))
    .returning(_LEFT)
)
_COUNT_TO_BUDGET = (
    update(budgets)
    .where(budgets.c.project == bindparam("of"))
    .values(
        spent_nano=budgets.c.spent_nano + bindparam("spent"),
        reserved_nano=budgets.c.reserved_nano + bindparam("held"),
    )
    .returning(_LEFT)
)
_COUNT_TO_PHASE = (
    update(phases)
    .where(phases.c.project == bindparam("of"), phases.c.phase == bindparam("by"))
    .values(
        spent_nano=phases.c.spent_nano + bindparam("spent"),
        reserved_nano=phases.c.reserved_nano + bindparam("held"),
    )
    .returning(_ROOM)
)
_ALLOW = (
    update(phases)
    .where(phases.c.project == bindparam("of"), phases.c.phase == bindparam("by"))
    .values(allowance_nano=phases.c.allowance_nano + bindparam("change"))
)
_NEW_TRANSFER = insert(transfers).returning(transfers.c.id)
_SETTLED = ("state", "posted_nano", "seconds", "estimated", "settled_at_ns")
_SETTLE = (
    update(transfers)
    .where(transfers.c.id == bindparam("number"), transfers.c.state == "pending")
    .values({name: bindparam(f"new_{name}") for name in _SETTLED})
)


@dataclass(frozen=True)
class Reservation:
    """A pending transfer.

    Args:
        id: its number.
        phase, category, unit: what it pays for.
        upper_nano: what is held for it, in nano-units.
        fence: the lease under which it was made.
        until_ns: when a metered unit should have ended (ns since the epoch); None for what is not machine time.
        left_nano: what the budget had left, neither spent nor reserved, right after it.
    """

    id: int
    phase: str
    category: str
    unit: str
    upper_nano: int
    fence: Fence | None = None
    until_ns: int | None = None
    left_nano: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Transfer:
    """An entry of the ledger; `amount` is what was posted, `reserved` what was held, `at` when that was."""

    id: int
    attempt: int
    phase: str
    category: str
    unit: str
    state: str
    reserved: Decimal
    amount: Decimal
    seconds: float
    estimated: bool
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class PhaseBalance:
    """A phase's money: allowed, spent, and reserved by units at work."""

    allowance: Decimal
    spent: Decimal
    reserved: Decimal


@dataclass(frozen=True)
class Balance:
    """A project's money.

    Args:
        unallotted: the part of the total that no phase's allowance holds.
        deadline_at: seconds since the epoch, None where there is none.
        categories: allowances by kind of cost.
    """

    total: Decimal
    spent: Decimal
    reserved: Decimal
    currency: str
    unallotted: Decimal
    phases: dict[str, PhaseBalance]
    deadline_at: float | None
    categories: dict[str, Decimal] = field(default_factory=dict)

    @property
    def left(self) -> Decimal:
        """What is neither spent nor reserved; negative after a unit that took more than was left."""
        return self.total - self.spent - self.reserved


class Ledger:
    """Reserves and posts a project's money.

    Args:
        store: where it is kept; several processes may use it at once.
        clock: dates the transfers.
        project: the project's name.
        events: takes the `charge`, `budget.moved` and `budget.added` events.
    """

    def __init__(self, store: Store, clock: Clock, project: str, events: EventLog) -> None:
        self._store = store
        self.clock = clock
        self.project = project
        self.events = events
        self._alerts = Alerts(project, events)

    def open_budget(
        self,
        total: Decimal,
        currency: str,
        allowances: Mapping[str, Decimal],
        categories: Mapping[str, Decimal] | None = None,
    ) -> Balance:
        """Begin the budget, or take up the one that is there.

        Where the project file now says another total or other allowances than when it was last read, the difference
        is applied to what there is, and recorded; money already spent, moved or added stays so.

        Args:
            total: the whole budget.
            currency: such as USD.
            allowances: of each phase, in the order of the line; together at most the total.
            categories: of kinds of cost, whatever phase pays them; they are watched, and refuse nothing.

        Raises:
            BadInput: the allowances exceed the total, an amount cannot be held, or the currency was changed.
        """
        wanted = {phase: _nano(amount, f"budget.phases.{phase}") for phase, amount in allowances.items()}
        total_nano = _nano(total, "budget.total")
        if sum(wanted.values()) > total_nano:
            raise BadInput(
                "the phases' allowances are more than the total",
                "budget.phases",
                str(from_nano(sum(wanted.values()))),
                f"at most {total}",
                "lower an allowance or raise budget.total",
            )
        declared: dict[str, Any] = {"total": total_nano, "phases": wanted}
        if categories:
            declared["categories"] = {
                category: _nano(amount, f"budget.categories.{category}") for category, amount in categories.items()
            }
        with self._store.begin() as transaction:
            self._insert_budget(transaction, currency, declared)
            row = self._budget(transaction)
            if row.currency != currency:
                raise BadInput(
                    "a budget keeps its currency", "budget.currency", currency, row.currency, "name a new project"
                )
            elif json.loads(row.declared) != declared:
                self._redeclare(transaction, json.loads(row.declared), declared)
        return self.balance()

    def open_deadline(
        self, declared: timedelta | datetime | None, started_at: float, fixes: bool = True
    ) -> float | None:
        """The deadline as an absolute instant, fixed at the first run; a changed declaration is a recorded decision.

        Args:
            declared: a duration from the first run, an instant, or None for no deadline.
            started_at: when this run started, in seconds since the epoch.
            fixes: whether it is kept; a plan only asks what a run would fix.

        Returns:
            seconds since the epoch, or None.
        """
        if isinstance(declared, timedelta):
            written = f"{declared.total_seconds()} s"
        else:
            written = "none" if declared is None else declared.isoformat()
        with self._store.begin() as transaction:
            row = self._budget(transaction)
            if row.deadline_declared == written:
                return None if row.deadline_at is None else float(row.deadline_at)
            first = started_at if row.first_run_at is None else float(row.first_run_at)
            if isinstance(declared, timedelta):
                at: float | None = first + declared.total_seconds()
            else:
                at = None if declared is None else declared.timestamp()
            if not fixes:
                return at
            values = {"deadline_at": at, "deadline_declared": written, "first_run_at": first}
            transaction.execute(update(budgets).where(budgets.c.project == self.project).values(values))
            if row.deadline_declared is not None:
                because = f"the project file's deadline was changed from {row.deadline_declared} to {written}"
                self._decide(transaction, "deadline", at, because)
        return at

    def reserve(
        self,
        phase: str,
        category: str,
        upper_nano: int,
        unit: str,
        *,
        fence: Fence | None = None,
        until_ns: int | None = None,
        inside: Transaction | None = None,
    ) -> Reservation:
        """Hold money for a unit of work.

        Where the phase's allowance does not hold it but the total does, the missing amount moves from what other
        phases have not spent: unallotted money first, then earlier phases, then later ones from the far end of the
        line, in a recorded `budget.moved` of the same transaction.

        Args:
            phase: the phase that pays.
            category: what kind of cost, such as `machine`.
            upper_nano: the most that the unit can cost.
            unit: what it is, for people.
            fence: the lease under which the money will be spent.
            until_ns: when a metered unit should have ended, in ns since the epoch.
            inside: a transaction of the caller's.

        Raises:
            OutOfBudget: the total does not hold it; the message gives the numbers.
            LeaseLost: the machine's lease was taken over.
        """
        if upper_nano < 0:
            raise ValueError(f"an upper bound is not negative, got {upper_nano}")
        upper_nano = min(upper_nano, LARGEST_NANO)  # more than any budget: refused all the same
        with self._store.begin(inside) as transaction:
            self._check(transaction, fence)
            left = transaction.execute(_HOLD, {"of": self.project, "held": upper_nano}).scalar()
            if left is None:
                raise self._refusal(transaction, phase, unit, upper_nano)
            self._add_to_phase(transaction, phase, spent=0, held=upper_nano, because=f"reserved for {unit}")
            values = self._transfer(phase, category, unit, fence)
            values |= {"reserved_nano": upper_nano, "until_ns": until_ns}
            number = transaction.execute(_NEW_TRANSFER, values).scalar_one()
            transaction.after_commit.append(lambda: crash_point("ledger.reserved"))
        return Reservation(number, phase, category, unit, upper_nano, fence, until_ns, left)

    def post(
        self,
        reservation: Reservation,
        actual_nano: int,
        seconds: float,
        estimated: bool = False,
        *,
        inside: Transaction | None = None,
    ) -> int:
        """Settle a reservation at what the unit really cost, be it less or more than was reserved.

        Args:
            reservation: a pending one.
            actual_nano: what it cost.
            seconds: of machine time that this pays for.
            estimated: the cost is inferred, not measured.
            inside: a transaction of the caller's.

        Returns:
            what the budget has left, in nano-units.

        Raises:
            LeaseLost: the machine's lease was taken over; whoever did has settled the reservation.
            ValueError: the reservation is settled already.
        """
        if actual_nano < 0:
            raise ValueError(f"a charge is not negative, got {actual_nano}")
        with self._store.begin(inside) as transaction:
            left = self._settle(transaction, reservation, "posted", actual_nano, seconds, estimated)
            self._charged(transaction, reservation.id, reservation, actual_nano, seconds, estimated)
        return left

    def void(self, reservation: Reservation, *, inside: Transaction | None = None) -> int:
        """Give a reservation back unused.

        Returns:
            what the budget has left, in nano-units.

        Raises:
            LeaseLost, ValueError: as `post`.
        """
        with self._store.begin(inside) as transaction:
            return self._settle(transaction, reservation, "voided", 0, 0.0, False)

    def charge(
        self,
        phase: str,
        category: str,
        amount_nano: int,
        unit: str,
        seconds: float,
        estimated: bool = False,
        *,
        fence: Fence | None = None,
        inside: Transaction | None = None,
    ) -> int:
        """Post what was spent without a reservation, such as starting up and exiting.

        Returns:
            what the budget has left, in nano-units.

        Raises:
            LeaseLost: the machine's lease was taken over.
        """
        if amount_nano < 0:
            raise ValueError(f"a charge is not negative, got {amount_nano}")
        with self._store.begin(inside) as transaction:
            self._check(transaction, fence)
            left = self._add_to_budget(transaction, spent=amount_nano, held=0)
            self._add_to_phase(transaction, phase, spent=amount_nano, held=0, because=f"spent on {unit}")
            values = self._transfer(phase, category, unit, fence)
            values |= {"state": "posted", "posted_nano": amount_nano, "seconds": seconds, "estimated": estimated}
            values["settled_at_ns"] = values["reserved_at_ns"]
            number = transaction.execute(_NEW_TRANSFER, values).scalar_one()
            entry = Reservation(number, phase, category, unit, 0)
            self._charged(transaction, number, entry, amount_nano, seconds, estimated)
        return left

    def add(self, amount: Decimal, reason: str) -> Balance:
        """Raise the total by a recorded decision; the money is unallotted until a phase needs it.

        Raises:
            BadInput: the amount is not above zero, or cannot be held.
        """
        nano = _nano(amount, "amount")
        if nano <= 0:
            raise BadInput("money is added in amounts above zero", "amount", str(amount), "above 0", "name an amount")
        with self._store.begin() as transaction:
            total = self._budget(transaction).total_nano + nano
            _nano(from_nano(total), "budget.total")
            self._set_total(transaction, total)
            self._cover_overspent(transaction)
            self.events.emit("budget.added", inside=transaction, amount=str(amount), reason=reason)
        return self.balance()

    def move(self, source: str, target: str, amount: Decimal, reason: str) -> Balance:
        """Move an unspent allowance from one phase (or `unallotted`) to another by a recorded decision.

        Raises:
            BadInput: the source does not have that much unspent, or there is no such phase.
        """
        nano = _nano(amount, "amount")
        with self._store.begin() as transaction:
            free = self._free(transaction)
            if source not in free or target not in free:
                unknown = source if source not in free else target
                raise BadInput("there is no such phase", "phase", unknown, ", ".join(free), "name one of these")
            if not 0 < nano <= free[source]:
                raise BadInput(
                    "this amount cannot be moved",
                    source,
                    str(amount),
                    f"above 0 and at most {from_nano(max(0, free[source]))}, which is unspent there",
                    "move less, or add to the budget",
                )
            self._move(transaction, source, target, nano, reason)
        return self.balance()

    def balance(self) -> Balance:
        """What is allowed, spent, reserved and left, of one consistent moment.

        Raises:
            BadInput: the project has no budget yet.
        """
        with self._store.read() as connection:
            row = connection.execute(select(budgets).where(budgets.c.project == self.project)).one_or_none()
            by_phase = connection.execute(self._phases()).all()
        if row is None:
            raise self._no_budget()
        return Balance(
            total=from_nano(row.total_nano),
            spent=from_nano(row.spent_nano),
            reserved=from_nano(row.reserved_nano),
            currency=row.currency,
            unallotted=from_nano(max(0, row.total_nano - sum(phase.allowance_nano for phase in by_phase))),
            phases={
                phase.phase: PhaseBalance(
                    from_nano(phase.allowance_nano), from_nano(phase.spent_nano), from_nano(phase.reserved_nano)
                )
                for phase in by_phase
            },
            deadline_at=row.deadline_at,
            categories={name: from_nano(nano) for name, nano in json.loads(row.declared).get("categories", {}).items()},
        )

    def transfers(self) -> list[Transfer]:
        """Every transfer of the project, in the order of reserving."""
        query = select(transfers).where(transfers.c.project == self.project).order_by(transfers.c.id)
        with self._store.read() as connection:
            return [
                Transfer(
                    id=row.id,
                    attempt=row.attempt,
                    phase=row.phase,
                    category=row.category,
                    unit=row.unit,
                    state=row.state,
                    reserved=from_nano(row.reserved_nano),
                    amount=from_nano(row.posted_nano),
                    seconds=row.seconds,
                    estimated=row.estimated,
                    at=(row.settled_at_ns or row.reserved_at_ns) / NANOSECONDS,
                )
                for row in connection.execute(query)
            ]

    def pending(self, machine: str, inside: Transaction) -> list[Reservation]:
        """The reservations that are open under a machine's lease, oldest first."""
        mine = transfers.c.project == self.project, transfers.c.machine == machine, transfers.c.state == "pending"
        return [
            Reservation(
                row.id, row.phase, row.category, row.unit, row.reserved_nano, Fence(machine, row.fence), row.until_ns
            )
            for row in inside.execute(select(transfers).where(*mine).order_by(transfers.c.id))
        ]

    def unfenced(self, category: str) -> list[Reservation]:
        """The open reservations of a kind of cost that no machine's lease stands behind, oldest first."""
        which = (
            transfers.c.project == self.project,
            transfers.c.category == category,
            transfers.c.machine.is_(None),
            transfers.c.state == "pending",
        )
        with self._store.read() as connection:
            rows = connection.execute(select(transfers).where(*which).order_by(transfers.c.id)).all()
        return [Reservation(row.id, row.phase, row.category, row.unit, row.reserved_nano) for row in rows]

    def last_phase(self, inside: Transaction) -> str:
        """The phase of the newest transfer; the first of the line before any."""
        newest = select(transfers.c.phase).where(transfers.c.project == self.project).order_by(transfers.c.id.desc())
        phase = inside.execute(newest.limit(1)).scalar()
        return str(phase or inside.execute(self._phases()).first().phase)  # type: ignore[union-attr]

    # ---- inside a transaction ----

    def _check(self, transaction: Transaction, fence: Fence | None) -> None:
        if fence is not None:
            beat(transaction, fence, self.clock)

    def _settle(
        self,
        transaction: Transaction,
        reservation: Reservation,
        state: str,
        actual_nano: int,
        seconds: float,
        estimated: bool,
    ) -> int:
        """Take a reservation out of what is held, and put what it cost into what is spent."""
        self._check(transaction, reservation.fence)
        held = -reservation.upper_nano
        left = self._add_to_budget(transaction, spent=actual_nano, held=held)
        because = f"{reservation.unit} took more than was reserved"
        self._add_to_phase(transaction, reservation.phase, spent=actual_nano, held=held, because=because)
        values = {
            "number": reservation.id,
            "new_state": state,
            "new_posted_nano": actual_nano,
            "new_seconds": seconds,
            "new_estimated": estimated,
            "new_settled_at_ns": to_nanoseconds(self.clock.now()),
        }
        settled = transaction.execute(_SETTLE, values)
        if settled.rowcount == 0:
            raise ValueError(f"transfer {reservation.id} ({reservation.unit}) is settled already")
        return left

    def _charged(
        self,
        transaction: Transaction,
        number: int,
        entry: Reservation,
        amount_nano: int,
        seconds: float,
        estimated: bool,
    ) -> None:
        self.events.emit(
            "charge",
            inside=transaction,
            transfer=number,
            phase=entry.phase,
            category=entry.category,
            unit=entry.unit,
            amount=f"{from_nano(amount_nano):f}",
            seconds=seconds,
            estimated=estimated,
        )
        self._alerts.look(transaction, entry.phase, entry.category, amount_nano)
        transaction.after_commit.append(lambda: crash_point("ledger.posted"))

    def _add_to_budget(self, transaction: Transaction, spent: int, held: int) -> int:
        left = transaction.execute(_COUNT_TO_BUDGET, {"of": self.project, "spent": spent, "held": held}).scalar()
        if left is None:
            raise self._no_budget()
        return int(left)

    def _add_to_phase(self, transaction: Transaction, phase: str, spent: int, held: int, because: str) -> None:
        """Count money to a phase; what its allowance does not hold is taken from others, as far as they have it."""
        values = {"of": self.project, "by": phase, "spent": spent, "held": held}
        room = transaction.execute(_COUNT_TO_PHASE, values).scalar()
        if room is None:
            raise ValueError(f"the budget of {self.project} has no phase {phase!r}")
        if room < 0:
            self._cover(transaction, phase, -room, because)

    def _cover(self, transaction: Transaction, target: str, missing: int, because: str) -> None:
        """Move unspent money to a phase: unallotted first, then of earlier phases, then of later, the last first."""
        free = self._free(transaction)
        line = [phase for phase in free if phase != UNALLOTTED]
        place = line.index(target)
        for source in [UNALLOTTED, *line[:place], *reversed(line[place + 1 :])]:
            taken = min(missing, free[source])
            if taken > 0:
                self._move(transaction, source, target, taken, because)
                missing -= taken

    def _cover_overspent(self, transaction: Transaction) -> None:
        """Give phases that spent more than they were allowed what is now there."""
        for phase, unspent in self._free(transaction).items():
            if phase != UNALLOTTED and unspent < 0:
                self._cover(transaction, phase, -unspent, f"{phase} had spent more than its allowance")

    def _free(self, transaction: Transaction) -> dict[str, int]:
        """What each phase has unspent, in the order of the line, and what is unallotted."""
        total = self._budget(transaction).total_nano
        rows = transaction.execute(self._phases()).all()
        free = {row.phase: row.allowance_nano - row.spent_nano - row.reserved_nano for row in rows}
        return free | {UNALLOTTED: total - sum(row.allowance_nano for row in rows)}

    def _move(self, transaction: Transaction, source: str, target: str, nano: int, reason: str) -> None:
        for phase, change in ((source, -nano), (target, nano)):
            if phase != UNALLOTTED:
                transaction.execute(_ALLOW, {"of": self.project, "by": phase, "change": change})
        amount = f"{from_nano(nano):f}"
        self.events.emit("budget.moved", inside=transaction, source=source, target=target, amount=amount, reason=reason)

    def _insert_budget(self, transaction: Transaction, currency: str, declared: dict[str, Any]) -> None:
        """Begin the budget unless it is there, or another process is beginning it."""
        values = {
            "project": self.project,
            "currency": currency,
            "total_nano": declared["total"],
            "spent_nano": 0,
            "reserved_nano": 0,
            "declared": json.dumps(declared),
        }
        if transaction.insert_if_missing(budgets, values):
            for place, (phase, nano) in enumerate(declared["phases"].items()):
                self._insert_phase(transaction, place, phase, nano)

    def _insert_phase(self, transaction: Transaction, place: int, phase: str, allowance_nano: int) -> None:
        values = {"phase": phase, "place": place, "allowance_nano": allowance_nano, "spent_nano": 0, "reserved_nano": 0}
        transaction.execute(insert(phases).values(values | {"project": self.project}))

    def _redeclare(self, transaction: Transaction, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Apply what changed in the project file to what there is, and record it."""
        there = {row.phase: row for row in transaction.execute(self._phases())}
        for place, phase in enumerate(after["phases"]):
            if phase not in there:
                self._insert_phase(transaction, len(there) + place, phase, 0)
        total = self._budget(transaction).total_nano + after["total"] - before["total"]
        committed = {phase: row.spent_nano + row.reserved_nano for phase, row in there.items()}
        allowed = {
            phase: max(
                committed.get(phase, 0),
                (there[phase].allowance_nano if phase in there else 0)
                + after["phases"].get(phase, 0)
                - before["phases"].get(phase, 0),
            )
            for phase in [*there, *(phase for phase in after["phases"] if phase not in there)]
        }
        excess = sum(allowed.values()) - total
        for phase in reversed(allowed):  # a lowered total is taken from what the end of the line has not spent
            cut = min(max(0, excess), allowed[phase] - committed.get(phase, 0))
            allowed[phase] -= cut
            excess -= cut
        self._set_total(transaction, total, declared=json.dumps(after))
        for phase, nano in allowed.items():
            which = phases.c.project == self.project, phases.c.phase == phase
            transaction.execute(update(phases).where(*which).values(allowance_nano=nano))
        self._cover_overspent(transaction)
        if after["total"] != before["total"]:
            was, now = from_nano(before["total"]), from_nano(after["total"])
            reason = f"the project file's total was changed from {was:f} to {now:f}"
            self.events.emit("budget.added", inside=transaction, amount=f"{now - was:f}", reason=reason)
        chosen = {phase: f"{from_nano(nano):f}" for phase, nano in allowed.items()}
        self._decide(transaction, "allowances", chosen, "the project file's budget was changed")

    def _set_total(self, transaction: Transaction, total_nano: int, **more: Any) -> None:
        which = budgets.c.project == self.project
        transaction.execute(update(budgets).where(which).values(total_nano=total_nano, **more))

    def _decide(self, transaction: Transaction, what: str, chosen: Any, because: str) -> None:
        self.events.emit("decision", inside=transaction, at_step=0, what=what, chosen=chosen, because=because)

    def _transfer(self, phase: str, category: str, unit: str, fence: Fence | None) -> dict[str, Any]:
        """The columns of a new transfer that holds and posts nothing yet."""
        return {
            "project": self.project,
            "attempt": self.events.attempt,
            "phase": phase,
            "category": category,
            "unit": unit,
            "state": "pending",
            "reserved_nano": 0,
            "posted_nano": 0,
            "seconds": 0.0,
            "estimated": False,
            "machine": fence.machine if fence else None,
            "fence": fence.number if fence else None,
            "until_ns": None,
            "settled_at_ns": None,
            "reserved_at_ns": to_nanoseconds(self.clock.now()),
        }

    def _phases(self) -> Select[Any]:
        return select(phases).where(phases.c.project == self.project).order_by(phases.c.place)

    def _locked_budget(self) -> Select[Any]:
        return select(budgets).where(budgets.c.project == self.project).with_for_update()

    def _budget(self, transaction: Transaction) -> Row[Any]:
        row = transaction.execute(self._locked_budget()).one_or_none()
        if row is None:
            raise self._no_budget()
        return row

    def _no_budget(self) -> BadInput:
        return BadInput(
            "the project has no budget yet", self.project, "no run", "a run that began", "run it first: thriftune run"
        )

    def _refusal(self, transaction: Transaction, phase: str, unit: str, upper_nano: int) -> OutOfBudget:
        row = self._budget(transaction)
        needed, total, spent, reserved = (
            shown_money(from_nano(nano), row.currency)
            for nano in (upper_nano, row.total_nano, row.spent_nano, row.reserved_nano)
        )
        left = shown_money(from_nano(max(0, row.total_nano - row.spent_nano - row.reserved_nano)), row.currency)
        return OutOfBudget(
            f"the budget does not hold {unit}",
            phase,
            f"{left} left of {total} ({spent} spent, {reserved} reserved)",
            f"{needed}, the most it can cost",
            "add money: thriftune budget add AMOUNT",
        )


def _nano(amount: Decimal, where: str) -> int:
    try:
        return to_nano(amount)
    except ValueError as error:
        raise BadInput(
            "this amount of money cannot be held", where, str(amount), str(error), "give it with fewer digits"
        ) from None
