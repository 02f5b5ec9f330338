from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from thriftune.clock import ManualClock
from thriftune.errors import BadInput, OutOfBudget
from thriftune.events import EventLog
from thriftune.money.amounts import from_nano, to_nano
from thriftune.money.ledger import Balance, Ledger, Reservation
from thriftune.store import Store

PHASES = ("collection", "training", "evaluation", "deployment")
NAMES = (f"project-{number}" for number in itertools.count())


@pytest.fixture
def store(shared_store: Store) -> Store:
    return shared_store


def new_ledger(store: Store, total: str = "1.00", **allowances: str) -> Ledger:
    clock = ManualClock()
    name = next(NAMES)
    ledger = Ledger(store, clock, name, EventLog(store, clock, name, 1))
    allowed = {phase: Decimal(allowances.get(phase, "0")) for phase in PHASES}
    ledger.open_budget(Decimal(total), "USD", allowed)
    return ledger


def charged(ledger: Ledger) -> Decimal:
    events = ledger.events.read(kinds=["charge"])
    return sum((Decimal(event.data["amount"]) for event in events), Decimal(0))


def moved(ledger: Ledger) -> list[tuple[str, str, str]]:
    events = ledger.events.read(kinds=["budget.moved"])
    return [(event.data["source"], event.data["target"], event.data["amount"]) for event in events]


def test_a_reservation_is_held_then_settled_at_what_it_cost(store: Store) -> None:
    ledger = new_ledger(store, training="0.60")
    held = ledger.reserve("training", "machine", to_nano(Decimal("0.5")), "steps")
    assert ledger.balance().reserved == Decimal("0.5") and ledger.balance().spent == 0
    assert ledger.post(held, to_nano(Decimal("0.2")), 3.0) == to_nano(Decimal("0.8"))
    balance = ledger.balance()
    assert (balance.spent, balance.reserved, balance.left) == (Decimal("0.2"), 0, Decimal("0.8"))
    (transfer,) = ledger.transfers()
    assert (transfer.state, transfer.amount, transfer.seconds, transfer.estimated) == (
        "posted",
        Decimal("0.2"),
        3.0,
        False,
    )
    (event,) = ledger.events.read(kinds=["charge"])
    assert event.data == {
        "transfer": transfer.id,
        "phase": "training",
        "category": "machine",
        "unit": "steps",
        "amount": "0.2",
        "seconds": 3.0,
        "estimated": False,
    }


def test_a_charge_is_never_clamped(store: Store) -> None:
    ledger = new_ledger(store, total="0.10", training="0.10")
    held = ledger.reserve("training", "machine", to_nano(Decimal("0.1")), "steps")
    ledger.post(held, to_nano(Decimal("0.3")), 1.0)
    assert ledger.balance().spent == Decimal("0.3") and ledger.balance().left == Decimal("-0.2")
    with pytest.raises(OutOfBudget):
        ledger.reserve("training", "machine", 0, "nothing at all")


def test_a_transfer_is_settled_once(store: Store) -> None:
    ledger = new_ledger(store, training="1")
    held = ledger.reserve("training", "machine", 5, "steps")
    ledger.post(held, 5, 1.0)
    with pytest.raises(ValueError, match="settled already"):
        ledger.post(held, 5, 1.0)
    with pytest.raises(ValueError, match="settled already"):
        ledger.void(held)
    assert ledger.balance().spent == from_nano(5) == charged(ledger)


def test_a_refusal_gives_the_numbers_and_holds_nothing(store: Store) -> None:
    ledger = new_ledger(store, training="1")
    ledger.charge("training", "machine", to_nano(Decimal("0.75")), "start-up", 1.0)
    with pytest.raises(OutOfBudget) as caught:
        ledger.reserve("training", "machine", to_nano(Decimal("0.5")), "validation")
    assert "0.25 USD left of 1.00 USD (0.75 USD spent" in caught.value.found
    assert "0.50 USD" in caught.value.expected and "validation" in caught.value.what and caught.value.way_out
    assert ledger.balance().reserved == 0 and len(ledger.transfers()) == 1


def test_missing_allowance_moves_from_the_unallotted_then_earlier_then_the_far_end(store: Store) -> None:
    ledger = new_ledger(store, collection="0.1", training="0.2", evaluation="0.3", deployment="0.3")
    ledger.reserve("training", "machine", to_nano(Decimal("0.95")), "steps")
    assert moved(ledger) == [
        ("unallotted", "training", "0.1"),
        ("collection", "training", "0.1"),
        ("deployment", "training", "0.3"),
        ("evaluation", "training", "0.25"),
    ]
    by_phase = ledger.balance().phases
    assert [by_phase[phase].allowance for phase in PHASES] == [0, Decimal("0.95"), Decimal("0.05"), 0]
    assert all(event.data["reason"] == "reserved for steps" for event in ledger.events.read(kinds=["budget.moved"]))


def test_an_overspend_is_taken_from_somewhere_and_says_from_where(store: Store) -> None:
    ledger = new_ledger(store, training="0.5", evaluation="0.5")
    held = ledger.reserve("training", "machine", to_nano(Decimal("0.5")), "a stalled step")
    ledger.post(held, to_nano(Decimal("0.6")), 1.0)
    assert moved(ledger) == [("evaluation", "training", "0.1")]


def test_what_a_working_unit_holds_is_not_moved_away(store: Store) -> None:
    ledger = new_ledger(store, training="0.5", evaluation="0.5")
    ledger.reserve("evaluation", "machine", to_nano(Decimal("0.5")), "test split")
    with pytest.raises(OutOfBudget):
        ledger.reserve("training", "machine", to_nano(Decimal("0.51")), "steps")
    assert moved(ledger) == []


def test_added_money_is_a_recorded_decision(store: Store) -> None:
    ledger = new_ledger(store, total="0.10", training="0.10")
    assert ledger.add(Decimal("0.40"), "the first run showed promise").unallotted == Decimal("0.4")
    (event,) = ledger.events.read(kinds=["budget.added"])
    assert event.data == {"amount": "0.40", "reason": "the first run showed promise"}
    ledger.reserve("training", "machine", to_nano(Decimal("0.5")), "steps")
    for amount in ("0", "-1", "1e-10", "1e10"):
        with pytest.raises(BadInput):
            ledger.add(Decimal(amount), "none")


def test_an_allowance_moves_by_decision_only_as_far_as_it_is_unspent(store: Store) -> None:
    ledger = new_ledger(store, training="0.5", evaluation="0.3")
    ledger.charge("training", "machine", to_nano(Decimal("0.4")), "steps", 1.0)
    balance = ledger.move("training", "evaluation", Decimal("0.1"), "more rows to judge")
    assert balance.phases["evaluation"].allowance == Decimal("0.4")
    assert ledger.move("unallotted", "training", Decimal("0.2"), "so be it").unallotted == 0
    with pytest.raises(BadInput, match="cannot be moved"):
        ledger.move("training", "evaluation", Decimal("0.21"), "too much")
    with pytest.raises(BadInput, match="no such phase"):
        ledger.move("training", "evalution", Decimal("0.1"), "misspelt")


def test_opening_again_changes_nothing(store: Store) -> None:
    ledger = new_ledger(store, training="0.5")
    ledger.charge("training", "machine", 7, "start-up", 1.0)
    ledger.add(Decimal(1), "more")
    before = ledger.balance()
    ledger.open_budget(Decimal("1.00"), "USD", {p: Decimal("0.5" if p == "training" else 0) for p in PHASES})
    assert ledger.balance() == before
    assert len(ledger.events.read(kinds=["budget.added"])) == 1


def test_a_total_changed_in_the_project_file_is_recorded_and_keeps_what_was_added(store: Store) -> None:
    ledger = new_ledger(store, total="1.00", training="0.6")
    ledger.add(Decimal("0.5"), "more")
    ledger.open_budget(Decimal("2.00"), "USD", {"training": Decimal("1.2"), "evaluation": Decimal("0.3")})
    balance = ledger.balance()
    assert balance.total == Decimal("2.5")
    assert (balance.phases["training"].allowance, balance.phases["evaluation"].allowance) == (
        Decimal("1.2"),
        Decimal("0.3"),
    )
    assert balance.unallotted == Decimal("1.0")
    assert [event.data["amount"] for event in ledger.events.read(kinds=["budget.added"])] == ["0.5", "1"]
    (decision,) = ledger.events.read(kinds=["decision"])
    assert decision.data["what"] == "allowances" and decision.data["at_step"] == 0


def test_a_lowered_total_is_taken_from_what_the_end_of_the_line_has_not_spent(store: Store) -> None:
    ledger = new_ledger(store, total="1.00", training="0.6", evaluation="0.2", deployment="0.2")
    ledger.charge("training", "machine", to_nano(Decimal("0.5")), "steps", 1.0)
    ledger.open_budget(
        Decimal("0.60"),
        "USD",
        {"training": Decimal("0.2"), "evaluation": Decimal("0.2"), "deployment": Decimal("0.2")},
    )
    allowed = {phase: held.allowance for phase, held in ledger.balance().phases.items()}
    assert allowed == {
        "collection": 0,
        "training": Decimal("0.5"),
        "evaluation": Decimal("0.1"),
        "deployment": 0,
    }
    assert ledger.events.read(kinds=["budget.added"])[0].data["amount"] == "-0.4"


def test_a_project_file_that_allows_more_than_the_total_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="more than the total"):
        new_ledger(store, total="1.00", training="0.6", evaluation="0.5")


def test_a_currency_is_kept(store: Store) -> None:
    ledger = new_ledger(store)
    with pytest.raises(BadInput, match="keeps its currency"):
        ledger.open_budget(Decimal(1), "EUR", {})


def test_a_project_without_a_budget_is_told_to_run(store: Store) -> None:
    clock = ManualClock()
    ledger = Ledger(store, clock, "unknown", EventLog(store, clock, "unknown", 1))
    with pytest.raises(BadInput, match="no budget yet"):
        ledger.balance()
    with pytest.raises(BadInput, match="no budget yet"):
        ledger.reserve("training", "machine", 1, "steps")


def test_projects_in_one_database_do_not_touch_each_other(store: Store) -> None:
    one, other = new_ledger(store, training="1"), new_ledger(store, training="1")
    one.charge("training", "machine", 10, "steps", 1.0)
    assert other.balance().spent == 0 and other.transfers() == [] and other.events.read() == []


def test_a_deadline_is_fixed_at_the_first_run_and_moves_by_decision(store: Store) -> None:
    ledger = new_ledger(store)
    assert ledger.open_deadline(timedelta(hours=2), started_at=1000.0) == 8200.0
    assert ledger.open_deadline(timedelta(hours=2), started_at=5000.0) == 8200.0
    assert ledger.events.read(kinds=["decision"]) == []
    assert ledger.open_deadline(timedelta(hours=3), started_at=6000.0) == 11800.0
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert ledger.open_deadline(noon, started_at=7000.0) == noon.timestamp() == ledger.balance().deadline_at
    assert ledger.open_deadline(None, started_at=7000.0) is None
    assert [event.data["chosen"] for event in ledger.events.read(kinds=["decision"])] == [
        11800.0,
        noon.timestamp(),
        None,
    ]


def allowed(balance: Balance) -> Decimal:
    return sum((phase.allowance for phase in balance.phases.values()), Decimal(0))


amounts = st.integers(0, 400_000_000)


class SpendingModel(RuleBasedStateMachine):
    """The ledger against a plain model of it: one sum spent, one reserved, one allowed."""

    store: Store

    held: Bundle[Reservation] = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = new_ledger(self.store, total="1.00", collection="0.1", training="0.4", evaluation="0.3")
        self.total, self.declared = 1_000_000_000, 1_000_000_000
        self.spent, self.reserved = 0, 0
        self.most_allowed = self.total

    @rule(target=held, phase=st.sampled_from(PHASES), upper=amounts)
    def reserve(self, phase: str, upper: int) -> Reservation | None:
        fits = self.spent + self.reserved + upper <= self.total
        try:
            reservation = self.ledger.reserve(phase, "machine", upper, "unit")
        except OutOfBudget:
            assert not fits
            return None
        assert fits
        self.reserved += upper
        assert reservation.left_nano == self.total - self.spent - self.reserved
        of_phase = self.ledger.balance().phases[phase]
        assert of_phase.allowance >= of_phase.spent + of_phase.reserved
        return reservation

    @rule(reservation=consumes(held), actual=amounts)
    def post(self, reservation: Reservation | None, actual: int) -> None:
        if reservation is None:
            return
        self.reserved -= reservation.upper_nano
        self.spent += actual
        assert self.ledger.post(reservation, actual, 1.0) == self.total - self.spent - self.reserved

    @rule(reservation=consumes(held))
    def void(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self.reserved -= reservation.upper_nano
            self.ledger.void(reservation)

    @rule(phase=st.sampled_from(PHASES), amount=amounts)
    def charge(self, phase: str, amount: int) -> None:
        self.spent += amount
        self.ledger.charge(phase, "machine", amount, "gap", 1.0)

    @rule(amount=amounts.filter(bool))
    def add(self, amount: int) -> None:
        self.total += amount
        self.most_allowed += amount
        self.ledger.add(from_nano(amount), "more")

    @rule(source=st.sampled_from([*PHASES, "unallotted"]), receiver=st.sampled_from(PHASES), amount=amounts)
    def move(self, source: str, receiver: str, amount: int) -> None:
        before = self.ledger.balance()
        try:
            after = self.ledger.move(source, receiver, from_nano(amount), "moved")
        except BadInput:
            after = self.ledger.balance()
        assert allowed(after) + after.unallotted == allowed(before) + before.unallotted

    @rule(total=st.integers(0, 2_000_000_000))
    def redeclare(self, total: int) -> None:
        self.total += total - self.declared
        self.declared = total
        after = self.ledger.open_budget(from_nano(total), "USD", {"training": from_nano(total // 2)})
        self.most_allowed = max(self.total, to_nano(allowed(after)))
        assert to_nano(allowed(after)) <= max(self.total, self.spent + self.reserved)

    @invariant()
    def the_sums_agree(self) -> None:
        balance = self.ledger.balance()
        assert to_nano(balance.total) == self.total
        assert to_nano(balance.spent) == self.spent
        assert to_nano(balance.reserved) == self.reserved
        assert sum(held.spent for held in balance.phases.values()) == balance.spent
        assert sum(held.reserved for held in balance.phases.values()) == balance.reserved
        assert to_nano(allowed(balance)) <= self.most_allowed

    def teardown(self) -> None:
        posted = sum(each.amount for each in self.ledger.transfers() if each.state == "posted")
        pending = sum(each.reserved for each in self.ledger.transfers() if each.state == "pending")
        assert posted == from_nano(self.spent) == charged(self.ledger)
        assert pending == from_nano(self.reserved)


def test_the_ledger_agrees_with_a_plain_model_of_it(store: Store) -> None:
    class Bound(SpendingModel):
        pass

    Bound.store = store
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Bound,
        settings=settings(
            max_examples=20 if store.dialect == "sqlite" else 10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_a_plan_asks_for_the_deadline_that_a_run_would_fix_and_fixes_nothing(store: Store) -> None:
    ledger = new_ledger(store)
    ledger.open_deadline(timedelta(minutes=1), started_at=1000.0)
    assert ledger.open_deadline(timedelta(hours=1), started_at=2000.0, fixes=False) == 4600.0
    assert ledger.balance().deadline_at == 1060.0
