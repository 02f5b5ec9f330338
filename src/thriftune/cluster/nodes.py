"""Node hours: each node of a cluster is a lease, from when it is there to when it is gone.

A node's time is reserved a block ahead and posted block by block, so that a node that comes up never brings the
project over its budget: where the next block is not paid for, no work is given out any more and the nodes go. A node
that is lost is charged up to its last sign of life. What a process that was killed left open is settled by the next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select

from thriftune.clock import Clock
from thriftune.errors import OutOfBudget
from thriftune.money.amounts import to_nanoseconds, upper_cost_nano
from thriftune.money.leases import Lease, acquire
from thriftune.money.ledger import Ledger, Reservation
from thriftune.store import Store, Transaction
from thriftune.store.tables import leases

BLOCK_SECONDS = 30.0  # of a node's time, reserved and posted together
AHEAD_SECONDS = 10.0  # before the end of a block, the next one is reserved


@dataclass
class _Node:
    lease: Lease
    seen: float
    until: float = 0.0
    reservation: Reservation | None = None  # None where what comes next is not paid for


class NodeMeter:
    """Meters the nodes of a cluster.

    Args:
        store: where leases and ledger are kept.
        clock: what is metered.
        ledger: what is charged; its budget is open.
        price_per_hour: of a node.
        cluster: a name; the nodes' leases are named after it.
        phase: that pays.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ledger: Ledger,
        price_per_hour: Decimal,
        cluster: str,
        phase: str = "training",
    ) -> None:
        self._store, self._clock, self._ledger = store, clock, ledger
        self._price, self._cluster, self._phase = price_per_hour, cluster, phase
        self._nodes: dict[str, _Node] = {}
        self._settle_what_was_left()

    @property
    def there(self) -> Collection[str]:
        """The nodes that are metered now."""
        return self._nodes.keys()

    def see(self, alive: Iterable[str], left: Collection[str] = ()) -> None:
        """Take note of the nodes that are there: new ones begin to be paid for, those that are not there end.

        Args:
            alive: names of the nodes.
            left: those that ended in order; one that is neither here nor among the living is lost.

        Raises:
            OutOfBudget: the next block of a node's time is not paid for; what is there is still metered.
        """
        now = self._clock.now()
        alive = list(alive)
        for name in [name for name in self._nodes if name not in alive]:
            self._end(name, now if name in left else self._nodes[name].seen, lost=name not in left)
        refusal: OutOfBudget | None = None
        for name in alive:
            try:
                if name not in self._nodes:
                    self._begin(name, now)
                self._sign(self._nodes[name], name, now)
            except OutOfBudget as error:
                refusal = error
        if refusal is not None:
            raise refusal

    def close(self) -> None:
        """End the metering of the nodes that are still there: they are being taken down."""
        now = self._clock.now()
        for name in list(self._nodes):
            self._end(name, now, lost=False)

    def _begin(self, name: str, now: float) -> None:
        """Take the node's lease: it costs from now on, whether or not there is money for it."""
        lease = acquire(self._store, self._clock, self._ledger, self._price, self._machine(name), since=now)
        self._nodes[name] = _Node(lease, now)
        self._ledger.events.emit("node.started", node=name, price_per_hour=str(self._price))

    def _sign(self, node: _Node, name: str, now: float) -> None:
        node.seen = now
        if now < node.until - AHEAD_SECONDS:
            node.lease.beat()
            return
        with self._store.begin() as transaction:
            self._post(name, node, now, False, transaction)
        node.until = now + BLOCK_SECONDS
        until_ns = to_nanoseconds(node.until)
        upper_nano = upper_cost_nano(until_ns - node.lease.metered_until_ns, node.lease.price_nano_per_hour)
        fence = node.lease.fence
        node.reservation = self._ledger.reserve(
            self._phase, "machine", upper_nano, f"node {name}", fence=fence, until_ns=until_ns
        )

    def _end(self, name: str, at: float, lost: bool) -> None:
        node = self._nodes.pop(name)
        with self._store.begin() as transaction:
            self._post(name, node, at, lost, transaction)
            node.lease.release(transaction)
        self._ledger.events.emit("node.lost" if lost else "node.ended", node=name, ended_at=at)

    def _post(self, name: str, node: _Node, at: float, estimated: bool, transaction: Transaction) -> None:
        """Charge a node up to an instant."""
        cost, seconds = node.lease.advance(to_nanoseconds(at), transaction)
        if node.reservation is not None:
            self._ledger.post(node.reservation, cost, seconds, estimated, inside=transaction)
            node.reservation = None
        elif seconds > 0:
            fence = node.lease.fence
            self._ledger.charge(
                self._phase, "machine", cost, f"node {name}", seconds, estimated, fence=fence, inside=transaction
            )

    def _settle_what_was_left(self) -> None:
        """Post what a process that was killed left open on this cluster's nodes."""
        mine = leases.c.machine.startswith(self._machine(""), autoescape=True)
        with self._store.read() as connection:
            held = connection.execute(select(leases.c.machine).where(mine, leases.c.held)).scalars().all()
        for machine in held:
            lease = acquire(self._store, self._clock, self._ledger, self._price, machine, since=self._clock.now())
            with self._store.begin() as transaction:
                lease.release(transaction)

    def _machine(self, name: str) -> str:
        return f"{self._cluster}/{name}"
