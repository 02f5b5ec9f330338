"""Confidence intervals of metrics on one set of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from thriftune.metrics.statistics import Statistics, draws, gathered

FEWEST_RESAMPLES = 200
RAISED_BY_NOISE = frozenset({"ece"})
UNBOUNDED = frozenset({"perplexity", "bits_per_character", "margin", "loss"})


@dataclass(frozen=True)
class Interval:
    """A value with the interval that holds the true one at the stated confidence."""

    value: float
    low: float
    high: float


def bootstrap(
    statistics: Statistics, resamples: int = 2_000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Percentile bootstrap intervals (Efron and Tibshirani, 1993, chapter 13) of metrics that are one number.

    Args:
        statistics: the rows.
        resamples: how often the rows are drawn again, with replacement; fewer where a resample is dear (the area
            under the curve of many classes and rows).
        confidence: of each interval, 0…1.
        seed: of the draws.
    """
    found = bootstrap_arrays(statistics, resamples, confidence, seed)
    return {name: Interval(*(float(x) for x in triple)) for name, triple in found.items()}


def bootstrap_arrays(
    statistics: Statistics, resamples: int = 2_000, confidence: float = 0.95, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """The same for metrics that are one number or one a class: (3,) or (3, classes), the value, its low and high end.

    Where all resamples agree (every row right, or none) a bootstrap knows no doubt, which is not the truth: a 0…1
    metric's interval then reaches as far as Wilson's for a share of the same rows. The calibration error is
    raised by noise, and in a resample once more: its percentile interval lies too high, so it is widened by its
    mirror image about the value (the basic bootstrap, ibid., chapter 13).
    """
    values = statistics.arrays()
    drawn = draws(statistics.counts(), statistics.affordable(resamples, FEWEST_RESAMPLES), seed)
    samples = gathered(statistics.measure(weights) for weights in drawn)
    tail = (1 - confidence) / 2
    triples = {}
    for name, value in values.items():
        defined = np.where(np.isnan(samples[name]).all(axis=0), 0.0, samples[name])
        low, high = np.nanquantile(defined, [tail, 1 - tail], axis=0)
        if name in RAISED_BY_NOISE:
            low, high = np.clip(2 * value - high, 0, low), np.clip(2 * value - low, high, 1)
        if name not in UNBOUNDED:
            reach = wilson_reach(len(statistics), confidence)
            certain = high - low < 1e-12
            low = np.where(certain, np.maximum(low - reach, 0), low)
            high = np.where(certain, np.minimum(high + reach, 1), high)
        triples[name] = np.stack([value, np.fmin(low, value), np.fmax(high, value)])
    return triples


def wilson_reach(rows: int, confidence: float) -> float:
    """How far Wilson's interval (1927) reaches from a share of none or all of `rows`: z² / (rows + z²)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return z * z / (rows + z * z)


def wilson(hits: int, rows: int, confidence: float) -> Interval:
    """Wilson's score interval of a share (Wilson, JASA 22, 1927)."""
    if rows == 0:
        return Interval(0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
