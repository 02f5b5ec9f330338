"""Workers on the nodes of a cluster, each at one order at a time: what hands out a search's looks sees no difference
to workers in processes of this machine.

An order is a call on the pool. Nodes come for as many orders as are open and go when none are; how many nodes there
are at a moment is the autoscaler's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from thriftune.errors import ThriftuneError

OrderType = TypeVar("OrderType")


@dataclass(frozen=True)
class Answer(Generic[OrderType]):
    """What became of an order.

    Args:
        order: what was asked for.
        score: that it found; None where its worker was lost again and again.
        status: of the worker's process; not known of one on another machine.
    """

    order: OrderType
    score: float | None
    status: int | None = None


class NodeCrew(Generic[OrderType]):
    """Workers on nodes.

    Args:
        pool: of the cluster.
        look: makes one look on a node; it is sent there, with what it holds.
        count: the most orders at a time.
    """

    def __init__(self, pool: Executor, look: Callable[[OrderType], float], count: int) -> None:
        self._pool, self._look, self._count = pool, look, count
        self._open: dict[Future[float], OrderType] = {}

    @property
    def orders(self) -> list[OrderType]:
        """What is being worked on."""
        return list(self._open.values())

    @property
    def free(self) -> int:
        """How many more orders may be open."""
        return self._count - len(self._open)

    def begin(self, order: OrderType) -> None:
        """Hand out an order.

        Raises:
            OutOfBudget: no more of the nodes' time is paid for.
        """
        self._open[self._pool.submit(self._look, order)] = order

    def answers(self, seconds: float) -> list[Answer[OrderType]]:
        """What was answered within so many seconds, as soon as something is.

        Raises:
            ThriftuneError: what the look itself raised, or that the nodes' time is not paid for any more.
        """
        done, _ = wait(self._open, timeout=seconds, return_when=FIRST_COMPLETED)
        return [self._answered(future) for future in list(self._open) if future in done]

    def end(self) -> None:
        """Take back what nobody has begun; what is at work ends with the cluster."""
        for future in self._open:
            future.cancel()
        self._open.clear()

    def _answered(self, future: Future[float]) -> Answer[OrderType]:
        order = self._open.pop(future)
        error = future.exception()
        if error is None:
            return Answer(order, float(future.result()))
        if isinstance(error, ThriftuneError) or not _lost(error):
            raise error
        return Answer(order, None)


def _lost(error: BaseException) -> bool:
    """Whether a call ended because its process or its node was gone, by Ray's own classes."""
    from thriftune.cluster.pool import ray_module

    exceptions = ray_module().exceptions
    return isinstance(error, exceptions.WorkerCrashedError | exceptions.NodeDiedError | exceptions.OutOfMemoryError)
