"""What parts took on this machine before, as a forecast: sharper with every figure, and never of another machine."""

import random
from statistics import median

import pytest

from thriftune.budget.record import MIN_FIGURES, PRIOR_SPREAD, RECORD_SPREAD, Record


@pytest.fixture
def record(tmp_path) -> Record:
    return Record(tmp_path / "record.json", "a machine")


def spread(record: Record) -> float:
    forecast = record.forecast("load")
    return forecast.p95 / forecast.p50 - 1


def test_what_was_never_done_here_is_a_wide_guess(record):
    guess = record.forecast("load", amount=10, prior=2.0)
    assert (guess.basis, guess.p50) == ("prior", pytest.approx(20.0))
    assert guess.p95 == pytest.approx(20.0 * (1 + PRIOR_SPREAD))


def test_even_figures_make_the_forecast_sharper_one_by_one(record):
    spreads = []
    for _ in range(8):
        record.add("load", 3.0)
        spreads.append(spread(record))
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] > RECORD_SPREAD  # one figure: the centre is uncertain too
    assert spreads[-1] < 0.65 * RECORD_SPREAD


def test_uneven_figures_make_it_wide_but_no_wider_than_a_guess(record):
    for seconds in (2.0, 3.0, 4.5):
        record.add("load", seconds)
    assert RECORD_SPREAD < spread(record) < PRIOR_SPREAD
    record.add("load", 90.0)
    assert spread(record) == pytest.approx(PRIOR_SPREAD)


@pytest.mark.parametrize("figures", [3, 6, 12, MIN_FIGURES + 1])
def test_about_one_in_twenty_takes_longer_than_the_95th_percentile(tmp_path, figures):
    """On a machine whose durations vary as much as the prior says; 2,000 records, seed 5."""
    drawn = random.Random(5)
    beyond = 0
    for _ in range(2000):
        record = Record(tmp_path / "none.json", "a machine")
        for _ in range(figures):
            record.add("load", drawn.lognormvariate(1.0, 0.18))
        beyond += drawn.lognormvariate(1.0, 0.18) > record.forecast("load").p95
    assert 0.02 <= beyond / 2000 <= 0.09


def test_units_scale_and_other_machines_do_not_count(record):
    for seconds in (9.0, 10.0, 11.0):
        record.add("encode", seconds, amount=1000)
    assert record.forecast("encode", amount=500).p50 == pytest.approx(5.0)
    record.save()
    assert Record.load(record.path).figures == record.figures
    elsewhere = Record(record.path, "another machine", record.figures)
    assert elsewhere.forecast("encode", amount=500, prior=1.0).basis == "prior"
    assert median(record.figures["a machine"]["encode"]) == pytest.approx(0.01)
