"""Random lives of a project against an account that the test keeps: reservations, postings, kills, prices, jumps.

The machine is a clock that the test moves, the database a file. What the test knows of money is what it added up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import update

from thriftune.budget.governor import Governor, Overheads
from thriftune.clock import ManualClock
from thriftune.errors import LeaseLost, OutOfBudget
from thriftune.events import EventLog
from thriftune.money.fence import Fence
from thriftune.money.leases import HEARTBEAT_SECONDS, acquire
from thriftune.money.ledger import Ledger, Reservation
from thriftune.money.meter import Meter
from thriftune.store import Store, open_store
from thriftune.store.tables import leases

PHASES = ("collection", "training", "evaluation")
NO_PROCESS = 2**22 + 1  # a pid that no Linux process has
NUMBERS = itertools.count(1)
CENT = 10**7  # nano-units
HOUR_NS = 3600 * 10**9
STORE: list[Store] = []  # a state machine has no fixtures: this module's database


class Lives(RuleBasedStateMachine):
    """Units bought beside the machine's time, and the machine's time, in processes that may be killed."""

    @initialize(total=st.integers(0, 2000), price=st.integers(0, 5000))
    def begin(self, total: int, price: int) -> None:
        self.project = f"lives-{next(NUMBERS)}"
        self.clock = ManualClock()
        self.total, self.spent = total * CENT, Fraction(0)  # nano-units
        self.held: dict[int, tuple[Reservation, int]] = {}
        self.settled: list[Reservation] = []
        self.fences: list[Fence] = []
        self.slack = 0  # what was charged beyond what was reserved: never clamped, never refused
        self.price, self.paid_until = price, self.clock.now()
        self._start()
        third = Decimal(total) / 100 / 4
        self.ledger.open_budget(Decimal(total) / 100, "USD", dict.fromkeys(PHASES, third.quantize(Decimal("0.01"))))
        self._take()

    def _start(self) -> None:
        self.events = EventLog(STORE[0], self.clock, self.project, 1)
        self.ledger = Ledger(STORE[0], self.clock, self.project, self.events)

    def _take(self) -> None:
        """A process on the machine; it pays from now on."""
        now = self.clock.now()
        lease = acquire(STORE[0], self.clock, self.ledger, Decimal(self.price), self.project, since=now)
        self.meter = Meter(STORE[0], self.clock, self.ledger, lease, None, started=now)
        self.lease, self.paid_until = lease, max(now, self.paid_until)  # the dead one's last second is not paid twice
        self.fences.append(lease.fence)

    def _pay(self, until: float, price: int) -> None:
        nanoseconds = round(until * 10**9) - round(self.paid_until * 10**9)
        self.spent += Fraction(max(0, nanoseconds) * price * 10**9, HOUR_NS)
        self.paid_until = max(until, self.paid_until)

    @rule(phase=st.sampled_from(PHASES), cents=st.integers(0, 400))
    def reserve(self, phase: str, cents: int) -> None:
        fits = cents * CENT <= self.left()
        try:
            made = self.ledger.reserve(phase, "tokens bought", cents * CENT, "bought", fence=self.lease.fence)
        except OutOfBudget:
            assert not fits
        else:
            assert fits
            self.held[made.id] = made, cents * CENT

    def left(self) -> int:
        return self.total - int(self.spent) - sum(nano for _, nano in self.held.values())

    @precondition(lambda self: self.held)
    @rule(pick=st.randoms(use_true_random=False), share=st.fractions(0, 1), beyond=st.integers(0, 50))
    def post(self, pick, share: Fraction, beyond: int) -> None:
        made, held = self.held.pop(pick.choice(sorted(self.held)))
        actual = int(held * share) + (beyond * CENT if beyond < 5 else 0)
        self.ledger.post(made, actual, 0.0)
        self.spent += actual
        self.slack += max(0, actual - held)
        self.settled.append(made)

    @precondition(lambda self: self.held)
    @rule(pick=st.randoms(use_true_random=False))
    def give_back(self, pick) -> None:
        made, _ = self.held.pop(pick.choice(sorted(self.held)))
        self.ledger.void(made)
        self.settled.append(made)

    @precondition(lambda self: self.settled)
    @rule(pick=st.randoms(use_true_random=False))
    def a_settled_one_is_never_charged_again(self, pick) -> None:
        again = pick.choice(self.settled)
        with pytest.raises((ValueError, LeaseLost)):
            self.ledger.post(again, CENT, 0.0)

    @rule(upper=st.floats(0, 500), share=st.floats(0, 1))
    def work(self, upper: float, share: float) -> None:
        """A unit of machine time that keeps to its bound."""
        self.meter.recount()
        with suppress(OutOfBudget), self.meter.unit("training", "steps", upper):
            before = self.clock.now()
            self.clock.advance(upper * share)
            self._pay(before + upper * share, self.price)

    @rule(cents=st.integers(1, 300))
    def add(self, cents: int) -> None:
        self.ledger.add(Decimal(cents) / 100, "more")
        self.total += cents * CENT

    @rule(seconds=st.floats(0, 3 * HEARTBEAT_SECONDS), waits=st.floats(0, 1e6), price=st.integers(0, 5000))
    def killed_in_a_unit_and_begun_again(self, seconds: float, waits: float, price: int) -> None:
        """Nobody posts what was open; the next process pays it, once, at the price of the one that died."""
        now = self.clock.now()
        try:
            until_ns = round((now + 10) * 10**9)
            upper = self.lease.unpaid_nano(until_ns)
            self.ledger.reserve("training", "machine", upper, "steps", fence=self.lease.fence, until_ns=until_ns)
        except OutOfBudget:
            return
        self.clock.advance(seconds)
        self.lease.beat()
        alive = self.clock.now()
        self.clock.advance(waits)
        with STORE[0].begin() as transaction:
            dead = update(leases).where(leases.c.machine == self.project).values(owner_pid=NO_PROCESS)
            transaction.execute(dead)
        old = self.price
        self.spent += sum(nano for _, nano in self.held.values())  # nobody knows whether it was bought
        self.settled += [made for made, _ in self.held.values()]
        self.held.clear()
        self.price = price
        self._start()
        last = min(alive + HEARTBEAT_SECONDS, now + 10)
        self._pay(max(alive, last), old)
        lost = self.fences[-1]
        self._take()
        with pytest.raises(LeaseLost):
            self.ledger.charge("training", "machine", CENT, "a ghost's", 1.0, fence=lost)

    @rule(seconds=st.floats(0, 1e5))
    def the_clock_jumps_in_a_unit(self, seconds: float) -> None:
        """A stall is paid in full, however long: charges are never clamped."""
        try:
            with self.meter.unit("training", "a stall", 0.5):
                self.clock.advance(seconds)
        except OutOfBudget:
            return
        was = self.spent
        self._pay(self.clock.now(), self.price)
        self.slack += int(self.spent - was) + 1

    @invariant()
    def the_sums_agree_with_ours(self) -> None:
        if not hasattr(self, "meter"):
            return
        balance, entries = self.ledger.balance(), self.ledger.transfers()
        spent, reserved = int(balance.spent.scaleb(9)), int(balance.reserved.scaleb(9))
        assert abs(spent - self.spent) <= 1 + len(self.fences)  # a remainder of a nano-unit a process
        assert reserved == sum(nano for _, nano in self.held.values())
        assert sum(e.amount for e in entries if e.state == "posted") == balance.spent
        assert sum(e.reserved for e in entries if e.state == "pending") == balance.reserved
        assert sum(p.spent for p in balance.phases.values()) == balance.spent
        assert sum(p.reserved for p in balance.phases.values()) == balance.reserved
        told = sum((Decimal(e.data["amount"]) for e in self.events.read(kinds=["charge"])), Decimal(0))
        assert told == balance.spent
        assert spent + reserved <= self.total + self.slack + 1 + len(self.fences)


@pytest.fixture(autouse=True, scope="module")
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("lives")
    STORE.append(open_store(f"sqlite:///{folder}/thriftune.db"))
    yield
    STORE.pop().close()


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(max_examples=40, deadline=None)
@given(
    share=st.floats(0.3, 1.5),
    step=st.floats(0.05, 2.0),
    tail=st.floats(10, 60),
    validation=st.floats(0, 4),
    every=st.integers(5, 30),
    slower=st.floats(0.7, 2.0),
    wavering=st.lists(st.floats(0.9, 1.1), min_size=1, max_size=40),
    by_money=st.booleans(),
)
def test_a_governed_loop_leaves_the_tail_its_seconds(
    share: float,
    step: float,
    tail: float,
    validation: float,
    every: int,
    slower: float,
    wavering: list[float],
    by_money: bool,
) -> None:
    """Whatever the pace does, training ends with the tail left but for the last step's own surprise."""
    clock, limit = ManualClock(), tail + validation + share * 60 * step
    name, store = f"governed-{next(NUMBERS)}", STORE[0]
    ledger = Ledger(store, clock, name, EventLog(store, clock, name, 1))
    price = Decimal(3600)
    ledger.open_budget(Decimal(f"{limit if by_money else 10 * limit:.6f}"), "USD", {"training": Decimal(0)})
    ends = None if by_money else clock.now() + limit
    meter = Meter(store, clock, ledger, acquire(store, clock, ledger, price, name), ends, started=clock.now())
    overheads = Overheads(validation, every, 0.0, 30.0)
    governor = Governor(meter.remaining_seconds, tail + validation, 60, overheads)
    planned, done, recent, slowest = governor.planned(step), 0, [step], step
    while done < planned:
        took = step * slower * wavering[done % len(wavering)]
        try:
            with meter.unit("training", "steps", 1.5 * max(recent) + 0.25):
                clock.advance(took)
            done, slowest, recent = done + 1, max(slowest, took), [*recent, took][-8:]
            if done % every == 0 and done < planned:
                with meter.unit("training", "validation", 1.5 * validation + 0.25):
                    clock.advance(validation)
        except OutOfBudget:
            break
        change = governor.review(done, planned, sorted(recent)[len(recent) // 2])
        planned = planned if change is None else change
    assert ledger.balance().left >= 0
    assert meter.remaining_seconds() >= 0
    if done:
        assert governor.free() >= -(slowest + validation)
