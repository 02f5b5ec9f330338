"""What goes over the network for a part of a run, counted, and charged where it has a price."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from thriftune import traffic
from thriftune.money.amounts import cost_of_bytes, from_nano
from thriftune.money.fence import Fence
from thriftune.money.ledger import Ledger, Reservation

CATEGORY = "transfer"


@contextmanager
def paying_transfer(ledger: Ledger, fence: Fence, phase: str, price_per_gb: Decimal | None) -> Iterator[None]:
    """Pay for what goes over the network inside: the most of each transfer is held before it begins.

    Args:
        ledger: what is charged; its budget is open.
        fence: the right to spend.
        phase: that pays.
        price_per_gb: for 10⁹ bytes; None where nobody told, and bytes are counted alone.

    Raises:
        OutOfBudget: a transfer does not fit; it has not begun.
    """
    held: list[Reservation] = []

    def hold(most_bytes: int, what: str) -> None:
        held.append(
            ledger.reserve(phase, CATEGORY, cost_of_bytes(most_bytes, price_per_gb or Decimal(0)), what, fence=fence)
        )

    with traffic.watched(None if price_per_gb is None else hold) as seen:
        try:
            yield
        finally:
            unpaid = 0 if price_per_gb is None else cost_of_bytes(seen.bytes, price_per_gb)
            cost = None if price_per_gb is None else f"{from_nano(unpaid):f}"
            for each in held:
                part = min(unpaid, each.upper_nano) if each is not held[-1] else unpaid
                ledger.post(each, part, 0.0)
                unpaid -= part
            if unpaid:  # nobody foretold it
                ledger.charge(phase, CATEGORY, unpaid, CATEGORY, 0.0, fence=fence)
            if seen.bytes:
                ledger.events.emit("transfer", phase=phase, bytes=seen.bytes, cost=cost)
