"""Node hours in the ledger: every node's time once, reserved ahead, and settled when a node or its meter is lost."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest

from thriftune.clock import ManualClock
from thriftune.cluster.nodes import AHEAD_SECONDS, BLOCK_SECONDS, NodeMeter
from thriftune.errors import OutOfBudget
from thriftune.events import EventLog, open_attempt
from thriftune.money.ledger import Ledger
from thriftune.store import Store

PRICE_PER_HOUR = Decimal(36)  # a cent a second
ALLOWANCES = {"training": Decimal(10)}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(shared_store: Store, clock: ManualClock, unused_name: str) -> Ledger:
    attempt = open_attempt(shared_store, clock, unused_name, "recipe").attempt
    ledger = Ledger(shared_store, clock, unused_name, EventLog(shared_store, clock, unused_name, attempt))
    ledger.open_budget(Decimal(10), "USD", ALLOWANCES)
    return ledger


def meter_of(store: Store, clock: ManualClock, ledger: Ledger) -> NodeMeter:
    return NodeMeter(store, clock, ledger, PRICE_PER_HOUR, f"{ledger.project} workers")


def watch(meter: NodeMeter, clock: ManualClock, seconds: int, *alive: str) -> None:
    """Look at the nodes once a second."""
    for _ in range(seconds):
        clock.advance(1)
        meter.see(alive)


def seconds_of(ledger: Ledger) -> dict[str, float]:
    """Seconds charged by node; nothing is open."""
    assert ledger.balance().reserved == 0
    by_unit: dict[str, float] = {}
    for transfer in ledger.transfers():
        assert transfer.state == "posted"
        by_unit[transfer.unit] = by_unit.get(transfer.unit, 0.0) + transfer.seconds
    return by_unit


def test_each_node_is_paid_for_from_when_it_is_there_to_when_it_is_gone(shared_store, clock, ledger):
    meter = meter_of(shared_store, clock, ledger)
    watch(meter, clock, 1, "a")
    watch(meter, clock, 40, "a", "b")
    watch(meter, clock, 60, "a", "b")
    assert meter.there == {"a", "b"}
    assert ledger.balance().reserved > 0
    clock.advance(1)
    meter.see(["a"], left=["b"])
    clock.advance(5)
    meter.close()
    assert seconds_of(ledger) == pytest.approx({"node a": 106.0, "node b": 100.0})
    assert ledger.balance().spent == Decimal("2.06")
    assert not any(transfer.estimated for transfer in ledger.transfers())
    kinds = [event.kind for event in ledger.events.read() if event.kind.startswith("node.")]
    assert kinds == ["node.started", "node.started", "node.ended", "node.ended"]


def test_a_lost_node_is_charged_up_to_its_last_sign_of_life(shared_store, clock, ledger):
    meter = meter_of(shared_store, clock, ledger)
    watch(meter, clock, 8, "a")
    clock.advance(20)  # nobody looked meanwhile
    meter.see([])
    assert seconds_of(ledger) == pytest.approx({"node a": 7.0})
    (transfer,) = [one for one in ledger.transfers() if one.seconds]
    assert transfer.estimated
    assert [event.kind for event in ledger.events.read() if event.kind == "node.lost"] == ["node.lost"]


def test_a_block_that_is_not_paid_for_is_refused_and_what_there_is_is_still_metered(shared_store, clock, ledger):
    meter = meter_of(shared_store, clock, ledger)
    alive = [str(number) for number in range(40)]
    paid_blocks = int(ALLOWANCES["training"] / (PRICE_PER_HOUR * int(BLOCK_SECONDS) / 3600))
    with pytest.raises(OutOfBudget):
        meter.see(alive[: paid_blocks + 1])
    assert len(meter.there) == paid_blocks + 1  # it is there, and costs
    clock.advance(10)
    meter.close()
    assert sum(seconds_of(ledger).values()) == pytest.approx(10 * (paid_blocks + 1))


def test_blocks_never_reserve_more_than_what_is_ahead(shared_store, clock, ledger):
    meter = meter_of(shared_store, clock, ledger)
    meter.see(["a"])
    for _ in range(200):
        clock.advance(1)
        meter.see(["a"])
        assert Decimal(0) < ledger.balance().reserved <= PRICE_PER_HOUR * int(BLOCK_SECONDS) / 3600
        assert ledger.balance().reserved >= PRICE_PER_HOUR * int(AHEAD_SECONDS) / 3600
    meter.close()
    assert seconds_of(ledger) == pytest.approx({"node a": 200.0})


def test_what_a_killed_meter_left_open_is_settled_by_the_next(shared_url, shared_store, ledger, unused_name):
    program = (
        "import os, signal; from decimal import Decimal; from thriftune.clock import ManualClock;"
        "from thriftune.cluster.nodes import NodeMeter; from thriftune.events import EventLog;"
        "from thriftune.money.ledger import Ledger; from thriftune.store import open_store\n"
        f"store, clock, name = open_store({shared_url!r}), ManualClock(), {unused_name!r}\n"
        "meter = NodeMeter(store, clock, Ledger(store, clock, name, EventLog(store, clock, name, 1)), Decimal(36),"
        " name + ' workers')\n"
        "meter.see(['a', 'b'])\n"
        "clock.advance(5)\n"
        "meter.see(['a', 'b'])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -9
    assert ledger.balance().reserved > 0
    clock = ManualClock()
    clock.advance(1000)
    meter_of(shared_store, clock, Ledger(shared_store, clock, unused_name, ledger.events))
    charged = seconds_of(ledger)
    assert set(charged) == {"node a", "node b"}
    assert all(5.0 <= seconds <= 6.0 for seconds in charged.values())  # up to the last sign, and one interval
    meter_of(shared_store, clock, Ledger(shared_store, clock, unused_name, ledger.events))
    assert seconds_of(ledger) == charged
