"""The right to spend for a machine, which a process has while nobody has taken its lease over."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, update

from thriftune.clock import Clock
from thriftune.errors import LeaseLost
from thriftune.money.amounts import to_nanoseconds
from thriftune.store import Transaction
from thriftune.store.tables import leases

_BEAT = (
    update(leases)
    .where(leases.c.machine == bindparam("on"), leases.c.fence == bindparam("number"), leases.c.held)
    .values(heartbeat_ns=bindparam("now_ns"))
)


@dataclass(frozen=True)
class Fence:
    """The right to spend for a machine: void once the machine's lease has a higher number."""

    machine: str
    number: int


def beat(transaction: Transaction, fence: Fence, clock: Clock) -> None:
    """See that a lease is still ours, and leave a sign of life: both are one update of its row.

    Raises:
        LeaseLost: it was taken over.
    """
    values = {"on": fence.machine, "number": fence.number, "now_ns": to_nanoseconds(clock.now())}
    if transaction.execute(_BEAT, values).rowcount == 0:
        raise LeaseLost(
            "this machine's lease was taken over, so this process stops writing",
            fence.machine,
            f"a lease newer than number {fence.number}",
            "one run at a time on a machine",
            "look at it with: thriftune status",
        )
