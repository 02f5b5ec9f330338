from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.report.model import Comparison, Worth
from thriftune.report.returns import NO_POINTS, best_baseline, returns

WORTH = Worth(Decimal(300), "month", "12 months", Decimal(12))


def compared(difference, low, high, baseline="tfidf", metric="f1_macro"):
    return Comparison(baseline, metric, difference, low, high, None, "better")


def test_value_is_points_times_worth_times_periods():
    found = returns(compared(0.05, 0.02, 0.08), WORTH, Decimal("2.00"))
    assert found.status == "measured"
    assert found.points_gained == pytest.approx(5)
    assert found.value == pytest.approx(Decimal(5 * 300 * 12))
    assert found.ratio == pytest.approx(9000)
    assert (found.ratio_low, found.ratio_high) == (pytest.approx(3600), pytest.approx(14400))
    assert found.cost_per_point == pytest.approx(Decimal("0.40"))
    assert found.break_even_periods == pytest.approx(2 / 1500)
    assert found.break_even_points == pytest.approx(2 / 3600)


def test_the_best_baseline_is_the_one_gained_least_over_on_the_metric_asked_for():
    comparisons = [
        compared(0.3, 0.2, 0.4, "untuned"),
        compared(0.05, 0.02, 0.08, "tfidf"),
        compared(0.01, 0.0, 0.02, "tfidf", "accuracy"),
    ]
    assert best_baseline(comparisons, "f1_macro").baseline == "tfidf"
    assert best_baseline(comparisons, "bleu") is None


@pytest.mark.parametrize(
    ("comparison", "worth", "status"),
    [
        (None, WORTH, "not measured"),
        (compared(3.0, 2.0, 4.0, metric="perplexity"), WORTH, "not in points"),
        (compared(-0.01, -0.03, 0.01), WORTH, "no gain"),
        (compared(0.0, -0.03, 0.03), None, "no gain"),
        (compared(0.01, -0.02, 0.04), WORTH, "not proven"),
        (compared(0.05, 0.02, 0.08), None, "no worth stated"),
    ],
)
def test_what_does_not_follow_is_not_stated(comparison, worth, status):
    found = returns(comparison, worth, Decimal(1))
    assert found.status == status
    if status in ("not measured", "not in points"):
        assert found.points_gained is None
    if status == "no gain":
        assert found.cost_per_point is found.break_even_periods is None
    if worth is None or status in ("not measured", "not in points"):
        assert found.value is found.ratio is None


def test_nothing_spent_has_no_ratio():
    assert returns(compared(0.05, 0.02, 0.08), WORTH, Decimal(0)).ratio is None


@given(
    ends=st.tuples(*[st.floats(-1, 1)] * 3).map(sorted),
    per_point=st.decimals(0, 10**6, places=2),
    periods=st.integers(1, 60),
    cost=st.decimals(0, 10**6, places=9),
)
def test_intervals_keep_their_order_and_money_stays_exact(ends, per_point, periods, cost):
    low, middle, high = ends
    found = returns(compared(middle, low, high), Worth(per_point, "month", "", Decimal(periods)), cost)
    assert found.value_low <= found.value <= found.value_high
    assert all(isinstance(value, Decimal) for value in (found.value, found.value_low, found.value_high))
    if cost:
        assert found.ratio_low <= found.ratio <= found.ratio_high
    assert (found.cost_per_point is not None) == (middle / 0.01 > NO_POINTS)
