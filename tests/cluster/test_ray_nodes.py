"""A real Ray cluster on this machine: its nodes come with the work and go after it, and each one is paid for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal

import psutil
import pytest

from clusters_for_tests import cluster_of, processes_in
from thriftune.clock import SystemClock
from thriftune.cluster.connection import connected, nodes_of
from thriftune.cluster.local import local_cluster
from thriftune.cluster.nodes import NodeMeter
from thriftune.events import EventLog, open_attempt
from thriftune.money.leases import acquire
from thriftune.money.ledger import Ledger
from thriftune.store import open_store

PRICE_PER_HOUR = Decimal(36)
PATIENT_SECONDS = 90.0


def wait_until(what: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENT_SECONDS
    while not what():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.2)


@pytest.mark.slow
def test_nodes_come_with_the_work_and_go_after_it_and_each_is_paid_for(tmp_path):
    def look(number: int, seconds: float) -> tuple[int, str]:
        import time

        import ray

        time.sleep(seconds)
        return number**2, ray.get_runtime_context().get_node_id()

    store, clock = open_store(f"sqlite:///{tmp_path}/thriftune.db"), SystemClock()
    events = EventLog(store, clock, "films", open_attempt(store, clock, "films", "recipe").attempt)
    ledger = Ledger(store, clock, "films", events)
    ledger.open_budget(Decimal(100), "USD", {"training": Decimal(100)})
    machine = acquire(store, clock, ledger, Decimal(0), since=clock.now())

    def told(kind: str) -> list[str]:
        return [event.data["node"] for event in events.read(kinds=[kind])]

    with local_cluster(2, idle_seconds=3.0) as address, connected(address) as ray:
        session = cluster_of(os.getpid())
        meter = NodeMeter(store, clock, ledger, machine.fence, PRICE_PER_HOUR, address, 3.0)
        call = ray.remote(num_cpus=1, max_retries=0)(look)

        def see() -> int:
            meter.see(*nodes_of(ray))
            return len(meter.there)

        assert see() == 0
        meter.hold(2)
        calls = [call.remote(number, 2.0) for number in range(4)]
        wait_until(lambda: see() == 2)
        wait_until(lambda: bool(see()) and len(ray.wait(calls, num_returns=4, timeout=0)[0]) == 4)
        found = ray.get(calls)
        assert [square for square, _ in found] == [0, 1, 4, 9]
        assert {node for _, node in found} <= set(told("node.started"))
        wait_until(lambda: see() == 0)
        assert sorted(told("node.ended")) == sorted(told("node.started"))
        assert ledger.balance().reserved == 0
        meter.close(idle=False)

    # The account: from each node's start to its end, each second once.
    assert ledger.balance().reserved == 0
    began = {event.data["node"]: event.data["at"] for event in events.read(kinds=["node.started"])}
    ended = {event.data["node"]: event.data["ended_at"] for event in events.read(kinds=["node.ended"])}
    assert began.keys() == ended.keys() and len(began) == 2
    charged = ledger.transfers()
    for node, at in began.items():
        seconds = sum(transfer.seconds for transfer in charged if transfer.unit == f"node {node}")
        assert seconds == pytest.approx(ended[node] - at, abs=1e-5)
    hours = sum(transfer.seconds for transfer in charged) / 3600
    assert float(ledger.balance().spent) == pytest.approx(hours * float(PRICE_PER_HOUR), abs=1e-6)
    assert not processes_in(session)


@pytest.mark.slow
def test_a_cluster_ends_with_the_process_that_asked_for_it_however_that_ends():
    program = "from thriftune.cluster.local import local_cluster\nwith local_cluster(1):\n    print('up', input())"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
        wait_until(lambda: bool(psutil.Process(process.pid).children()))
        session = cluster_of(process.pid)
        wait_until(lambda: any(one.name() == "raylet" for one in processes_in(session)))
        process.kill()
    wait_until(lambda: not processes_in(session))
