from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from thriftune.clock import ManualClock
from thriftune.errors import LeaseLost, OutOfBudget
from thriftune.events import EventLog
from thriftune.money.leases import HEARTBEAT_SECONDS, acquire
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter, NoMeter
from thriftune.store import Store
from thriftune.store.tables import leases

PHASES = {"collection": Decimal(0), "training": Decimal(5), "evaluation": Decimal(3)}
CENT_A_SECOND = Decimal(36)
NAMES = (f"metered-{number}" for number in itertools.count())


class Bench:
    """A project on a machine of its own, with a clock that the test moves."""

    def __init__(
        self,
        store: Store,
        price: Decimal = CENT_A_SECOND,
        total: str = "10",
        deadline_in: float | None = None,
        at: float = 1_700_000_000.0,
        project: str | None = None,
        machine: str | None = None,
    ) -> None:
        self.store = store
        self.clock = ManualClock(at)
        self.project = next(NAMES) if project is None else project
        self.machine = self.project if machine is None else machine
        self.events = EventLog(store, self.clock, self.project, 1)
        self.ledger = Ledger(store, self.clock, self.project, self.events)
        self.ledger.open_budget(Decimal(total), "USD", PHASES)
        deadline_at = None if deadline_in is None else at + deadline_in
        self.lease = acquire(store, self.clock, self.ledger, price, self.machine)
        self.lease.begin_beating()
        self.meter = Meter(store, self.clock, self.ledger, self.lease, deadline_at, started=at)

    def charges(self) -> list[tuple[str, str, Decimal, float]]:
        events = self.events.read(kinds=["charge"])
        return [(e.data["phase"], e.data["unit"], Decimal(e.data["amount"]), e.data["seconds"]) for e in events]


@pytest.fixture
def bench(shared_store: Store) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**more: Any) -> Bench:
        made.append(Bench(shared_store, **more))
        return made[-1]

    yield make
    for each in made:
        each.lease.end_beating()


def test_every_second_belongs_to_one_charge(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.clock.advance(3)  # starting up
    with b.meter.unit("collection", "reading", 10):
        b.clock.advance(4)
    b.clock.advance(1)
    with b.meter.unit("training", "steps", 10):
        b.clock.advance(5)
    b.clock.advance(2)
    b.meter.close("evaluation", exit_seconds=0.5)
    assert b.charges() == [
        ("collection", "reading", Decimal("0.07"), 7.0),
        ("training", "steps", Decimal("0.06"), 6.0),
        ("evaluation", "after the last unit", Decimal("0.02"), 2.0),
        ("evaluation", "exit", Decimal("0.005"), 0.5),
    ]
    assert b.ledger.balance().spent == Decimal("0.155") and b.ledger.balance().reserved == 0
    assert b.meter.seconds_used() == 15.0


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    price=st.decimals("0.000000001", "99", places=9),
    stretches=st.lists(st.integers(0, 10**6), min_size=1, max_size=12),
)
def test_cut_anyhow_the_charges_sum_to_the_whole_stretch(
    shared_store: Store, price: Decimal, stretches: list[int]
) -> None:
    b = Bench(shared_store, price=price, total="1000000", at=0.0)
    for stretch in stretches:
        with b.meter.unit("training", "steps", 0.0):
            b.clock.advance(stretch / 2**9)  # exact in the clock's float and in whole nanoseconds
    b.meter.close("training")
    exact = price * sum(stretches) / 2**9 / 3600
    assert 0 <= exact - b.ledger.balance().spent < Decimal("0.000000001")


def test_a_unit_that_the_money_does_not_hold_does_not_begin(bench: Callable[..., Bench]) -> None:
    b = bench(total="8")  # eight hundred seconds
    b.clock.advance(100)
    with pytest.raises(OutOfBudget, match="the budget does not hold steps"), b.meter.unit("training", "steps", 701):
        raise AssertionError("it began")
    with b.meter.unit("training", "steps", 700):  # the start-up is in the bound
        b.clock.advance(700)
    assert b.ledger.balance().left == 0 and b.meter.remaining_seconds() == 0
    assert b.charges() == [("training", "steps", Decimal(8), 800.0)]


def test_a_unit_that_could_end_after_the_deadline_does_not_begin(bench: Callable[..., Bench]) -> None:
    b = bench(deadline_in=60)
    b.clock.advance(20)
    with pytest.raises(OutOfBudget) as caught, b.meter.unit("evaluation", "test split", 41):
        raise AssertionError("it began")
    assert caught.value.found == "40.0 s left" and "41.0 s" in caught.value.expected and caught.value.way_out
    assert b.ledger.balance().reserved == 0
    with b.meter.unit("evaluation", "test split", 40):
        pass


def test_what_is_left_follows_the_limit_that_binds(bench: Callable[..., Bench]) -> None:
    b = bench(total="8", deadline_in=900)
    assert b.meter.remaining_seconds() == 800 and b.meter.remaining_money() == 8
    b.clock.advance(100)  # not charged yet, but gone
    assert b.meter.remaining_seconds() == 700 and b.meter.remaining_money() == 7
    with b.meter.unit("training", "steps", 50):
        assert b.meter.remaining_seconds() == 650
        b.clock.advance(10)
        assert b.meter.remaining_seconds() == 650  # it is reserved
        b.clock.advance(60)
        assert b.meter.remaining_seconds() == 630
    assert b.meter.remaining_seconds() == 630
    b.ledger.add(Decimal(100), "more")
    with b.meter.unit("training", "steps", 1):
        pass
    assert b.meter.remaining_seconds() == 900 - 170  # now the deadline binds


def test_without_a_price_only_time_binds(bench: Callable[..., Bench]) -> None:
    b = bench(price=Decimal(0), total="8", deadline_in=60)
    with b.meter.unit("training", "steps", 30):
        b.clock.advance(30)
    assert b.meter.remaining_seconds() == 30 and b.meter.remaining_money() == 8
    assert b.charges() == [("training", "steps", Decimal(0), 30.0)]
    with pytest.raises(OutOfBudget), b.meter.unit("training", "steps", 31):
        pass
    assert bench(price=Decimal(0)).meter.remaining_seconds() == float("inf")


def test_a_unit_that_takes_longer_than_its_bound_is_charged_in_full_and_reported(bench: Callable[..., Bench]) -> None:
    b = bench()
    with b.meter.unit("training", "steps", 5):
        b.clock.advance(5)
    assert b.events.read(kinds=["breach"]) == []
    with b.meter.unit("training", "steps", 5):
        b.clock.advance(9)
    (breach,) = b.events.read(kinds=["breach"])
    assert (breach.data["what"], breach.data["upper_s"], breach.data["actual_s"]) == ("training: steps", 5, 9.0)
    assert "it waited, was stopped or was starved" in breach.data["cause"]
    assert b.charges()[-1] == ("training", "steps", Decimal("0.09"), 9.0)


def test_a_unit_that_raises_is_charged(bench: Callable[..., Bench]) -> None:
    b = bench()
    with pytest.raises(KeyError, match="of the test"), b.meter.unit("training", "steps", 5):
        b.clock.advance(2)
        raise KeyError("of the test")
    assert b.charges() == [("training", "steps", Decimal("0.02"), 2.0)]
    assert b.ledger.balance().reserved == 0


def test_units_do_not_nest(bench: Callable[..., Bench]) -> None:
    b = bench()
    with pytest.raises(RuntimeError, match="in the unit steps"), b.meter.unit("training", "steps", 5):  # noqa: SIM117
        with b.meter.unit("training", "validation", 5):
            pass


def test_a_closed_meter_is_closed_once_and_starts_nothing(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.clock.advance(1)
    b.meter.close("training", 1.0)
    b.clock.advance(5)
    b.meter.close("training", 1.0)
    assert [unit for _, unit, _, _ in b.charges()] == ["after the last unit", "exit"]
    with pytest.raises(RuntimeError, match="closed"), b.meter.unit("training", "steps", 5):
        pass


def test_the_next_run_does_not_pay_again_for_what_is_paid(bench: Callable[..., Bench]) -> None:
    first = bench()
    first.clock.advance(10)
    first.meter.close("training", exit_seconds=4.0)  # estimated too long: the next starts within it
    second = bench(at=first.clock.now() + 1.0, project=first.project)
    second.clock.advance(5)
    second.meter.close("training")
    assert [seconds for *_, seconds in second.charges()] == [10.0, 4.0, 2.0]


def test_a_clock_set_back_makes_no_time_free(bench: Callable[..., Bench]) -> None:
    first = bench()
    first.clock.advance(10)
    first.meter.close("training")
    second = bench(at=first.clock.now() - 86_400.0, project=first.project)
    second.clock.advance(5)
    second.meter.close("training")
    assert [seconds for *_, seconds in second.charges()] == [10.0, 5.0]


def test_the_remainder_of_a_nano_unit_is_carried_to_the_next_run(bench: Callable[..., Bench]) -> None:
    project = None
    for number in range(9):  # each costs a third of a nano-unit
        b = bench(price=Decimal("0.0012"), at=1000.0 * (number + 1), project=project)
        project = b.project
        b.clock.advance(0.001)
        b.meter.close("training")
    assert b.ledger.balance().spent == Decimal("0.000000003")


def owner_out_of_sight(b: Bench) -> None:
    """As if the lease's owner lived in another container, whose processes cannot be seen from here."""
    with b.store.begin() as transaction:
        elsewhere = update(leases).where(leases.c.machine == b.machine).values(owner_place="another boot")
        transaction.execute(elsewhere)


def test_an_older_lease_can_post_nothing(bench: Callable[..., Bench]) -> None:
    b = bench()
    with pytest.raises(LeaseLost), b.meter.unit("training", "steps", 5):
        b.lease.end_beating()
        owner_out_of_sight(b)
        later = acquire(b.store, b.clock, b.ledger, CENT_A_SECOND, b.machine)
        b.clock.advance(60)
    assert later.fence.number == b.lease.fence.number + 1
    spent = b.ledger.balance().spent
    for act in (lambda: b.meter.unit("training", "steps", 5).__enter__(), lambda: b.meter.close("training")):
        with pytest.raises(LeaseLost):
            act()
    assert b.ledger.balance().spent == spent == Decimal("0.01") and b.ledger.balance().reserved == 0
    assert b.lease.metered_until_ns == later.metered_until_ns - 10**9  # what failed is undone here too


def test_a_thread_that_finds_the_lease_lost_ends_the_work(shared_store: Store, bench: Callable[..., Bench]) -> None:
    b = bench()
    with shared_store.begin() as transaction:
        transaction.execute(update(leases).where(leases.c.machine == b.machine).values(fence=99))
    time.sleep(2 * HEARTBEAT_SECONDS)
    with pytest.raises(LeaseLost):
        b.lease.check()
    with pytest.raises(LeaseLost), b.meter.unit("training", "steps", 5):
        raise AssertionError("it began")


def test_money_that_is_reserved_beside_the_meter_is_seen_once_it_recounts(bench):
    b = bench()
    b.ledger.reserve("training", "tokens bought", 4 * 10**9, "a job")
    assert b.meter.remaining_money() == 10
    b.meter.recount()
    assert b.meter.remaining_money() == 6
    assert b.meter.remaining_seconds() == 600


def test_a_unit_goes_on_while_what_is_held_for_it_and_what_is_left_hold_the_next_piece(
    bench: Callable[..., Bench],
) -> None:
    b = bench(total="8", price=Decimal(288), deadline_in=500)  # 100 seconds' worth
    with b.meter.unit("training", "answers", 60):
        b.clock.advance(60)
        b.meter.go_on("a batch", 40)  # beyond what is held, inside what there is
        b.clock.advance(30)
        b.meter.go_on("a batch", 10)
        with pytest.raises(OutOfBudget, match="does not hold the rest of answers"):
            b.meter.go_on("a batch", 10.1)
    assert b.ledger.balance().spent == Decimal("7.2")
    with pytest.raises(RuntimeError):
        b.meter.go_on("a batch", 1)


def test_a_unit_does_not_go_on_beyond_the_deadline(bench: Callable[..., Bench]) -> None:
    b = bench(deadline_in=50)
    with b.meter.unit("training", "answers", 10):
        b.clock.advance(30)
        b.meter.go_on("a batch", 20)
        with pytest.raises(OutOfBudget, match="deadline"):
            b.meter.go_on("a batch", 21)


@pytest.mark.parametrize(
    "asked",
    [
        lambda meter: meter.price_per_hour,
        lambda meter: meter.deadline_at,
        lambda meter: meter.remaining_seconds(),
        lambda meter: meter.seconds_used(),
        lambda meter: meter.unit("training", "a step", 1.0).__enter__(),
        lambda meter: meter.close("training"),
    ],
)
def test_before_the_machine_is_taken_a_meter_says_so_whatever_it_is_asked(asked):
    with pytest.raises(RuntimeError, match="before the machine is taken"):
        asked(NoMeter())
