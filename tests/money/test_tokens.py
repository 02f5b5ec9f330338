from datetime import date
from decimal import Decimal

import pytest

from real_context import open_context
from thriftune.errors import BadInput, OutOfBudget
from thriftune.money.tokens import COLUMNS, OWN_FILE, TokenMeter, TokenPrice, tariff_of

NOW = 1_764_000_000.0  # November 2025
MODEL = "gemini-2.5-flash"


def test_the_prices_that_ship_are_dated_and_told_to_be_old(tmp_path):
    tariff = tariff_of("vertex", MODEL, "USD", tmp_path)
    assert (tariff.training.per_million, tariff.input.per_million, tariff.output.per_million) == (
        Decimal("5.00"),
        Decimal("0.30"),
        Decimal("2.50"),
    )
    assert tariff.training.source
    assert tariff.training.as_of == date(2025, 6, 17)
    assert "160 days old" in str(tariff.warning(NOW))
    assert tariff.warning(NOW - 100 * 86_400) is None


def test_a_users_price_stands_above_the_one_that_ships_and_has_no_age(tmp_path):
    lines = [",".join(COLUMNS), *(f"vertex,{MODEL},{use},7,USD,bill," for use in ("training", "input", "output"))]
    (tmp_path / OWN_FILE).write_text("\n".join(lines) + "\n")
    tariff = tariff_of("vertex", MODEL, "USD", tmp_path)
    assert tariff.training.per_million == 7
    assert tariff.warning(NOW) is None


@pytest.mark.parametrize(("model", "currency"), [("gemini-9", "USD"), (MODEL, "EUR")])
def test_a_missing_price_is_an_error_and_never_nothing(tmp_path, model, currency):
    with pytest.raises(BadInput, match="no price is known") as caught:
        tariff_of("vertex", model, currency, tmp_path)
    assert str(tmp_path / OWN_FILE) in caught.value.way_out


@pytest.mark.parametrize("row", ["vertex,m,training,dear,USD,,", "vertex,m,tuning,1,USD,,", "vertex,m", "a\x00b"])
def test_a_price_file_that_cannot_be_read_is_told_with_its_line(tmp_path, row):
    (tmp_path / OWN_FILE).write_text(",".join(COLUMNS) + f"\n{row}\n")
    with pytest.raises(BadInput, match="cannot be read") as caught:
        tariff_of("vertex", MODEL, "USD", tmp_path)
    assert OWN_FILE in caught.value.where


def test_a_cost_is_exact_and_a_part_of_a_nano_unit_is_rounded_up():
    price = TokenPrice("p", "m", "input", Decimal("0.0001"), "USD")
    assert price.cost_nano(10**6) == 100_000
    assert price.cost_nano(1) == 1
    assert TokenPrice("p", "m", "input", Decimal("0.30"), "USD").cost_nano(7) == 2_100


def test_answers_are_bought_within_the_budget_and_charged_by_what_they_took(tmp_path):
    tariff = tariff_of("vertex", MODEL, "USD", tmp_path)
    with open_context(tmp_path, "evaluation") as context:
        meter = TokenMeter(context.ledger, tariff, "evaluation", context.meter.fence)
        with pytest.raises(RuntimeError), meter.buying("answers", 1000, 100) as bought:
            bought.add(500, 10)
            raise RuntimeError  # what was bought before is charged
        with pytest.raises(OutOfBudget), meter.buying("too many", 10**16, 0):
            raise AssertionError("nothing is asked")
        entries = [entry for entry in context.ledger.transfers() if entry.category == "tokens bought"]
        assert [(entry.reserved, entry.amount) for entry in entries] == [(Decimal("0.00055"), Decimal("0.000175"))]
