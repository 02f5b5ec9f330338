from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.money.amounts import (
    LARGEST_NANO,
    NANOSECONDS_PER_HOUR,
    affordable_nanoseconds,
    cost_nano,
    from_nano,
    price_to_nano,
    shown_money,
    to_nano,
    upper_cost_nano,
)

prices = st.integers(0, 10**13)  # up to 10,000 an hour
stretches = st.integers(0, 10**15)  # up to eleven days
remainders = st.integers(0, NANOSECONDS_PER_HOUR - 1)


@given(st.integers(-LARGEST_NANO, LARGEST_NANO))
def test_an_amount_comes_back_exactly(nano: int) -> None:
    assert to_nano(from_nano(nano)) == nano


@given(st.integers(-LARGEST_NANO, LARGEST_NANO))
def test_an_amount_is_shown_without_an_exponent(nano: int) -> None:
    assert Decimal(f"{from_nano(nano):f}") == from_nano(nano)
    assert "E" not in f"{from_nano(nano):f}" + shown_money(from_nano(nano))


@given(prices, st.lists(stretches, max_size=20))
def test_however_time_is_cut_its_costs_sum_to_the_whole(price: int, parts: list[int]) -> None:
    total, remainder = 0, 0
    for part in parts:
        cost, remainder = cost_nano(part, price, remainder)
        assert 0 <= remainder < NANOSECONDS_PER_HOUR
        total += cost
    assert (total, remainder) == cost_nano(sum(parts), price)


@given(prices, stretches, remainders)
def test_an_upper_bound_pays_whatever_remainder_is_carried(price: int, stretch: int, remainder: int) -> None:
    assert cost_nano(stretch, price, remainder)[0] <= upper_cost_nano(stretch, price)


@given(prices.filter(bool), st.integers(0, 10**15))
def test_affordable_time_is_the_longest_that_an_amount_pays_for(price: int, nano: int) -> None:
    stretch = affordable_nanoseconds(nano, price)
    assert stretch * price <= nano * NANOSECONDS_PER_HOUR < (stretch + 1) * price


def test_three_dimes_are_thirty_cents() -> None:
    assert 3 * to_nano(Decimal("0.1")) == to_nano(Decimal("0.3"))


@pytest.mark.parametrize("amount", ["0.0000000001", "NaN", "Infinity", "9300000000"])
def test_an_amount_that_cannot_be_held_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="an amount of money"):
        to_nano(Decimal(amount))


def test_a_price_is_rounded_to_the_nearest_nano_unit() -> None:
    assert price_to_nano(Decimal("0.12345678949")) == 123_456_789
    with pytest.raises(ValueError, match="not negative"):
        price_to_nano(Decimal("-1"))


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "0.00 USD"),
        ("5", "5.00 USD"),
        ("1234.5", "1,234.50 USD"),
        ("0.0123", "0.0123 USD"),
        ("0.00045678", "0.000457 USD"),
    ],
)
def test_small_amounts_keep_three_digits(amount: str, shown: str) -> None:
    assert shown_money(Decimal(amount), "USD") == shown
