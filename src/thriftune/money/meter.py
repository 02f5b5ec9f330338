"""The meter: every second from the process's start to its exit belongs to exactly one charge.

Work is done in units. A unit reserves the most it can cost, with the time that passed since the last charge, and is
refused if the money or the time to the deadline does not hold it; when it ends, what it really took is posted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import NoReturn

from thriftune.clock import Clock
from thriftune.errors import OutOfBudget
from thriftune.money.amounts import (
    LARGEST_NANO,
    NANOSECONDS,
    affordable_nanoseconds,
    from_nano,
    to_nano,
    to_nanoseconds,
    upper_cost_nano,
)
from thriftune.money.fence import Fence
from thriftune.money.leases import Lease, acquire, started_at
from thriftune.money.ledger import Ledger, Reservation
from thriftune.store import Store


class Meter:
    """Charges a process's machine time to its project.

    Args:
        store: where lease and ledger are kept.
        clock: what is metered.
        ledger: what is charged; its budget is open.
        lease: of this machine, just acquired.
        deadline_at: no unit starts that could end later, in seconds since the epoch; None for no deadline.
        started: when this process was started, in seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ledger: Ledger,
        lease: Lease,
        deadline_at: float | None,
        *,
        started: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ledger = ledger
        self._lease = lease
        self._started = started
        balance = ledger.balance()
        self._left_nano, self._currency = to_nano(balance.left), balance.currency
        self._open: Reservation | None = None
        self._closed = False
        self.deadline_at = deadline_at

    @classmethod
    def start(
        cls,
        store: Store,
        clock: Clock,
        ledger: Ledger,
        price_per_hour: Decimal,
        deadline_at: float | None,
        machine: str | None = None,
        since: float | None = None,
    ) -> Meter:
        """Take this machine's lease, and meter it from this process's start, or from `since` (seconds since the epoch)
        where the machine was another's before.

        Raises:
            LeaseHeld: a live process holds it; the message names it.
        """
        started = started_at(clock) if since is None else since
        lease = acquire(store, clock, ledger, price_per_hour, machine, since=started)
        lease.begin_beating()
        return cls(store, clock, ledger, lease, deadline_at, started=started)

    @property
    def price_per_hour(self) -> Decimal:
        """Of this machine."""
        return from_nano(self._lease.price_nano_per_hour)

    @property
    def fence(self) -> Fence:
        """The right to spend for this machine, for what is bought beside its time."""
        return self._lease.fence

    @contextmanager
    def unit(self, phase: str, what: str, upper_seconds: float, category: str = "machine") -> Iterator[None]:
        """Do a unit of work: its upper bound is reserved before, what it took is posted after, also if it raises.

        The time since the last charge is charged with it. A unit that takes longer than its bound is charged in full
        and reported in a `breach` event.

        Args:
            phase: the phase that pays.
            what: the unit, for people, such as `validation`.
            upper_seconds: the longest it can take.
            category: what kind of cost.

        Raises:
            OutOfBudget: the money left or the time to the deadline does not hold it; it has not begun.
            LeaseLost: the machine's lease was taken over.
        """
        if self._open is not None or self._closed:
            state = "closed" if self._open is None else f"in the unit {self._open.unit}"
            raise RuntimeError(f"the unit {what} cannot begin: the meter is {state}")
        self._lease.check()
        began, worked = self._clock.now(), time.process_time()
        self._check_deadline(phase, what, began, upper_seconds)
        until_ns = min(to_nanoseconds(began + upper_seconds), LARGEST_NANO)  # both fill the database's integers
        upper_ns = max(0, until_ns - self._lease.metered_until_ns)
        upper_nano = upper_cost_nano(upper_ns, self._lease.price_nano_per_hour)
        self._open = self._ledger.reserve(phase, category, upper_nano, what, fence=self._lease.fence, until_ns=until_ns)
        self._left_nano = self._open.left_nano
        try:
            yield
        finally:
            reservation, self._open = self._open, None
            self._post(reservation, began, upper_seconds, worked)

    def go_on(self, what: str, seconds: float) -> None:
        """Ask within a unit, before a piece of it, whether the limits hold that piece.

        A unit that takes longer than its bound ends between two pieces, before it takes more than there is.

        Args:
            what: the piece, for people.
            seconds: that it will take.

        Raises:
            OutOfBudget: the money left, with what is held for the unit, or the time to the deadline does not hold it.
        """
        if self._open is None:
            raise RuntimeError(f"{what} is no piece of a unit: none has begun")
        now = self._clock.now()
        self._check_deadline(self._open.phase, what, now, seconds)
        needed = self._lease.unpaid_nano(to_nanoseconds(now + seconds))
        there = self._left_nano + self._open.upper_nano
        if needed > there:
            raise OutOfBudget(
                f"the budget does not hold the rest of {self._open.unit}",
                self._open.phase,
                f"{from_nano(max(0, there))} {self._currency}, what is held for it included",
                f"{from_nano(needed)} {self._currency}",
                "add money: thriftune budget add AMOUNT",
            )

    def remaining_money(self) -> Decimal:
        """What the budget has left now, after reservations and the time that is not charged yet; never negative."""
        return from_nano(self._remaining_nano())

    def recount(self) -> None:
        """Ask the ledger what is left, between units, after money was reserved or spent beside this meter."""
        self._left_nano = to_nano(self._ledger.balance().left)

    def remaining_seconds(self) -> float:
        """For how long this machine may still work: by the money or by the deadline, whichever ends first."""
        now = self._clock.now()
        by_deadline = math.inf if self.deadline_at is None else self.deadline_at - now
        price = self._lease.price_nano_per_hour
        by_money = affordable_nanoseconds(self._remaining_nano(), price) / NANOSECONDS if price else math.inf
        return max(0.0, min(by_money, by_deadline))

    def seconds_used(self) -> float:
        """Since this process was started."""
        return self._clock.now() - self._started

    def close(self, phase: str, exit_seconds: float = 0.0) -> None:
        """Charge what is not charged yet and the exit, and give the lease up; a second call does nothing.

        Args:
            phase: the phase that pays.
            exit_seconds: how long the process will take from here to its end.

        Raises:
            LeaseLost: the machine's lease was taken over.
        """
        if self._closed:
            return
        self._closed = True
        self._lease.end_beating()
        now_ns = to_nanoseconds(self._clock.now())
        with self._store.begin() as transaction:
            for unit, until_ns, estimated in (
                ("after the last unit", now_ns, False),
                ("exit", now_ns + to_nanoseconds(exit_seconds), True),
            ):
                cost, seconds = self._lease.advance(until_ns, transaction)
                if seconds > 0:
                    self._ledger.charge(phase, "machine", cost, unit, seconds, estimated, inside=transaction)
            for left_open in self._ledger.pending(self._lease.fence.machine, transaction):
                self._ledger.void(left_open, inside=transaction)  # its unit was interrupted before it began
            self._lease.release(transaction)

    def _check_deadline(self, phase: str, what: str, now: float, upper_seconds: float) -> None:
        if self.deadline_at is not None and now + upper_seconds > self.deadline_at:
            raise OutOfBudget(
                f"the deadline does not leave the time for {what}",
                phase,
                f"{max(0.0, self.deadline_at - now):.1f} s left",
                f"{upper_seconds:.1f} s, the longest it can take",
                "set a later deadline in the project file",
            )

    def _post(self, reservation: Reservation, began: float, upper_seconds: float, worked: float) -> None:
        now = self._clock.now()
        with self._store.begin() as transaction:
            cost, seconds = self._lease.advance(to_nanoseconds(now), transaction)
            self._left_nano = self._ledger.post(reservation, cost, seconds, inside=transaction)
            if now - began > upper_seconds:
                self._ledger.events.emit(
                    "breach",
                    inside=transaction,
                    what=f"{reservation.phase}: {reservation.unit}",
                    upper_s=upper_seconds,
                    actual_s=now - began,
                    cause=_cause(now - began, time.process_time() - worked),
                )

    def _remaining_nano(self) -> int:
        unpaid = self._lease.unpaid_nano(to_nanoseconds(self._clock.now()))
        held = 0 if self._open is None else self._open.upper_nano
        return max(0, self._left_nano - max(0, unpaid - held))


class NoMeter(Meter):
    """In the place of a meter while a process has no machine: whatever asks it is a defect, and is told so.

    Raises:
        RuntimeError: anything was asked.
    """

    def __init__(self) -> None:  # it has none of a meter's state
        pass

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"nothing is metered before the machine is taken: {name} was asked for")


def _cause(seconds: float, worked_seconds: float) -> str:
    """Why a unit took longer than its bound, as far as the processor time that it got can tell."""
    got = f"{worked_seconds:.1f} s of processor time in {seconds:.1f} s"
    if worked_seconds < seconds / 2:
        return f"it waited, was stopped or was starved: it got {got}"
    return f"the work itself took longer: it got {got}"
