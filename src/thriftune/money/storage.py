"""What it takes to keep a project's files: their bytes over time, and the money for that where it has a price.

Bytes are looked at between the parts of a run and taken to change evenly from one look to the next; from one run to
the next too, where what is kept goes on to cost. The cost of what is to come is held in the ledger from the start, so
that no charge overdraws: each look charges what was kept since the one before and holds the rest anew. Without a price
the GB-hours are counted and nothing is charged.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from pathlib import Path

from thriftune.clock import Clock
from thriftune.money.amounts import NANO, from_nano
from thriftune.money.fence import Fence, beat
from thriftune.money.ledger import Ledger, Reservation
from thriftune.store import Store

CATEGORY = "storage"
BETWEEN_RUNS = "upkeep"  # the phase that pays for what is kept while nothing runs
GB = 10**9  # bytes; providers price so
MONTH_SECONDS = 730 * 3600  # the hours of a mean month, by which providers turn a month's price into an hour's
LONGEST_SECONDS = 366 * 86_400.0  # that are held money for
HELD = "storage to the run's end"


@dataclass(frozen=True)
class _Look:
    at: float
    bytes: int
    carry: Decimal  # of a nano-unit, not charged yet


class StorageMeter:
    """Charges a project for its files.

    Args:
        folder: where they lie.
        store: where ledger and events are kept.
        clock: dates the looks.
        ledger: what is charged; its budget is open.
        fence: the right to spend.
        price_per_gb_month: of the budget's currency; None where nobody told.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        clock: Clock,
        ledger: Ledger,
        fence: Fence,
        price_per_gb_month: Decimal | None,
    ) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self._ledger = ledger
        self._fence = fence
        self._price = price_per_gb_month
        self._last: _Look | None = None
        self._open: Reservation | None = None
        self._ends_at = 0.0
        self._growth = 0
        self._first_bytes = 0
        self._begun = False

    @property
    def held(self) -> Decimal:
        """Money that is held for what is to come."""
        return Decimal(0) if self._open is None else from_nano(self._open.upper_nano)

    @property
    def grown(self) -> int:
        """Bytes that are kept now and were not when the run began."""
        return max(0, (0 if self._last is None else self._last.bytes) - self._first_bytes)

    def begin(self, phase: str, remaining_seconds: float, growth_bytes: float) -> Decimal:
        """Charge what was kept since the last run, and hold the money for this one.

        Args:
            phase: that pays for what is to come.
            remaining_seconds: the longest that the run may take.
            growth_bytes: the most that it is thought to add.

        Returns:
            what was charged.

        Raises:
            OutOfBudget: the budget does not hold it; nothing was charged.
        """
        for left_open in self._ledger.unfenced(CATEGORY):  # a run that was killed held it
            self._ledger.void(left_open)
        seen = self._ledger.events.read(kinds=["storage"])
        if seen:
            data = seen[-1].data
            self._last = _Look(data["at"], data["bytes"], Decimal(data["carry"]))
            self._open = self._hold(BETWEEN_RUNS, self._cost(self._size())[1], "storage since the last run")
        charged = self._pay(BETWEEN_RUNS)
        self._begun = True
        self._first_bytes = 0 if self._last is None else self._last.bytes
        self._growth = math.ceil(growth_bytes)
        self._ends_at = self._clock.now() + min(remaining_seconds, LONGEST_SECONDS)
        self._hold_rest(phase)
        return from_nano(charged)

    def look(self, phase: str) -> Decimal:
        """Charge what was kept since the last look, and hold the rest anew.

        Returns:
            what was charged.

        Raises:
            OutOfBudget: the budget no longer holds the rest.
            LeaseLost: the machine's lease was taken over.
        """
        charged = self._pay(phase)
        self._hold_rest(phase)
        return from_nano(charged)

    def close(self, phase: str) -> None:
        """Charge what was kept since the last look and give back what is held."""
        if self._begun:
            self._pay(phase)

    def _pay(self, phase: str) -> int:
        """Post what was kept since the last look, in one transaction with the record of this one."""
        size = self._size()
        now, nano, carry, byte_seconds = self._cost(size)
        with self._store.begin() as transaction:
            beat(transaction, self._fence, self._clock)
            if self._open is not None:
                self._ledger.void(self._open, inside=transaction)
            if nano:  # from what was held, by the phase in which it was kept
                self._ledger.charge(phase, CATEGORY, nano, "storage", 0.0, inside=transaction)
            self._ledger.events.emit(
                "storage",
                inside=transaction,
                phase=phase,
                at=now,
                bytes=size,
                gb_hours=byte_seconds / GB / 3600,
                cost=None if self._price is None else f"{from_nano(nano):f}",
                carry=f"{carry:f}",
            )
        self._open = None
        self._last = _Look(now, size, carry)
        return nano

    def _cost(self, size: int) -> tuple[float, int, Decimal, float]:
        """The instant, whole nano-units for the time since the last look, what is left of one, and the byte-seconds."""
        now = self._clock.now()
        if self._last is None:
            return now, 0, Decimal(0), 0.0
        byte_seconds = (self._last.bytes + size) / 2 * max(0.0, now - self._last.at)
        if self._price is None:
            return now, 0, Decimal(0), byte_seconds
        with localcontext(prec=60):
            exact = self._nano(byte_seconds) + self._last.carry
            whole = exact.to_integral_value(rounding=ROUND_FLOOR)
        return now, int(whole), round(exact - whole, 9), byte_seconds

    def _nano(self, byte_seconds: float) -> Decimal:
        price = Decimal(0) if self._price is None else self._price
        with localcontext(prec=60):
            return Decimal(byte_seconds) * price * NANO / (GB * MONTH_SECONDS)

    def _hold_rest(self, phase: str) -> None:
        assert self._last is not None, "what is to come is held after a look"
        left = max(0.0, self._ends_at - self._last.at)
        most = (self._first_bytes + max(self._growth, self.grown)) * left
        self._open = self._hold(phase, int(self._nano(most).to_integral_value(rounding=ROUND_CEILING)) + 1, HELD)

    def _hold(self, phase: str, nano: int, what: str) -> Reservation | None:
        return None if self._price is None else self._ledger.reserve(phase, CATEGORY, nano, what)

    def _size(self) -> int:
        """Bytes of the files in the folder; what vanishes meanwhile does not count."""
        total = 0
        for path, _, names in os.walk(self._folder):
            for name in names:
                try:
                    total += (Path(path) / name).lstat().st_size
                except OSError:
                    continue
        return total
