"""Draws of a quantity from its forecast, many at once: what sums and chances that no formula gives are counted from."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

from thriftune.budget.forecast import LEVELS, Forecast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCORES = tuple(NormalDist().inv_cdf(level) for level in LEVELS)


def draws(forecast: Forecast, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quantity at normal scores: linear in the logarithm between the five quantiles, and on beyond them.

    A log-normal forecast gives log-normal draws exactly. Where a quantile is zero or below, the quantity itself is
    interpolated.

    Args:
        forecast: of a quantity that is not negative.
        scores: standard normal numbers; where two quantities get the same ones, they are comonotone.

    Returns:
        one value a score, in its shape.
    """
    import numpy as np

    quantiles = np.asarray(forecast.quantiles())
    if quantiles[0] == quantiles[-1]:
        return np.full_like(scores, quantiles[0])
    positive = bool(quantiles[0] > 0)
    at = np.log(quantiles) if positive else quantiles
    knots = np.asarray(SCORES)
    place = np.clip(np.searchsorted(knots, scores) - 1, 0, len(knots) - 2)
    slope = (at[place + 1] - at[place]) / (knots[place + 1] - knots[place])
    values: NDArray[np.float64] = at[place] + slope * (scores - knots[place])
    drawn: NDArray[np.float64] = np.exp(values) if positive else np.maximum(values, 0.0)
    return drawn


def remaining(forecast: Forecast, elapsed: float) -> Forecast:
    """What is left of a quantity of which so much has passed: the forecast, given that it is more than that."""
    import numpy as np

    if elapsed <= 0:
        return forecast
    if forecast.p5 == forecast.p95:
        return Forecast.exact(max(0.0, forecast.p50 - elapsed), forecast.basis)
    low, high = -8.0, 8.0  # the score at which it would have ended by now, by bisection: draws are monotone
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(draws(forecast, np.asarray([middle]))[0]) <= elapsed else (low, middle)
    behind = NormalDist().cdf(low)
    scores = [NormalDist().inv_cdf(min(behind + (1 - behind) * level, 1 - 1e-12)) for level in LEVELS]
    left = np.maximum(draws(forecast, np.asarray(scores)) - elapsed, 0.0)
    return Forecast.of((float(value) for value in left), forecast.basis)


def observed(values: NDArray[np.float64], basis: str) -> Forecast:
    """The forecast that draws make up."""
    import numpy as np

    return Forecast.of((float(value) for value in np.quantile(values, LEVELS)), basis)
