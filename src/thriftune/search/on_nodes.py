"""A search's workers on the nodes of a Ray cluster, which come with the orders and go when there are none.

An order is a call; how many nodes there are at a moment is the autoscaler's to say. The search's process looks at them
while it waits for answers, and meters each (`cluster/nodes.py`). Nobody but it hands an order out again: Ray's own
retries are off, so that no look is made twice unseen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from thriftune.cluster.connection import check_head, connected, nodes_of, ray_module
from thriftune.cluster.local import local_cluster
from thriftune.cluster.nodes import NodeMeter
from thriftune.cluster.options import LOCAL, ClusterOptions
from thriftune.context import Context
from thriftune.errors import BadInput
from thriftune.search.crew import Answer
from thriftune.search.worker import Brief, Looker, Order

STARTING_SECONDS = 60.0  # the most that reaching a cluster takes, one on this machine being made
WAIT_SECONDS = 600.0  # for the first node, longer than machines take to come
_lookers: dict[str, Looker] = {}  # of a node's process, which serves one study at a time


class NodeCrew:
    """Workers on nodes, each at one look at a time.

    Args:
        ray: connected to the cluster.
        address: of the cluster's head.
        brief: what each is told.
        count: the most looks at a time.
        cores: that a look takes.
        meter: of the nodes.
    """

    def __init__(self, ray: Any, address: str, brief: Brief, count: int, cores: int, meter: NodeMeter) -> None:
        self._ray, self._address, self._count, self._meter = ray, address, count, meter
        told = replace(brief, machine=replace(brief.machine, threads=cores))
        self._brief = ray.put((told, str(Path.cwd())))
        self._look = ray.remote(num_cpus=cores, max_retries=0)(look)
        self._open: dict[Any, Order] = {}
        self._nodeless_since: float | None = None

    @property
    def orders(self) -> list[Order]:
        """What is being worked on."""
        return list(self._open.values())

    @property
    def free(self) -> int:
        """How many more orders may be given out."""
        return self._count - len(self._open)

    def begin(self, order: Order) -> None:
        """Hand out an order, once the node that it may need is paid for.

        Raises:
            OutOfBudget: the money does not hold it.
        """
        self._meter.hold(len(self._open) + 1)
        self._open[self._look.remote([self._brief], order)] = order

    def answers(self, seconds: float) -> list[Answer]:
        """What was answered within so many seconds, as soon as something is; the nodes are metered on the way.

        Raises:
            OutOfBudget: the money does not hold the nodes any longer.
            BadInput: nodes do not come, or cannot work, or the cluster's head is gone.
        """
        asked = list(self._open)
        done, rest = self._ray.wait(asked, num_returns=1, timeout=seconds)
        if done and rest:
            done += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        check_head(self._address)
        alive, left = nodes_of(self._ray)
        self._meter.see(alive, left)
        self._meter.hold(len(self._open))  # for one that comes in the place of one that was lost
        self._check_that_nodes_come(bool(alive))
        return [self._answered(reference) for reference in done]

    def end(self) -> None:
        """End what is being worked on."""
        for reference in self._open:
            self._ray.cancel(reference, force=True)
        self._open.clear()

    def _answered(self, reference: Any) -> Answer:
        order = self._open.pop(reference)
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise BadInput(
                "a node cannot do a search's work",
                where="compute.cluster",
                found=str(error).strip().splitlines()[-1],
                expected="the same packages, project folder and models on every node as here",
                way_out="mend the nodes; the same command goes on from here",
            ) from error
        except errors.RayError:  # its process or its node is gone
            return Answer(order, None)
        return Answer(order, None, answer) if isinstance(answer, str) else Answer(order, float(answer))

    def _check_that_nodes_come(self, there: bool) -> None:
        now = time.monotonic()
        if there:
            self._nodeless_since = None
        elif self._nodeless_since is None:
            self._nodeless_since = now
        elif now - self._nodeless_since > WAIT_SECONDS:
            raise BadInput(
                "no node of the cluster has come",
                where="compute.cluster",
                found=f"none in {WAIT_SECONDS:.0f} s",
                expected="an autoscaler that brings nodes for calls that wait",
                way_out="look at `ray status`; the same command goes on from here",
            )


def look(kept: list[Any], order: Order) -> float | str:
    """Make a look on a node.

    Args:
        kept: a reference to the brief and the folder to work in, which is read once.
        order: the look.
    """
    (reference,) = kept
    name = reference.hex()
    if name not in _lookers:
        brief, folder = ray_module().get(reference)
        os.chdir(folder)
        _lookers.clear()
        _lookers[name] = Looker(brief, lambda: False)
    return _lookers[name].look(order)


@contextmanager
def nodes_crew(brief: Brief, count: int, options: ClusterOptions, context: Context) -> Iterator[NodeCrew]:
    """A crew on the project's cluster, left and accounted whatever happens.

    Raises:
        MissingExtra: Ray is not installed.
        BadInput: there is no such cluster.
    """
    ours = options.address == LOCAL
    with ExitStack() as kept:
        address = kept.enter_context(local_cluster(count, options.cores, options.idle)) if ours else options.address
        ray = kept.enter_context(connected(address))
        meter = NodeMeter(
            context.store,
            context.clock,
            context.ledger,
            context.meter.fence,
            options.price_per_hour,
            address,
            options.idle,
        )
        crew = NodeCrew(ray, address, brief, count, options.cores, meter)
        try:
            yield crew
        finally:
            crew.end()
            meter.close(idle=not ours)
