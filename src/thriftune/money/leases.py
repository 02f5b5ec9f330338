"""One lease a machine: who meters it, up to when it is paid for, and a sign of life each second.

Machines are metered, not processes, so that two processes on one machine never bill it twice. The owner is a process
by its pid, start and boot; each acquisition raises the fencing number, and whoever holds an older one can post nothing
any more. A dead owner's time is posted up to its last sign of life plus one interval, marked estimated, before the
lease passes on.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Row, bindparam, select, update

from thriftune.artifacts import explained, write_file_atomic
from thriftune.clock import Clock, SystemClock
from thriftune.errors import LeaseHeld
from thriftune.events import EventLog
from thriftune.money.amounts import (
    NANOSECONDS,
    cost_nano,
    price_to_nano,
    to_nanoseconds,
)
from thriftune.money.fence import Fence, beat
from thriftune.money.ledger import Ledger
from thriftune.money.prices import thriftune_home
from thriftune.processes import Life, ProcessName, machine_id, process_age, this_process
from thriftune.store import Store, Transaction
from thriftune.store.tables import leases

HEARTBEAT_SECONDS = 1.0
MACHINE_LOCK = "machine.lock"
HOLDER_FILE = "machine.json"  # who has that lock
WATCH_HEARTBEATS = 3  # an owner out of sight is alive if it gives a sign within so many intervals
SET_BACK_NS = 10 * NANOSECONDS  # time paid for further ahead than any exit takes: the clock was set back

_PAY = (
    update(leases)
    .where(leases.c.machine == bindparam("on"), leases.c.fence == bindparam("number"))
    .values(metered_until_ns=bindparam("until_ns"), remainder=bindparam("carried"))
)  # built once: it runs with every charge


class Lease:
    """A machine's lease in this process's hands.

    Args:
        store: where it is kept.
        clock: meters it.
        fence: its machine and number.
        price_nano_per_hour: of the machine.
        metered_until_ns: up to when the machine is paid for, in ns since the epoch.
        remainder: of a nano-unit, carried (see `amounts.cost_nano`).
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        fence: Fence,
        *,
        price_nano_per_hour: int,
        metered_until_ns: int,
        remainder: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self.fence = fence
        self.price_nano_per_hour = price_nano_per_hour
        self.metered_until_ns = metered_until_ns
        self._remainder = remainder
        self._failure: Exception | None = None
        self._beaten_at = time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="thriftune-lease", daemon=True)

    def begin_beating(self) -> None:
        """Give a sign of life each second from now on, in a thread of its own."""
        self._thread.start()

    def check(self) -> None:
        """Raise what stopped the signs of life, if anything did: `LeaseLost`, or a database that does not answer."""
        if self._failure is not None:
            raise self._failure

    def unpaid_nano(self, until_ns: int) -> int:
        """What the machine will have cost from where it is paid for until an instant."""
        return cost_nano(max(0, until_ns - self.metered_until_ns), self.price_nano_per_hour, self._remainder)[0]

    def advance(self, until_ns: int, inside: Transaction) -> tuple[int, float]:
        """Pay for the machine up to an instant, which is never earlier than that of the last call.

        Returns:
            the cost in nano-units, and the seconds that it pays for.

        Raises:
            LeaseLost: it was taken over.
        """
        before = self.metered_until_ns, self._remainder
        until_ns = max(until_ns, self.metered_until_ns)
        nanoseconds = until_ns - self.metered_until_ns
        cost, self._remainder = cost_nano(nanoseconds, self.price_nano_per_hour, self._remainder)
        self.metered_until_ns = until_ns
        inside.after_rollback.append(lambda: self._restore(*before))
        self._beat(inside)
        values = {"on": self.fence.machine, "number": self.fence.number, "until_ns": until_ns}
        inside.execute(_PAY, values | {"carried": self._remainder})
        return cost, nanoseconds / NANOSECONDS

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            LeaseLost: it was taken over.
        """
        with self._store.begin() as transaction:
            self._beat(transaction)

    def release(self, inside: Transaction) -> None:
        """Give the lease up."""
        self._beat(inside)
        inside.execute(update(leases).where(leases.c.machine == self.fence.machine).values(held=False))

    def end_beating(self) -> None:
        """Stop the signs of life."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self, transaction: Transaction) -> None:
        beat(transaction, self.fence, self._clock)
        self._beaten_at = time.monotonic()

    def _restore(self, metered_until_ns: int, remainder: int) -> None:
        self.metered_until_ns, self._remainder = metered_until_ns, remainder

    def _beat_on(self) -> None:
        while not self._ending.wait(max(0.0, self._beaten_at + HEARTBEAT_SECONDS - time.monotonic())):
            if time.monotonic() - self._beaten_at < HEARTBEAT_SECONDS:
                continue  # a charge was a sign of life meanwhile
            try:
                self.beat()
            except Exception as error:  # kept for `check`: a thread has nobody to raise it to
                if not self._ending.is_set():
                    self._failure = error
                return


def started_at(clock: Clock) -> float:
    """When this process was started, on the clock; on a clock that a test or a simulator drives, now."""
    return clock.now() - (process_age() if isinstance(clock, SystemClock) else 0.0)


def acquire(
    store: Store,
    clock: Clock,
    ledger: Ledger,
    price_per_hour: Decimal,
    machine: str | None = None,
    *,
    since: float | None = None,
) -> Lease:
    """Take the machine's lease, settling what a dead owner left open.

    Args:
        store: where leases are kept.
        clock: meters the machine.
        ledger: of the project that pays; its budget is open.
        price_per_hour: of the machine.
        machine: its name; this machine's by default.
        since: from when the machine is to be paid for, in seconds since the epoch; this process's start by default.

    Raises:
        LeaseHeld: a live process holds it; the message names it.
    """
    ledger.balance()  # a lease without a budget could not be settled
    machine = machine_id() if machine is None else machine
    since_ns = to_nanoseconds(started_at(clock) if since is None else since)
    price_nano = price_to_nano(price_per_hour)
    _see_owner_gone(store, clock, machine)
    me = this_process()
    with store.begin() as transaction:
        row = _locked_row(transaction, ledger.project, machine)
        if row.held:
            if owner_of(row).life() is Life.ALIVE:
                raise lease_held(row)
            paid_until_ns, remainder = settle_dead(store, clock, row, transaction)
        else:
            paid_until_ns, remainder = row.metered_until_ns, row.remainder
        now_ns = to_nanoseconds(clock.now())
        set_back = paid_until_ns > now_ns + SET_BACK_NS
        from_ns = since_ns if set_back else max(since_ns, paid_until_ns)
        fence = Fence(machine, row.fence + 1)
        values = {
            "project": ledger.project,
            "attempt": ledger.events.attempt,
            "owner_pid": me.pid,
            "owner_started": me.started,
            "owner_place": me.place,
            "fence": fence.number,
            "held": True,
            "heartbeat_ns": now_ns,
            "metered_until_ns": from_ns,
            "price_nano_per_hour": price_nano,
            "remainder": remainder,
        }
        transaction.execute(update(leases).where(leases.c.machine == machine).values(values))
    return Lease(
        store,
        clock,
        fence,
        price_nano_per_hour=price_nano,
        metered_until_ns=from_ns,
        remainder=remainder,
    )


@contextmanager
def machine_taken(project: str, home: Path | None = None) -> Iterator[None]:
    """Have the machine to ourselves among a user's projects, whatever databases they keep.

    A lease tells the processes of one database apart; two projects with a file each would both pay for the whole
    machine. The lock ends with the process, however that ends.

    Args:
        project: who takes it.
        home: the user's folder; by default `thriftune_home()`.

    Raises:
        LeaseHeld: a live process of another project has it; the message names it.
    """
    folder = thriftune_home() if home is None else home
    holder = folder / HOLDER_FILE
    lock = FileLock(folder / MACHINE_LOCK)
    try:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        try:
            other = json.loads(holder.read_text())
        except (OSError, ValueError):  # it is only just being written
            other = {}
        raise _at_work(other.get("project", "another"), machine_id(), other.get("pid", "?"), "") from None
    try:
        write_file_atomic(holder, json.dumps({"project": project, "pid": os.getpid()}).encode())
        yield
    finally:
        lock.release()


def holder(store: Store, clock: Clock, project: str) -> LeaseHeld | None:
    """Who else has this machine now, as the error that taking it would meet; None where it is free.

    Args:
        project: who asks.
    """
    try:
        with machine_taken(project):
            row = _row(store, machine_id())
    except LeaseHeld as held:
        return held
    if row is None or not row.held:
        return None
    life = owner_of(row).life()
    watched_ns = to_nanoseconds(clock.now() - WATCH_HEARTBEATS * HEARTBEAT_SECONDS)
    return lease_held(row) if life is Life.ALIVE or (life is Life.UNSEEN and row.heartbeat_ns > watched_ns) else None


def lease_held(row: Row[Any]) -> LeaseHeld:
    """The error of a second process on a machine that a live one holds."""
    return _at_work(row.project, row.machine, row.owner_pid, f", attempt {row.attempt}")


def _at_work(project: str, machine: str, pid: int | str, attempt: str) -> LeaseHeld:
    return LeaseHeld(
        f"project {project} is at work on this machine already",
        f"machine {machine}",
        f"process {pid}{attempt}",
        "one run at a time on a machine",
        f"see how far it is with `thriftune status`; wait for it, or stop it with `kill -INT {pid}`",
    )


def settle_dead(store: Store, clock: Clock, row: Row[Any], transaction: Transaction) -> tuple[int, int]:
    """Post what a dead owner left open.

    It lived until its last sign of life, so that much is charged in full. It died within the interval after it, and
    before the unit at work should have ended: that much is estimated.

    Returns:
        up to when the machine is paid for (ns), and the remainder to carry.
    """
    ledger = Ledger(store, clock, row.project, EventLog(store, clock, row.project, row.attempt))
    pending = ledger.pending(row.machine, transaction)
    ends = [each.until_ns for each in pending if each.until_ns is not None]
    guess_ns = row.heartbeat_ns + to_nanoseconds(HEARTBEAT_SECONDS)
    until_ns = max(row.metered_until_ns, row.heartbeat_ns, min([guess_ns, *ends]))
    nanoseconds = until_ns - row.metered_until_ns
    unpaid, remainder = cost_nano(nanoseconds, row.price_nano_per_hour, row.remainder)
    seconds = nanoseconds / NANOSECONDS
    for each in sorted(pending, key=lambda each: each.until_ns or 0):  # what was at work before what was still to come
        if each.until_ns is None:  # not machine time: nobody knows whether it was bought, so it counts in full
            ledger.post(each, each.upper_nano, 0.0, estimated=True, inside=transaction)
        else:
            ledger.post(each, unpaid, seconds, estimated=True, inside=transaction)
            unpaid, seconds = 0, 0.0
    if seconds > 0:
        phase = ledger.last_phase(transaction)
        ledger.charge(phase, "machine", unpaid, "ended without notice", seconds, True, inside=transaction)
    return until_ns, remainder


def _see_owner_gone(store: Store, clock: Clock, machine: str) -> None:
    """Watch an owner that is out of sight (another boot, another container) for signs of life.

    Raises:
        LeaseHeld: it gives one.
    """
    row = _row(store, machine)
    if row is None or not row.held or owner_of(row).life() is not Life.UNSEEN:
        return
    for _ in range(WATCH_HEARTBEATS):
        clock.sleep(HEARTBEAT_SECONDS)
        seen = _row(store, machine)
        if seen is not None and (seen.heartbeat_ns, seen.fence) != (row.heartbeat_ns, row.fence):
            raise lease_held(seen)


def _row(store: Store, machine: str) -> Row[Any] | None:
    with store.read() as connection:
        return connection.execute(select(leases).where(leases.c.machine == machine)).one_or_none()


def _locked_row(transaction: Transaction, project: str, machine: str) -> Row[Any]:
    """The machine's row, made if it is not there, and locked."""
    free = {
        "machine": machine,
        "project": project,
        "attempt": 0,
        "owner_pid": 0,
        "owner_started": "",
        "owner_place": "",
        "fence": 0,
        "held": False,
        "heartbeat_ns": 0,
        "metered_until_ns": 0,
        "price_nano_per_hour": 0,
        "remainder": 0,
    }
    transaction.insert_if_missing(leases, free)
    return transaction.execute(select(leases).where(leases.c.machine == machine).with_for_update()).one()


def owner_of(row: Row[Any]) -> ProcessName:
    """The process that a lease names."""
    return ProcessName(row.owner_pid, row.owner_started, row.owner_place)
