"""Forecasts earn their intervals: from enough runs on, they are moved and shaped by how far off earlier ones were."""

import math
import random

import pytest

from thriftune.budget.forecast import Forecast
from thriftune.budget.record import MIN_FIGURES, Record, ranked
from thriftune.budget.residuals import Residuals
from thriftune.plan.plan import WHOLE, Limits, Part, Plan

GUESS = Forecast.lognormal(100.0, 0.5, "probe")


@pytest.fixture
def record(tmp_path) -> Record:
    return Record(tmp_path / "record.json", "a machine")


def ended(record: Record, foretold: float, came: float) -> None:
    """A run of another model that ended."""
    run = Residuals(record)
    run.foretell("whole", Forecast.lognormal(foretold, 0.5, "probe"))
    run.came("whole", came)


def test_a_forecast_moves_towards_what_came_with_every_run_and_is_shaped_by_the_runs_alone_from_enough_on(record):
    assert Residuals(record).conformed("whole", GUESS) == GUESS
    medians, widths = [GUESS.p50], [GUESS.p95 / GUESS.p5]
    for _ in range(MIN_FIGURES - 1):
        ended(record, 10.0, 12.0)
        forecast = Residuals(record).conformed("whole", GUESS)
        medians.append(forecast.p50)
        widths.append(forecast.p95 / forecast.p5)
    assert medians == sorted(medians)
    assert medians[1] == pytest.approx(100 * 1.2 ** (1 / 4))
    assert 115.0 < medians[-1] < 120.0
    assert widths[2:] == sorted(widths[2:], reverse=True)
    ended(record, 10.0, 12.0)
    assert Residuals(record).conformed("whole", GUESS).quantiles() == pytest.approx([120.0] * 5)


def test_what_is_exact_or_nothing_is_not_moved_by_a_few_runs(record):
    ended(record, 10.0, 12.0)
    for known in (Forecast.exact(7.0), Forecast.exact(0.0)):
        assert Residuals(record).conformed("whole", known) == known


@pytest.mark.parametrize("runs", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(("bias", "noise"), [(1.0, 0.08), (1.12, 0.04), (0.85, 0.08)])
def test_the_intervals_of_the_first_runs_hold_what_comes(tmp_path, runs, bias, noise):
    """2,000 machines, each with a bias of its own around the named one; the forecast's own spread is 20 %, seed 5."""
    drawn = random.Random(5)
    own = Forecast.lognormal(100.0, 0.2, "probe")
    held, error, error_without = 0, 0.0, 0.0
    for _ in range(2000):
        machine = bias * drawn.lognormvariate(0, 0.03)
        record = Record(tmp_path / "none.json", "a machine")
        for _ in range(runs):
            record.add("residual/whole", machine * drawn.lognormvariate(0, noise))
        forecast = Residuals(record).conformed("whole", own)
        came = 100 * machine * drawn.lognormvariate(0, noise)
        held += forecast.p5 <= came <= forecast.p95
        error += abs(math.log(forecast.p50 / came))
        error_without += abs(math.log(own.p50 / came))
    assert held >= 0.88 * 2000
    assert error <= (1.1 if bias == 1.0 else 0.95) * error_without


def test_what_is_systematically_missed_is_made_good_and_another_quantity_is_not_touched(record):
    drawn = random.Random(1)
    for _ in range(40):
        foretold = drawn.uniform(5, 500)
        ended(record, foretold, 1.3 * foretold * drawn.lognormvariate(0, 0.05))
    conformed = Residuals(record).conformed("whole", GUESS)
    assert conformed.p50 == pytest.approx(130.0, rel=0.03)
    assert conformed.p95 / conformed.p5 < 1.3 < GUESS.p95 / GUESS.p5
    assert Residuals(record).conformed("memory/training", GUESS) == GUESS


def test_nine_of_ten_later_runs_fall_into_the_interval_whatever_the_errors_look_like(tmp_path):
    """Skewed errors, 21 runs each; 2,000 stores, seed 3. Both sides are missed about as often."""
    drawn = random.Random(3)
    below = above = inside_50 = 0
    for _ in range(2000):
        record = Record(tmp_path / "none.json", "a machine")
        for _ in range(21):
            record.add("residual/whole", 1 + drawn.expovariate(4.0))
        forecast = Residuals(record).conformed("whole", GUESS)
        came = 100 * (1 + drawn.expovariate(4.0))
        below += came < forecast.p5
        above += came > forecast.p95
        inside_50 += forecast.p25 <= came <= forecast.p75
    assert below + above <= 0.1 * 2000
    assert 0.03 * 2000 < below < 0.065 * 2000
    assert 0.03 * 2000 < above < 0.065 * 2000
    assert 0.48 * 2000 < inside_50 < 0.58 * 2000


def test_ranks_go_outwards_on_both_sides():
    assert ranked([float(n) for n in range(1, 20)]) == [1.0, 5.0, 10.0, 15.0, 19.0]
    assert ranked([float(n) for n in range(1, 40)]) == [2.0, 10.0, 20.0, 30.0, 38.0]


def test_a_forecast_is_scored_once_and_the_first_one_counts(record):
    run = Residuals(record)
    run.foretell("whole", Forecast.exact(10.0))
    run.foretell("whole", Forecast.exact(14.0))
    run.came("whole", 12.0)
    run.came("whole", 99.0)
    run.came("never foretold", 5.0)
    assert record.seen("residual/whole") == [pytest.approx(1.2)]
    assert record.seen("residual/never foretold") == []


def test_a_plan_tells_its_whole_and_its_phases_as_conformed_but_keeps_its_parts():
    parts = (Part("training", "train", GUESS), Part("evaluation", "tuned", GUESS))
    limits = Limits(0.0, 1e9, 1e9, 1, "USD", 0, 0.0)
    narrow = Forecast.lognormal(210.0, 0.1, "probe")
    plan = Plan(parts, limits, conformed={WHOLE: narrow})
    assert plan.full == narrow
    assert plan.summed().p50 == pytest.approx(200.0)
    assert plan.phase("training") == GUESS
    assert plan.least_seconds == pytest.approx(2 * GUESS.p95)
