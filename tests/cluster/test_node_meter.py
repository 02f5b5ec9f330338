"""Node hours in the ledger: every node's time once, held ahead, and settled when a node or its meter is lost."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest

from thriftune.clock import ManualClock
from thriftune.cluster.nodes import AHEAD_SECONDS, BLOCK_SECONDS, NodeMeter
from thriftune.errors import OutOfBudget
from thriftune.events import EventLog, open_attempt
from thriftune.money.leases import Lease, acquire
from thriftune.money.ledger import Ledger
from thriftune.store import Store

PRICE_PER_HOUR = Decimal(36)  # a cent a second
BLOCK = PRICE_PER_HOUR * int(BLOCK_SECONDS + AHEAD_SECONDS) / 3600
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


@pytest.fixture
def machine(shared_store: Store, clock: ManualClock, ledger: Ledger) -> Lease:
    """The lease of the machine that the search itself is on, at no price."""
    return acquire(shared_store, clock, ledger, Decimal(0), f"{ledger.project}'s machine", since=clock.now())


def meter_of(store: Store, clock: ManualClock, ledger: Ledger, machine: Lease, idle: float = 0.0) -> NodeMeter:
    return NodeMeter(store, clock, ledger, machine.fence, PRICE_PER_HOUR, f"{ledger.project}:6379", idle)


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
        assert transfer.state in ("posted", "voided")
        if transfer.seconds:
            by_unit[transfer.unit] = by_unit.get(transfer.unit, 0.0) + transfer.seconds
    return by_unit


def told(ledger: Ledger) -> list[str]:
    return [event.kind for event in ledger.events.read() if event.kind.startswith("node.")]


def test_each_node_is_paid_for_from_when_it_is_there_to_when_it_is_gone(shared_store, clock, ledger, machine):
    meter = meter_of(shared_store, clock, ledger, machine)
    watch(meter, clock, 1, "a")
    watch(meter, clock, 100, "a", "b")
    assert meter.there == {"a", "b"}
    assert ledger.balance().reserved > 0
    clock.advance(1)
    meter.see(["a"], left=["b"])
    clock.advance(5)
    meter.close(idle=False)
    assert seconds_of(ledger) == pytest.approx({"node a": 106.0, "node b": 100.0})
    assert ledger.balance().spent == Decimal("2.06")
    assert not any(transfer.estimated for transfer in ledger.transfers())
    assert told(ledger) == ["node.started", "node.started", "node.ended", "node.ended"]


def test_money_is_held_before_a_node_is_asked_for_and_becomes_its_first_block(shared_store, clock, ledger, machine):
    meter = meter_of(shared_store, clock, ledger, machine)
    meter.hold(2)
    meter.hold(2)
    assert ledger.balance().reserved == 2 * BLOCK
    clock.advance(20)
    meter.see(["a"])
    assert ledger.balance().reserved == 2 * BLOCK
    meter.close(idle=False)
    assert ledger.balance().reserved == ledger.balance().spent == 0


def test_no_node_is_asked_for_that_the_money_does_not_hold(shared_store, clock, ledger, machine):
    meter = meter_of(shared_store, clock, ledger, machine)
    held = int(ALLOWANCES["training"] / BLOCK)
    meter.hold(held)
    with pytest.raises(OutOfBudget):
        meter.hold(held + 1)
    assert ledger.balance().reserved == held * BLOCK <= Decimal(10)
    meter.close(idle=False)


def test_two_meters_under_one_cap_never_hold_or_spend_more_than_it(shared_store, clock, ledger, machine):
    """Each brings nodes as long as it may; whoever is refused lets its nodes go."""
    meters = [meter_of(shared_store, clock, ledger, machine, idle=5.0) for _ in range(2)]
    nodes: list[list[str]] = [[], []]
    ended = [False, False]
    while not all(ended):
        clock.advance(1)
        for number, meter in enumerate(meters):
            if ended[number]:
                continue
            try:
                if len(nodes[number]) < 8:
                    meter.hold(len(nodes[number]) + 1)
                    nodes[number].append(f"{number} {len(nodes[number])}")
                meter.see(nodes[number])
            except OutOfBudget:
                meter.close(idle=True)
                ended[number] = True
        balance = ledger.balance()
        assert balance.spent + balance.reserved <= Decimal(10)
    spent = ledger.balance().spent
    assert Decimal(6) < spent <= Decimal(10)
    assert sum(seconds_of(ledger).values()) == pytest.approx(float(spent * 100))


def test_a_node_that_stays_idle_is_paid_for_until_it_goes(shared_store, clock, ledger, machine):
    meter = meter_of(shared_store, clock, ledger, machine, idle=60.0)
    meter.hold(1)
    watch(meter, clock, 11, "a")
    assert ledger.balance().reserved == BLOCK + Decimal("0.60")
    meter.close(idle=True)
    assert seconds_of(ledger) == pytest.approx({"node a": 10.0 + 60.0})


def test_a_lost_node_is_charged_up_to_its_last_sign_of_life(shared_store, clock, ledger, machine):
    meter = meter_of(shared_store, clock, ledger, machine)
    watch(meter, clock, 8, "a")
    clock.advance(20)  # nobody looked meanwhile
    meter.see([])
    assert seconds_of(ledger) == pytest.approx({"node a": 7.0})
    (transfer,) = [one for one in ledger.transfers() if one.seconds]
    assert transfer.estimated
    assert told(ledger) == ["node.started", "node.lost"]


def test_a_node_that_came_unasked_is_metered_though_there_is_no_money_for_it(shared_store, clock, ledger, machine):
    meter = meter_of(shared_store, clock, ledger, machine)
    held = int(ALLOWANCES["training"] / BLOCK)
    with pytest.raises(OutOfBudget):
        meter.see([str(number) for number in range(held + 1)])
    assert len(meter.there) == held + 1
    clock.advance(10)
    meter.close(idle=False)
    assert sum(seconds_of(ledger).values()) == pytest.approx(10 * (held + 1))


def test_what_a_killed_meter_left_open_is_settled_once_by_the_next(shared_url, shared_store, ledger, unused_name):
    program = (
        "import os, signal; from decimal import Decimal; from thriftune.clock import ManualClock;"
        "from thriftune.cluster.nodes import NodeMeter; from thriftune.events import EventLog;"
        "from thriftune.money.ledger import Ledger; from thriftune.money.leases import acquire;"
        "from thriftune.store import open_store\n"
        f"store, clock, name = open_store({shared_url!r}), ManualClock(), {unused_name!r}\n"
        "ledger = Ledger(store, clock, name, EventLog(store, clock, name, 1))\n"
        "fence = acquire(store, clock, ledger, Decimal(0), name + ' machine', since=clock.now()).fence\n"
        "meter = NodeMeter(store, clock, ledger, fence, Decimal(36), name, 30.0)\n"
        "meter.hold(3)\n"
        "until_ns = round(1e9 * (clock.now() + 60))\n"
        "ledger.reserve('training', 'machine', 0, 'workers at work', fence=fence, until_ns=until_ns)\n"
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
    again = Ledger(shared_store, clock, unused_name, ledger.events)
    machine = acquire(shared_store, clock, again, Decimal(0), f"{unused_name} machine", since=clock.now())
    meter_of(shared_store, clock, again, machine, idle=30.0)
    charged = seconds_of(ledger)
    assert charged.keys() == {"workers at work", "node a", "node b"}
    nodes = charged["node a"], charged["node b"]
    assert all(35.0 <= seconds <= 36.0 for seconds in nodes)  # to the last sign, one interval, and idle
    meter_of(shared_store, clock, again, machine, idle=30.0)
    assert seconds_of(ledger) == charged
