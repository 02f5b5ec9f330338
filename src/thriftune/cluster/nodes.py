"""Node hours: each node of a cluster is a lease, from when it is there to when it is gone.

Money comes before nodes: the first block of a node's time is held before the work is given out that brings the node,
and each further block before the one at work ends. Every block includes the time that the node will stand idle at its
end. So no number of nodes, of searches either, brings a project over its budget: where a block is not paid for, no
work is given out any more and the nodes go. A node that is lost is charged up to its last sign of life. What a process
that was killed left open is settled by the next.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select

from thriftune.clock import Clock
from thriftune.errors import LeaseHeld, OutOfBudget
from thriftune.money.amounts import NANOSECONDS, price_to_nano, to_nanoseconds, upper_cost_nano
from thriftune.money.fence import Fence
from thriftune.money.leases import Lease, acquire
from thriftune.money.ledger import Ledger, Reservation
from thriftune.store import Store, Transaction
from thriftune.store.tables import leases

BLOCK_SECONDS = 30.0  # of a node's time, held and posted together
AHEAD_SECONDS = 10.0  # before the end of a block, the next one is held
COMING_SECONDS = 86_400.0  # a node that is asked for comes within it, or is not asked for any more
CATEGORY = "machine"
PREFIX = "ray "  # of the names of nodes' leases


@dataclass
class _Node:
    lease: Lease
    seen: float
    until: float = 0.0  # its time is held up to here, and its idle time after it
    reservation: Reservation | None = None  # none where there was no money for a node that came unasked


class NodeMeter:
    """Meters the nodes of a cluster.

    A node that another process meters, a search on the same cluster, is left to it: nodes are metered, not searches.

    Args:
        store: where leases and ledger are kept.
        clock: what is metered.
        ledger: what is charged; its budget is open.
        fence: this machine's, under which money is held for nodes to come.
        price_per_hour: of a node.
        cluster: its address; the nodes' leases are named after it.
        idle_seconds: for how long a node stays, and is paid for, once it has nothing to do.
        phase: that pays.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ledger: Ledger,
        fence: Fence,
        price_per_hour: Decimal,
        cluster: str,
        idle_seconds: float = 0.0,
        phase: str = "training",
    ) -> None:
        self._store, self._clock, self._ledger, self._fence = store, clock, ledger, fence
        self._price, self._cluster, self._idle, self._phase = price_per_hour, cluster, idle_seconds, phase
        self._nodes: dict[str, _Node] = {}
        self._coming: list[Reservation] = []
        self._settle_what_was_left()

    @property
    def there(self) -> Collection[str]:
        """The nodes that are metered now."""
        return self._nodes.keys()

    def hold(self, count: int) -> None:
        """Hold the first block of so many nodes, those that are there among them; call it before they are asked for.

        Raises:
            OutOfBudget: the money does not hold it.
        """
        while len(self._nodes) + len(self._coming) < count:
            until_ns = to_nanoseconds(self._clock.now() + COMING_SECONDS)
            self._coming.append(
                self._ledger.reserve(
                    self._phase, CATEGORY, self._block_nano(), "a node to come", fence=self._fence, until_ns=until_ns
                )
            )

    def see(self, alive: Collection[str], left: Collection[str] = ()) -> None:
        """Take note of the nodes that are there: new ones begin to be paid for, those that are not there end.

        Args:
            alive: names of the nodes.
            left: those that ended in order; one that is neither here nor among the living is lost.

        Raises:
            OutOfBudget: the next block of a node's time is not paid for; what is there is still metered.
        """
        now = self._clock.now()
        for name in [name for name in self._nodes if name not in alive]:
            in_order = name in left
            self._end(name, now if in_order else self._nodes[name].seen, lost=not in_order)
        refusal: OutOfBudget | None = None
        for name in alive:
            try:
                if name not in self._nodes:
                    self._begin(name, now)
                self._sign(name, now)
            except LeaseHeld:
                continue
            except OutOfBudget as error:
                refusal = error
        if refusal is not None:
            raise refusal

    def close(self, idle: bool) -> None:
        """End the metering, and give back what is held for nodes that have not come.

        Args:
            idle: whether the nodes that are still there stay until they have been idle long enough; their time until
                then is charged now, as an estimate. Otherwise they end now.
        """
        now = self._clock.now()
        for name in list(self._nodes):
            self._end(name, now + (self._idle if idle else 0.0), lost=False, estimated=idle)
        for reservation in self._coming:
            self._ledger.void(reservation)
        self._coming.clear()

    def _block_nano(self) -> int:
        seconds = BLOCK_SECONDS + AHEAD_SECONDS + self._idle
        return upper_cost_nano(to_nanoseconds(seconds), price_to_nano(self._price))

    def _begin(self, name: str, now: float) -> None:
        """Take the node's lease: it costs from now on, whether or not there is money for it.

        Raises:
            LeaseHeld: another process meters it.
        """
        lease = acquire(self._store, self._clock, self._ledger, self._price, self._machine(name), since=now)
        self._nodes[name] = _Node(lease, now)
        self._ledger.events.emit("node.started", node=name, at=now, price_per_hour=str(self._price))

    def _sign(self, name: str, now: float) -> None:
        """Note a sign of life, and hold the next block where the one at work is nearly over."""
        node = self._nodes[name]
        node.seen = now
        if node.reservation is not None and now < node.until - AHEAD_SECONDS:
            node.lease.beat()
            return
        spare = self._coming[-1] if node.reservation is None and self._coming else None
        until = now + BLOCK_SECONDS + AHEAD_SECONDS
        with self._store.begin() as transaction:  # where it is refused, what was held for this block is held still
            self._post(name, node, now, False, transaction)
            if spare is not None:
                self._ledger.void(spare, inside=transaction)
            reservation = self._ledger.reserve(
                self._phase,
                CATEGORY,
                self._block_nano(),
                f"node {name}",
                fence=node.lease.fence,
                until_ns=to_nanoseconds(until),
                inside=transaction,
            )
        if spare is not None:
            self._coming.remove(spare)
        node.reservation, node.until = reservation, until

    def _end(self, name: str, at: float, lost: bool, estimated: bool = False) -> None:
        node = self._nodes.pop(name)
        with self._store.begin() as transaction:
            self._post(name, node, at, lost or estimated, transaction)
            node.lease.release(transaction)
            self._ledger.events.emit(
                "node.lost" if lost else "node.ended", inside=transaction, node=name, ended_at=at, estimated=estimated
            )

    def _post(self, name: str, node: _Node, at: float, estimated: bool, transaction: Transaction) -> None:
        """Charge a node up to an instant."""
        cost, seconds = node.lease.advance(to_nanoseconds(at), transaction)
        if node.reservation is not None:
            self._ledger.post(node.reservation, cost, seconds, estimated, inside=transaction)
        elif seconds > 0:
            fence = node.lease.fence
            self._ledger.charge(
                self._phase, CATEGORY, cost, f"node {name}", seconds, estimated, fence=fence, inside=transaction
            )

    def _settle_what_was_left(self) -> None:
        """Charge what a process of this project that was killed left open: its nodes up to its last sign of life, and
        from there until they had been idle long enough."""
        ours = leases.c.project == self._ledger.project
        nodes = leases.c.machine.startswith(PREFIX, autoescape=True)
        with self._store.read() as connection:
            held = connection.execute(select(leases.c.machine).where(ours, nodes, leases.c.held)).scalars().all()
        for machine in held:
            try:
                lease = acquire(self._store, self._clock, self._ledger, self._price, machine, since=0.0)
            except LeaseHeld:
                continue
            dead_at = lease.metered_until_ns / NANOSECONDS
            idle_until = min(self._clock.now(), dead_at + self._idle)
            name = machine.partition("/")[2]
            with self._store.begin() as transaction:
                self._post(name, _Node(lease, dead_at), idle_until, True, transaction)
                lease.release(transaction)

    def _machine(self, name: str) -> str:
        return f"{PREFIX}{self._cluster}/{name}"
