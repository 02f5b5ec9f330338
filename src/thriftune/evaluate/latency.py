"""How long single requests take."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from thriftune.evaluate.asking import drawn, requests_for, unit, upper_seconds
from thriftune.evaluate.options import EvaluateOptions
from thriftune.evaluate.types import Latency
from thriftune.metrics.intervals import Interval

if TYPE_CHECKING:
    import polars as pl

    from thriftune.context import Context
    from thriftune.tasks.base import Predictor

WARM_UP = 3  # first requests load code and memory; a service that is up has that behind it
BATCH = 10  # requests a metered unit


def measure_latency(
    predictor: Predictor, frame: pl.DataFrame, options: EvaluateOptions, context: Context, quantile: float = 0.95
) -> Latency:
    """Time single requests, one after the other, on this machine.

    Args:
        predictor: who is asked.
        frame: rows to ask, as many as `options.latency_rows`, over again where there are fewer.
        options: evaluation's part of the project file.
        context: the run's surroundings.
        quantile: which quantile of the times.

    Raises:
        OutOfBudget: money or time do not hold the next unit.
    """
    requests = requests_for(predictor, drawn(frame, options.latency_rows))
    times: list[float] = []
    for start in range(-WARM_UP, options.latency_rows, BATCH):
        upper = upper_seconds(context, BATCH, max(times, default=None))
        with unit(context, f"time {predictor.name}", upper):
            for place in range(start, min(start + BATCH, options.latency_rows)):
                began = context.clock.now()
                predictor.predict([requests[place % len(requests)]])
                times.append(context.clock.now() - began)
    measured = times[WARM_UP:]
    return Latency(quantile_interval([1000 * t for t in measured], quantile, options.confidence), len(measured))


def quantile_interval(values: list[float], quantile: float, confidence: float) -> Interval:
    """A quantile with its exact, distribution-free interval.

    The number of values below the true quantile is binomial, so two order statistics enclose it (David and Nagaraja,
    "Order Statistics", 2003, section 7.1). Where there are too few values to bound it from above, the upper end is
    infinite.
    """
    from scipy.special import bdtr

    ordered, count, tail = sorted(values), len(values), (1 - confidence) / 2
    below = [float(bdtr(number, count, quantile)) for number in range(count + 1)]
    low, high = bisect_left(below, tail), bisect_left(below, 1 - tail) + 1
    return Interval(
        ordered[min(count - 1, math.ceil(quantile * count) - 1)],
        ordered[max(0, low - 1)],
        ordered[high - 1] if high <= count else math.inf,
    )
