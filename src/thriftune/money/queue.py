"""The queue for a machine and for a cluster: who works, who waits, and who is next, by priority and deadline.

One table a machine's users share: the database that several machines share, or else a file in the user's folder. Who
needs a cluster's nodes besides its machine takes both at once or neither, so that none waits with one of them in hand
and nobody waits in a circle. The order is the level first (the stated priority, and one more for each hour waited, so
that nobody starves), then the least slack (time to the deadline minus the forecast to completion: least laxity first;
Mok, 1983). A process that is gone has no place: whoever looks removes its ticket. The queue only says whose turn it is;
that two never hold a machine at once is the lock's and the lease's work (`leases`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, or_, select, update

from thriftune.clock import Clock
from thriftune.errors import LeaseHeld
from thriftune.events import Event
from thriftune.money.prices import thriftune_home
from thriftune.processes import Life, ProcessName, machine_id, this_process
from thriftune.store import Store, Transaction
from thriftune.store.tables import queue as table

AGEING_SECONDS = 3600.0  # of waiting that raise a ticket by one level
SWITCH_SECONDS = 30.0  # that stopping at a checkpoint and going on from there may take
LOOK_SECONDS = 1.0  # between two looks of the one at work for somebody more urgent
SIGN_SECONDS = 10.0  # between two signs of life
GONE_SECONDS = 60.0  # without one, a process that cannot be seen from here (another container) has left
QUEUE_FILE = "queue.db"


@dataclass(frozen=True)
class Ticket:
    """A project's place on a machine, and on the cluster whose nodes it needs.

    Args:
        machine: which it works on or waits for.
        cluster: the cluster that it works on or waits for besides, by its head's address; None without one.
        project: its name.
        folder: its state folder, which tells projects of one name apart.
        owner: the process.
        priority: as the project file states it; more is more urgent.
        deadline_at: seconds since the epoch; None without one, or not known yet.
        needs_s: seconds of work to its end, as it was foretold at `needs_at`.
        joined_at: when it came first.
        waited_s: seconds waited before `since`.
        since: when it began to wait, or to work.
        working: whether it has the machine.
    """

    machine: str
    cluster: str | None
    project: str
    folder: str
    owner: ProcessName
    priority: int
    deadline_at: float | None
    needs_s: float
    needs_at: float
    joined_at: float
    waited_s: float
    since: float
    working: bool

    def waited(self, now: float) -> float:
        """Seconds that it has waited, all together."""
        return self.waited_s + (0.0 if self.working else max(0.0, now - self.since))

    def level(self, now: float) -> int:
        """Its priority with its age. The one at work keeps the level that it had reached by waiting."""
        return self.priority + int(self.waited(now) / AGEING_SECONDS)

    def remaining(self, now: float) -> float:
        """The forecast to completion, seconds of work."""
        return max(0.0, self.needs_s - (now - self.needs_at)) if self.working else self.needs_s

    def slack(self, now: float) -> float:
        """Seconds that it could still wait and be done by its deadline; negative when it cannot, infinite without."""
        return math.inf if self.deadline_at is None else self.deadline_at - now - self.remaining(now)

    def urgency(self, now: float) -> tuple[float, ...]:
        """What the waiting are ordered by, the most urgent first."""
        return (-self.level(now), self.slack(now), self.joined_at, self.owner.pid)


def more_urgent(at_work: Ticket, waiting: Sequence[Ticket], now: float) -> Ticket | None:
    """The first of the waiting that the one at work makes room for, if there is one.

    That is one whose stated priority is above the level of the one at work; or, from the same level on, one that would
    miss its deadline by waiting for the end of the one at work, which can itself afford to wait. Age alone takes
    nobody's place away: it brings forward who is next, so that two projects never hand a machine to and fro.
    """
    for ticket in sorted(waiting, key=lambda one: one.urgency(now)):
        if ticket.priority > at_work.level(now):
            return ticket
        late = ticket.slack(now) < at_work.remaining(now)
        can_wait = at_work.slack(now) >= ticket.remaining(now) + SWITCH_SECONDS
        if ticket.level(now) >= at_work.level(now) and late and can_wait:
            return ticket
    return None


def queue_url(database: str | None) -> str:
    """Where the queue is kept: the database that machines share, or a file in the user's folder.

    Args:
        database: the URL of the shared one, if there is one.
    """
    return database or f"sqlite:///{(thriftune_home() / QUEUE_FILE).absolute()}"


def tickets(store: Store, now: float, sharing: Ticket | None = None) -> list[Ticket]:
    """Those whose processes live: of each machine the one at work first, then the waiting, most urgent first.

    Args:
        store: where the queue is kept.
        now: seconds since the epoch.
        sharing: only those that need the machine or the cluster that this one needs.
    """
    query = select(table) if sharing is None else select(table).where(_shares(sharing))
    with store.read() as connection:
        rows = connection.execute(query).all()
    there = [_ticket(row) for row in rows if not _is_gone(row, now)]
    return sorted(there, key=lambda one: (one.machine, not one.working, one.urgency(now)))


@dataclass
class Turn:
    """A process's ticket in its own hands.

    Args:
        store: where the queue is kept.
        clock: the one source of time.
        ticket: as it was written last.
        since: from when the machine is to be paid for, once it was waited for; None from the process's start.
        yields_to: who is to have the machine instead, once somebody is.
    """

    store: Store
    clock: Clock
    ticket: Ticket
    since: float | None = None
    yields_to: Ticket | None = None
    _waited: bool = field(default=False, init=False)
    _looked_at: float = field(default=-math.inf, init=False)
    _signed_at: float = field(default=-math.inf, init=False)

    def take(self) -> bool:
        """Take the machine and the cluster, if nobody works on either and nobody who waits for one is more urgent."""
        now = self.clock.now()
        with self.store.begin() as transaction:
            others = self._others(transaction, now)
            if any(one.working for one in others) or any(one.urgency(now) < self.ticket.urgency(now) for one in others):
                self._sign(transaction, now)
                self._waited = True
                return False
            waited = self.ticket.waited(now)
            self._write(transaction, replace(self.ticket, working=True, waited_s=waited, since=now, needs_at=now))
        self.since = self.clock.now() if self._waited else None
        return True

    def step_back(self) -> None:
        """Wait again, in the place that age and urgency give."""
        now = self.clock.now()
        self.yields_to, self._waited = None, True
        with self.store.begin() as transaction:
            needs = self.ticket.remaining(now)
            self._write(transaction, replace(self.ticket, working=False, since=now, needs_s=needs, needs_at=now))

    def expect(self, needs_s: float, deadline_at: float | None) -> None:
        """State the forecast to completion and the deadline."""
        now = self.clock.now()
        with self.store.begin() as transaction:
            self._write(transaction, replace(self.ticket, needs_s=needs_s, needs_at=now, deadline_at=deadline_at))

    def follow(self, event: Event) -> None:
        """Keep deadline and forecast in step with the run's own events."""
        if event.kind == "attempt.started":
            self.expect(self.ticket.needs_s, event.data["deadline_at"])
        elif event.kind == "plan.made":
            self.expect(math.fsum(part["p50"] for part in event.data["parts"]), self.ticket.deadline_at)

    def must_yield(self) -> bool:
        """Whether somebody more urgent waits; once it is so, it stays so until the turn is given back."""
        now = self.clock.now()
        if self.yields_to is None and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            waiting = [one for one in self.there() if one.owner != self.ticket.owner and not one.working]
            self.yields_to = more_urgent(self.ticket, waiting, now)
            if now - self._signed_at >= SIGN_SECONDS:
                with self.store.begin() as transaction:
                    self._sign(transaction, now)
        return self.yields_to is not None

    def there(self) -> list[Ticket]:
        """Every ticket for the machine or the cluster."""
        return tickets(self.store, self.clock.now(), self.ticket)

    def before(self) -> list[Ticket]:
        """Who has the machine or the cluster, and who waits in front of this one."""
        now = self.clock.now()
        there = [one for one in self.there() if one.owner != self.ticket.owner]
        return [one for one in there if one.working or one.urgency(now) < self.ticket.urgency(now)]

    def leave(self) -> None:
        """Give the ticket back."""
        with self.store.begin() as transaction:
            transaction.execute(delete(table).where(*_own(self.ticket.owner)))

    def _others(self, transaction: Transaction, now: float) -> list[Ticket]:
        """The other tickets for the machine or the cluster, locked; those of processes that are gone are removed."""
        query = select(table).where(_shares(self.ticket)).order_by(table.c.joined_at)
        rows = transaction.execute(query.with_for_update()).all()
        others = []
        for row in rows:
            ticket = _ticket(row)
            if ticket.owner == self.ticket.owner:
                continue
            if _is_gone(row, now):
                transaction.execute(delete(table).where(*_own(ticket.owner)))
            else:
                others.append(ticket)
        return others

    def _sign(self, transaction: Transaction, now: float) -> None:
        if now - self._signed_at >= SIGN_SECONDS:
            self._write(transaction, self.ticket)

    def _write(self, transaction: Transaction, ticket: Ticket) -> None:
        """Keep a ticket and give a sign of life; it is made anew where it was taken for gone."""
        values = _values(ticket) | {"sign_at": self.clock.now()}
        if transaction.execute(update(table).where(*_own(ticket.owner)).values(values)).rowcount == 0:
            transaction.execute(insert(table).values(values))
        before, signed = self.ticket, self._signed_at
        self.ticket, self._signed_at = ticket, values["sign_at"]
        transaction.after_rollback.append(lambda: self._restore(before, signed))

    def _restore(self, ticket: Ticket, signed: float) -> None:
        self.ticket, self._signed_at = ticket, signed


@contextmanager
def joined(
    store: Store,
    clock: Clock,
    project: str,
    folder: Path,
    priority: int,
    machine: str | None = None,
    cluster: str | None = None,
) -> Iterator[Turn]:
    """A place in the queue, given back at the end; a process that was there before (`exec`) keeps the one it has.

    Args:
        store: where the queue is kept.
        clock: the one source of time.
        project: the project's name.
        folder: its state folder.
        priority: as the project file states it.
        machine: its name; this machine's by default.
        cluster: the address of the cluster whose nodes it needs; None where it needs only the machine.

    Raises:
        LeaseHeld: another process waits for this machine with the same project already.
    """
    now, me = clock.now(), this_process()
    machine = machine_id() if machine is None else machine
    with store.begin() as transaction:
        there = [row for row in transaction.execute(select(table)).all() if not _is_gone(row, now)]
        known = next((_ticket(row) for row in there if _ticket(row).owner == me), None)
        place = str(folder.absolute())
        fresh = Ticket(machine, cluster, project, place, me, priority, None, 0.0, now, now, 0.0, now, False)
        for row in there:
            other = _ticket(row)
            if (other.machine, other.project, other.folder) == (machine, project, place) and other.owner != me:
                raise _waits_already(other)
        turn = Turn(store, clock, fresh if known is None else replace(known, priority=priority, cluster=cluster))
        turn._write(transaction, turn.ticket)
    turn._waited = known is not None
    try:
        yield turn
    finally:
        turn.leave()


def refuse(turn: Turn) -> None:
    """Refuse a run that does not wait.

    Raises:
        LeaseHeld: somebody is before it, and has not left meanwhile.
    """
    before, now = turn.before(), turn.clock.now()
    if not before:
        return
    first = before[0]
    here = first.machine == turn.ticket.machine
    what = "this machine" if here else "the cluster"
    does = f"is at work on {what} already" if first.working else f"waits for {what} already"
    others = f", and {len(before) - 1} more" if len(before) > 1 else ""
    raise LeaseHeld(
        f"project {first.project} {does}",
        f"machine {first.machine}" if here else f"cluster {first.cluster}, from machine {first.machine}",
        f"process {first.owner.pid}{others}; about {first.remaining(now):.0f} s of work",
        "one run at a time on a machine" + ("" if here else " and on a cluster"),
        f"run without --no-queue to wait; see who is there with `thriftune queue`, or stop it with "
        f"`kill -INT {first.owner.pid}`",
    )


def _waits_already(other: Ticket) -> LeaseHeld:
    return LeaseHeld(
        f"project {other.project} has a place on this machine already",
        f"machine {other.machine}",
        f"process {other.owner.pid}",
        "one run of a project at a time",
        f"see it with `thriftune queue`, or stop it with `kill -INT {other.owner.pid}`",
    )


def _is_gone(row: Row[Any], now: float) -> bool:
    life = _ticket(row).owner.life()
    return life is Life.DEAD or (life is Life.UNSEEN and now - row.sign_at > GONE_SECONDS)


def _shares(ticket: Ticket) -> ColumnElement[bool]:
    """Which tickets need the machine or the cluster that this one needs."""
    here = table.c.machine == ticket.machine
    return here if ticket.cluster is None else or_(here, table.c.cluster == ticket.cluster)


def _own(owner: ProcessName) -> tuple[Any, ...]:
    return (
        table.c.owner_pid == owner.pid,
        table.c.owner_started == owner.started,
        table.c.owner_place == owner.place,
    )


def _ticket(row: Row[Any]) -> Ticket:
    return Ticket(
        machine=row.machine,
        cluster=row.cluster,
        project=row.project,
        folder=row.folder,
        owner=ProcessName(row.owner_pid, row.owner_started, row.owner_place),
        priority=row.priority,
        deadline_at=row.deadline_at,
        needs_s=row.needs_s,
        needs_at=row.needs_at,
        joined_at=row.joined_at,
        waited_s=row.waited_s,
        since=row.since,
        working=bool(row.working),
    )


def _values(ticket: Ticket) -> dict[str, Any]:
    plain = {name: value for name, value in vars(ticket).items() if name != "owner"}
    owner = ticket.owner
    return plain | {"owner_pid": owner.pid, "owner_started": owner.started, "owner_place": owner.place}
