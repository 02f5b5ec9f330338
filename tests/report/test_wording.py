from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.report import wording


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0", "$0.00"),
        ("0.21", "$0.21"),
        ("0.05", "$0.05"),
        ("0.00366", "$0.0037"),
        ("0.000000001", "$0.000000001"),
        ("18720.4", "$18,720"),
        ("-3.5", "−$3.50"),
    ],
)
def test_money_shows_cents_and_two_figures_of_less(amount, said):
    assert wording.money(Decimal(amount), "USD") == said


def test_money_of_another_currency_and_of_none():
    assert wording.money(Decimal("2.5"), "CHF") == "2.50 CHF"
    assert wording.money(None, "USD") == wording.MISSING


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (125, "2 min 05 s"),
        (1200, "20 min"),
        (3600, "1 h"),
        (86_400 * 3 + 7200, "3 d 02 h"),
        (-30, "−30 s"),
        (None, wording.MISSING),
    ],
)
def test_durations_in_their_two_largest_units(seconds, said):
    assert wording.duration(seconds) == said


@pytest.mark.parametrize(("ratio", "said"), [(0.42, "0.42×"), (3.14, "3.1×"), (123_456.0, "123,000×"), (-12.0, "−12×")])
def test_multiples_in_three_figures(ratio, said):
    assert wording.times(ratio) == said


@given(st.text())
def test_nothing_that_could_drive_a_terminal_is_left(text):
    assert not any(character in wording.plain(text) for character in "\x1b\x07\x08\x9b\r\x00")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_recorded_value_can_be_said(value):
    assert isinstance(wording.as_text(value), str)


def test_figures_are_held_to_their_units():
    assert wording.tight("4 min 05 s, 30 %, +5.2 points") == "4\u00a0min 05\u00a0s, 30\u00a0%, +5.2\u00a0points"
