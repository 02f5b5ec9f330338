"""What a review says by its figures alone: danger, what could be given up, what that saves, whether it is enough."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.budget.forecast import Forecast
from thriftune.plan.plan import Limits, Part, Plan
from thriftune.plan.review import (
    DEEPER_FREEZE,
    FEWER_TRIALS,
    Proposal,
    Review,
    because,
    fewer_trials,
    in_danger,
    least_of,
    proposal_of,
    with_part,
)


def limits(seconds: float) -> Limits:
    """So many seconds left of the money, twice as many to the deadline, at 3.60 an hour."""
    return Limits(
        seconds_used=10.0,
        money_seconds=seconds,
        time_seconds=2 * seconds,
        price_per_hour=Decimal("3.60"),
        currency="USD",
        spent_before=Decimal(0),
        elapsed_before=0.0,
        money_left=Decimal(repr(seconds)) / 1000,
    )


def plan(left: float, search: float = 100.0, train: float = 200.0) -> Plan:
    return Plan(
        (
            Part("training", "search", Forecast.of([0.0, search / 2, search, search, search], "probe")),
            Part("training", "train", Forecast.exact(train, "probe"), Forecast.exact(5.0, "probe")),
            Part("evaluation", "tuned", Forecast.exact(20.0, "probe")),
        ),
        limits(left),
    )


def test_the_total_is_in_danger_once_its_95th_percentile_is_more_than_what_is_left() -> None:
    assert not in_danger(plan(left=320.0)) and in_danger(plan(left=319.9))


def test_a_search_gives_up_just_what_is_missing() -> None:
    found = fewer_trials(plan(left=290.0), [FEWER_TRIALS])
    assert found is not None and found.chosen == pytest.approx(70.0) and found.enough and found.allowed
    assert found.seconds == pytest.approx(30.0) and found.money == pytest.approx(Decimal("0.03"))
    assert "70 s instead of 100 s" in found.says


def test_a_search_that_gives_up_all_may_still_not_be_enough() -> None:
    found = fewer_trials(plan(left=200.0), [])
    assert found is not None and found.chosen == 0.0 and not found.enough and not found.allowed
    assert found.seconds == pytest.approx(100.0)


@given(st.floats(1.0, 1000.0), st.floats(0.1, 1000.0), st.floats(1.0, 1000.0))
def test_a_proposal_that_is_enough_leaves_nothing_in_danger(left: float, search: float, train: float) -> None:
    before = plan(left, search, train)
    found = fewer_trials(before, [])
    assert found is not None
    after = with_part(before, "search", Forecast.of([0.0, *[found.chosen] * 4], "probe"))
    assert in_danger(after) is not found.enough or after.full.p95 == pytest.approx(left)
    assert found.seconds >= 0 and (found.saves or not in_danger(before))


def test_without_a_search_there_is_none_to_cut() -> None:
    assert fewer_trials(with_part(plan(1.0), "search", Forecast.exact(0.0)), []) is None


def frozen(layers: int, seconds: float, enough: bool) -> Proposal:
    return Proposal(DEEPER_FREEZE, layers, f"{layers} layers", seconds, Decimal(0), enough)


def test_the_least_that_is_enough_is_proposed_or_else_what_saves_most() -> None:
    two, three, four = frozen(2, 10.0, False), frozen(3, 20.0, True), frozen(4, 30.0, True)
    assert least_of([two, three, four]) == three
    assert least_of([two, frozen(3, 20.0, False)]) == frozen(3, 20.0, False)
    assert least_of([frozen(2, -1.0, True)]) is None and least_of([]) is None


def test_a_move_is_told_with_its_figures_and_saves_by_the_medians() -> None:
    before = plan(left=290.0)
    found = proposal_of(
        before, with_part(before, "train", Forecast.exact(50.0)), DEEPER_FREEZE, 3, "3 of 6 layers frozen", []
    )
    assert (found.seconds, found.money, found.enough) == (150.0, Decimal("0.15"), True)
    said = because(before, found)
    assert "may take 320 s and the budget leaves 290 s" in said and "saves 150 s, 0.1500 USD" in said
    told = Review("now", before, (found,)).told()
    assert told["in_danger"] and told["seconds"][4] == 320.0 and told["cost"][4] == "0.320000000"
    assert told["limit_seconds"] == 290.0 and told["proposals"][0]["saves_money"] == "0.150000000"
