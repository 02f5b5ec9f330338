"""What a project keeps is paid for as it is kept, from money that was held for it, through kills and long pauses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from thriftune.clock import ManualClock
from thriftune.errors import LeaseLost, OutOfBudget
from thriftune.events import EventLog
from thriftune.money.amounts import cost_of_bytes
from thriftune.money.leases import acquire
from thriftune.money.ledger import Ledger
from thriftune.money.storage import GB, MONTH_SECONDS, StorageMeter
from thriftune.store import Store

PHASES = {"collection": Decimal(1), "training": Decimal(5), "upkeep": Decimal(0)}
PRICE = Decimal(730) * 3600 / 1000  # a megabyte for a second is a millionth of the currency
MB = 10**6
MICRO = Decimal("0.000001")
NAMES = (f"kept-{number}" for number in itertools.count())


class Bench:
    """A project with files, on a clock that the test moves."""

    def __init__(self, store: Store, folder: Path, price: Decimal | None = PRICE, total: str = "10") -> None:
        self.store, self.folder, self.price = store, folder, price
        self.clock = ManualClock(1_700_000_000.0)
        self.project = next(NAMES)
        self.events = EventLog(store, self.clock, self.project, 1)
        self.ledger = Ledger(store, self.clock, self.project, self.events)
        self.ledger.open_budget(Decimal(total), "USD", PHASES)
        self.lease = acquire(store, self.clock, self.ledger, Decimal(0), self.project)

    def meter(self) -> StorageMeter:
        return StorageMeter(self.folder, self.store, self.clock, self.ledger, self.lease.fence, self.price)

    def keep(self, name: str, megabytes: int) -> None:
        with (self.folder / name).open("wb") as file:
            file.truncate(megabytes * MB)

    def posted(self) -> list[tuple[str, Decimal]]:
        return [(each.phase, each.amount) for each in self.ledger.transfers() if each.state == "posted"]

    def gb_hours(self) -> float:
        return sum(event.data["gb_hours"] for event in self.events.read(kinds=["storage"]))


@pytest.fixture
def bench(shared_store: Store, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**more: Any) -> Bench:
        made.append(Bench(shared_store, tmp_path, **more))
        return made[-1]

    yield make
    for each in made:
        each.lease.end_beating()


def test_bytes_are_paid_for_as_long_as_they_are_kept(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.keep("data", 100)
    meter = b.meter()
    meter.begin("collection", 3600, 500 * MB)
    b.clock.advance(10)
    meter.look("collection")
    b.keep("model", 300)  # 100 MB grow to 400: 250 in the mean
    b.clock.advance(20)
    meter.look("training")
    b.clock.advance(5)
    meter.close("training")
    assert [(phase, amount) for phase, amount in b.posted() if amount] == [
        ("collection", 1000 * MICRO),
        ("training", 5000 * MICRO),
        ("training", 2000 * MICRO),
    ]
    assert b.gb_hours() == pytest.approx((100 * 10 + 250 * 20 + 400 * 5) / 1000 / 3600)
    assert b.ledger.balance().reserved == 0
    assert meter.grown == 300 * MB


def test_what_is_to_come_is_held_and_given_back_as_it_passes(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.keep("data", 100)
    meter = b.meter()
    meter.begin("collection", 1000, 100 * MB)
    held = [meter.held]
    for _ in range(3):
        b.clock.advance(200)
        meter.look("training")
        held.append(meter.held)
        balance = b.ledger.balance()
        assert balance.reserved == meter.held
        assert balance.spent + balance.reserved <= Decimal("0.2") + 4 * MICRO
    assert [round(each, 3) for each in held] == [Decimal(each) / 1000 for each in (200, 160, 120, 80)]


def test_parts_of_a_nano_unit_are_carried_on(bench: Callable[..., Bench]) -> None:
    """A byte for a second is a billionth of a millionth; a thousand looks cost as much as one."""
    b = bench(price=Decimal("0.10"))
    b.keep("data", 7)
    meter = b.meter()
    meter.begin("training", 1e6, 0)
    for _ in range(1000):
        b.clock.advance(1.5)
        meter.look("training")
    exact = Decimal(7 * MB) * 1500 * Decimal("0.10") / (GB * MONTH_SECONDS)
    assert abs(b.ledger.balance().spent - exact) <= Decimal("1e-9")


def test_what_is_kept_between_runs_is_paid_by_upkeep_before_the_next(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.keep("data", 100)
    first = b.meter()
    first.begin("collection", 100, 0)
    first.close("training")
    b.clock.advance(1000)
    assert b.meter().begin("collection", 100, 0) == 100_000 * MICRO
    assert b.posted()[-1] == ("upkeep", 100_000 * MICRO)


def test_a_pause_that_the_budget_does_not_hold_refuses_the_run_and_charges_nothing(bench: Callable[..., Bench]) -> None:
    b = bench(total="6")
    b.keep("data", 1000)
    first = b.meter()
    first.begin("collection", 10, 0)
    first.close("training")
    spent = b.ledger.balance().spent
    b.clock.advance(7000)  # 7.00
    late = b.meter()
    with pytest.raises(OutOfBudget, match="storage since the last run"):
        late.begin("collection", 10, 0)
    late.close("training")
    assert b.ledger.balance().spent == spent and b.ledger.balance().reserved == 0
    b.ledger.add(Decimal(5), "more")
    assert b.meter().begin("collection", 10, 0) == 7


def test_a_run_that_its_storage_would_overdraw_does_not_begin(bench: Callable[..., Bench]) -> None:
    b = bench(total="6")
    b.keep("data", 1000)
    with pytest.raises(OutOfBudget, match="storage to the run's end"):
        b.meter().begin("collection", 7000, 0)


def test_after_a_kill_every_second_is_paid_once(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.keep("data", 100)
    killed = b.meter()
    killed.begin("collection", 1000, 0)
    b.clock.advance(30)
    killed.look("training")
    assert b.ledger.balance().reserved > 0  # of a process that is gone now
    b.clock.advance(70)
    after = b.meter()
    after.begin("collection", 500, 0)
    after.close("training")
    assert b.ledger.balance().spent == 10_000 * MICRO
    assert b.ledger.balance().reserved == 0


def test_whoever_lost_the_machine_charges_nothing_more(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.keep("data", 100)
    meter = b.meter()
    meter.begin("collection", 1000, 0)
    with b.store.begin() as transaction:
        b.lease.release(transaction)
    acquire(b.store, b.clock, b.ledger, Decimal(0), b.project)
    b.clock.advance(30)
    with pytest.raises(LeaseLost):
        meter.look("training")
    assert b.ledger.balance().spent == 0


def test_without_a_price_it_is_counted_and_costs_nothing(bench: Callable[..., Bench]) -> None:
    b = bench(price=None)
    b.keep("data", 500)
    meter = b.meter()
    meter.begin("collection", 1e9, 1e15)
    b.clock.advance(3600)
    meter.look("training")
    assert (b.ledger.transfers(), meter.held) == ([], 0)
    last = b.events.read(kinds=["storage"])[-1].data
    assert (last["gb_hours"], last["cost"]) == (pytest.approx(0.5), None)


def test_bytes_are_priced_upwards_to_the_nano_unit() -> None:
    assert cost_of_bytes(10**9, Decimal("0.09")) == 90_000_000
    assert cost_of_bytes(1, Decimal("0.09")) == 1
    assert cost_of_bytes(0, Decimal("0.09")) == 0
