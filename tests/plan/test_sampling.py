"""Draws of a forecast have its quantiles, and what is drawn together moves together."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.budget.forecast import LEVELS, Forecast
from thriftune.plan.sampling import draws, observed


@given(st.lists(st.floats(1e-3, 1e6), min_size=5, max_size=5).map(sorted))
def test_draws_at_the_levels_are_the_quantiles(quantiles: list[float]) -> None:
    scores = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    drawn = draws(Forecast.of(quantiles, "prior"), scores)
    assert drawn == pytest.approx(quantiles, rel=1e-9)
    assert (np.diff(draws(Forecast.of(quantiles, "prior"), np.linspace(-4, 4, 50))) >= -1e-9).all()


def test_a_log_normal_forecast_gives_log_normal_draws_beyond_its_quantiles_too() -> None:
    forecast = Forecast.lognormal(100.0, 0.5, "probe")
    sigma = math.log(1.5) / NormalDist().inv_cdf(0.95)
    assert draws(forecast, np.array([-3.0, 3.0])) == pytest.approx(100 * np.exp([-3 * sigma, 3 * sigma]))


def test_what_is_known_is_drawn_as_it_is_and_nothing_falls_below_zero() -> None:
    assert draws(Forecast.exact(7.0), np.array([-3.0, 0.0, 3.0])) == pytest.approx([7.0] * 3)
    assert draws(Forecast.of((0, 0, 1, 2, 3), "prior"), np.array([-5.0])) == pytest.approx([0.0])


def test_the_forecast_of_draws_is_the_one_they_came_from() -> None:
    forecast = Forecast.lognormal(10.0, 1.0, "prior")
    seen = observed(draws(forecast, np.random.default_rng(0).standard_normal(200_000)), "prior")
    assert seen.quantiles() == pytest.approx(forecast.quantiles(), rel=0.02)
