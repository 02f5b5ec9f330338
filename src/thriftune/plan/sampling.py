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
    positive = bool(quantiles[0] > 0)
    at = np.log(quantiles) if positive else quantiles
    knots = np.asarray(SCORES)
    place = np.clip(np.searchsorted(knots, scores) - 1, 0, len(knots) - 2)
    slope = (at[place + 1] - at[place]) / (knots[place + 1] - knots[place])
    values = at[place] + slope * (scores - knots[place])
    return np.exp(values) if positive else np.maximum(values, 0.0)


def observed(values: NDArray[np.float64], basis: str) -> Forecast:
    """The forecast that draws make up."""
    import numpy as np

    return Forecast.of((float(value) for value in np.quantile(values, LEVELS)), basis)
