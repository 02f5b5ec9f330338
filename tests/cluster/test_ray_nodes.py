"""A real Ray cluster on this machine: its nodes come with the work and go after it, and each one is paid for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from decimal import Decimal

import pytest

from thriftune.clock import SystemClock
from thriftune.cluster.local import local_cluster
from thriftune.cluster.nodes import NodeMeter
from thriftune.cluster.pool import ClusterPool
from thriftune.events import EventLog, open_attempt
from thriftune.money.ledger import Ledger
from thriftune.store import open_store

PRICE_PER_HOUR = Decimal(36)
PATIENT_SECONDS = 90.0
QUICK_TO_NOTICE = {  # that a node is lost
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


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

    def told(kind: str) -> list[str]:
        return [event.data["node"] for event in events.read(kinds=[kind])]

    with local_cluster(2, idle_seconds=3.0, environment=QUICK_TO_NOTICE) as cluster:
        meter = NodeMeter(store, clock, ledger, PRICE_PER_HOUR, "films workers")
        with ClusterPool(cluster.address, meter) as pool:
            assert pool.nodes() == [] and told("node.started") == []
            found = list(pool.map(look, range(4), [3.0] * 4))
            assert [square for square, _ in found] == [0, 1, 4, 9]
            assert len({node for _, node in found}) == 2  # both took part
            assert len(told("node.started")) == 2
            wait_until(lambda: len(told("node.ended")) == 2)
            assert pool.nodes() == []
            assert ledger.balance().reserved == 0

            # A node that is lost: its call is done again on another, and it is closed up to its last sign of life.
            future = pool.submit(look, 5, 4.0)
            wait_until(lambda: len(told("node.started")) == 3)
            time.sleep(1.0)
            (lost,) = pool.nodes()
            raylets = [
                process
                for process in cluster.processes()
                if process.name() == "raylet" and process.environ().get("RAY_OVERRIDE_NODE_ID_FOR_TESTING") == lost
            ]
            (raylet,) = raylets
            raylet.send_signal(signal.SIGKILL)
            square, node = future.result(PATIENT_SECONDS)
            assert square == 25 and node != lost
            assert told("node.lost") == [lost]
    assert cluster.processes() == []

    # The account: from each node's start to its end, each second once, and the lost one's marked as an estimate.
    assert ledger.balance().reserved == 0
    began = {event.data["node"]: event.at for event in events.read(kinds=["node.started"])}
    ended = {event.data["node"]: event.data["ended_at"] for event in events.read(kinds=["node.ended", "node.lost"])}
    assert began.keys() == ended.keys() and len(began) == 4
    charged = ledger.transfers()
    for node, at in began.items():
        seconds = sum(transfer.seconds for transfer in charged if transfer.unit == f"node {node}")
        assert seconds == pytest.approx(ended[node] - at, abs=0.5)
    assert {one.unit for one in charged if one.estimated} == {f"node {lost}"}
    hours = sum(transfer.seconds for transfer in charged) / 3600
    assert float(ledger.balance().spent) == pytest.approx(hours * float(PRICE_PER_HOUR), abs=1e-6)
    assert os.environ.get("THRIFTUNE_CLUSTER") is None
