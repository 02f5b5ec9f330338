"""Alerts: each level of an allowance and of the total is told of once, whatever process spends the money."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.clock import ManualClock
from thriftune.events import EventLog
from thriftune.money.alerts import LEVELS
from thriftune.money.amounts import NANO, to_nano
from thriftune.money.ledger import Ledger
from thriftune.store import Store, open_store

ALLOWANCES = {"collection": Decimal("0.2"), "training": Decimal("0.8")}


def ledger_on(store: Store, project: str, **categories: str) -> Ledger:
    """A process's view of the project's ledger, its budget of 1.00 opened."""
    clock = ManualClock()
    ledger = Ledger(store, clock, project, EventLog(store, clock, project, 1))
    ledger.open_budget(Decimal(1), "USD", ALLOWANCES, {name: Decimal(amount) for name, amount in categories.items()})
    return ledger


def alerts(ledger: Ledger) -> list[tuple[str, str, int]]:
    told = [event.data for event in ledger.events.read(kinds=["alert"])]
    return [(data["scope"], data["name"], data["level"]) for data in told]


def spend(ledger: Ledger, amount: str, phase: str = "training", category: str = "machine") -> None:
    held = ledger.reserve(phase, category, to_nano(Decimal(amount)), "a unit")
    ledger.post(held, to_nano(Decimal(amount)), 1.0)


def test_each_level_is_told_once_when_it_is_spent(shared_store: Store, unused_name: str) -> None:
    ledger = ledger_on(shared_store, unused_name)
    spend(ledger, "0.39")
    assert alerts(ledger) == []
    spend(ledger, "0.01")
    assert alerts(ledger) == [("phase", "training", 50)]
    spend(ledger, "0.10")
    assert alerts(ledger)[1:] == [("total", "", 50)]
    spend(ledger, "0.30")
    assert alerts(ledger)[2:] == [("total", "", 80), ("phase", "training", 80), ("phase", "training", 100)]
    spend(ledger, "0.01", phase="collection")
    assert len(alerts(ledger)) == 5
    (event,) = [e for e in ledger.events.read(kinds=["alert"]) if e.data["level"] == 80 and e.data["scope"] == "total"]
    assert (event.data["spent"], event.data["allowance"], event.data["currency"]) == ("0.8", "1", "USD")


def test_a_later_process_tells_nothing_again_and_goes_on_where_the_first_was(
    shared_store: Store, unused_name: str
) -> None:
    spend(ledger_on(shared_store, unused_name), "0.45")
    second = ledger_on(shared_store, unused_name)
    spend(second, "0.10")
    third = ledger_on(shared_store, unused_name)
    spend(third, "0.10")
    assert alerts(third) == [("phase", "training", 50), ("total", "", 50), ("phase", "training", 80)]


def test_an_alert_that_is_rolled_back_is_told_when_it_comes_true(shared_store: Store, unused_name: str) -> None:
    ledger = ledger_on(shared_store, unused_name)
    with pytest.raises(RuntimeError, match="in the middle"), shared_store.begin() as transaction:
        ledger.charge("training", "machine", to_nano(Decimal("0.5")), "lost", 1.0, inside=transaction)
        raise RuntimeError("killed in the middle")
    assert alerts(ledger) == []
    spend(ledger, "0.5")
    assert alerts(ledger) == [("total", "", 50), ("phase", "training", 50)]


def test_added_money_begins_a_new_account_of_the_total(shared_store: Store, unused_name: str) -> None:
    ledger = ledger_on(shared_store, unused_name)
    spend(ledger, "0.55")
    ledger.add(Decimal(1), "it goes well")
    spend(ledger, "0.50")
    total = [(event.data["level"], event.data["allowance"]) for event in ledger.events.read(kinds=["alert"])]
    assert [each for each in total if each[1] in ("1", "2")] == [(50, "1"), (50, "2")]


def test_a_kind_of_cost_has_alerts_of_its_own_across_phases(shared_store: Store, unused_name: str) -> None:
    ledger = ledger_on(shared_store, unused_name, labels="0.10")
    assert ledger.balance().categories == {"labels": Decimal("0.10")}
    spend(ledger, "0.05", phase="collection", category="labels")
    spend(ledger, "0.01", category="machine")
    other = ledger_on(shared_store, unused_name, labels="0.10")
    spend(other, "0.05", category="labels")
    of_labels = [each for each in alerts(other) if each[0] == "category"]
    assert of_labels == [("category", "labels", 50), ("category", "labels", 80), ("category", "labels", 100)]


def test_an_allowance_that_is_stated_later_is_watched_from_then_on(shared_store: Store, unused_name: str) -> None:
    spend(ledger_on(shared_store, unused_name), "0.06", category="labels")
    ledger = ledger_on(shared_store, unused_name, labels="0.10")
    spend(ledger, "0.01", category="labels")
    assert ("category", "labels", 50) in alerts(ledger)


@given(st.lists(st.integers(0, NANO // 3), min_size=1, max_size=12))
def test_levels_are_exactly_those_that_the_spending_has_passed(
    tmp_path_factory: pytest.TempPathFactory, amounts
) -> None:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('alerts')}/thriftune.db")
    ledger = ledger_on(store, "drawn")
    for amount in amounts:
        ledger.charge("training", "machine", amount, "a unit", 1.0)
    spent = sum(amounts)
    passed = [level for level in LEVELS if spent and 100 * spent >= level * NANO]
    assert [level for scope, _, level in alerts(ledger) if scope == "total"] == passed
    store.close()
