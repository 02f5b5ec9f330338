"""Is one predictor better than another on the same rows? A difference, its interval, a test, and one of three answers.

- Shares of rows (accuracy, exact match): McNemar's exact test on the rows that only one of them gets right, with
  Tango's score interval for the difference.
- Everything else: a bootstrap of row pairs that computes the corpus metric again, with an exchange test beside it.
  The bootstrap's interval is too narrow when few rows differ (four wins of four look certain to it), so the claim
  "better" needs both.

A difference is a gain: positive where the first predictor is better, also for metrics where lower is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thriftune.metrics.statistics import LOWER_IS_BETTER, Statistics, draws, gathered, swaps

Outcome = Literal["better", "not better", "cannot tell"]

FEWEST_RESAMPLES = 1_000  # so that a p-value can be as small as 0.001

BETTER: Outcome = "better"
NOT_BETTER: Outcome = "not better"
CANNOT_TELL: Outcome = "cannot tell"


@dataclass(frozen=True)
class PairedResult:
    """The gain of one predictor over another.

    Args:
        difference: the gain on the rows at hand.
        low: lower end of the gain's interval.
        high: its upper end.
        p_value: two-sided, of the hypothesis that there is no difference.
        confidence: of the interval, 0…1.
        differing: how many rows the two do not answer alike (for shares: that only one gets right).
        rows: how many rows both answered.
    """

    difference: float
    low: float
    high: float
    p_value: float
    confidence: float
    differing: int
    rows: int


def outcome(result: PairedResult, minimum_gain: float = 0.0) -> Outcome:
    """What the evidence says.

    - `not better`: no row differs, or even the interval's upper end is at most `minimum_gain`, the smallest gain
      worth having;
    - `better`: the whole interval lies above 0 and the test rejects "no difference" at the same level;
    - `cannot tell`: neither.
    """
    if result.differing == 0 or result.high <= minimum_gain:
        return NOT_BETTER
    if result.low > 0 and result.p_value <= 1 - result.confidence:
        return BETTER
    return CANNOT_TELL


def mcnemar(first: Sequence[bool], second: Sequence[bool], confidence: float = 0.95) -> PairedResult:
    """McNemar's exact test (two-sided binomial, the smaller tail doubled) of two shares on the same rows.

    The interval is Tango's (Statistics in Medicine 17, 1998), which Fagerland, Lydersen and Laake (2014) recommend
    for paired shares; it is widened to the exact conditional one where that reaches further, so that an interval
    above 0 never stands beside a test that does not reject.

    Args:
        first: (rows,) whether the first predictor is right.
        second: (rows,) whether the second one is.
        confidence: of the interval, 0…1.
    """
    ours, theirs = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if ours.shape != theirs.shape:
        raise ValueError(f"the same rows are needed on both sides, got {len(ours)} and {len(theirs)}")
    return mcnemar_counts(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(ours), confidence)


def mcnemar_counts(wins: int, losses: int, rows: int, confidence: float = 0.95) -> PairedResult:
    """The same from counts: rows that only the first gets right, that only the second does, and all rows."""
    from scipy.special import bdtr

    differing = wins + losses
    if rows == 0:
        return PairedResult(0.0, -1.0, 1.0, 1.0, confidence, 0, 0)
    p_value = min(1.0, 2 * float(bdtr(min(wins, losses), differing, 0.5))) if differing else 1.0
    low, high = tango(wins, losses, rows, confidence)
    exact_low, exact_high = _conditional(wins, losses, rows, confidence)
    difference = (wins - losses) / rows
    return PairedResult(difference, min(low, exact_low), max(high, exact_high), p_value, confidence, differing, rows)


def tango(wins: int, losses: int, rows: int, confidence: float) -> tuple[float, float]:
    """Tango's score interval of the difference of two paired shares: where the score statistic is at most z."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def statistic(gain: float) -> float:
        # `least` is the most likely share of losses when the true gain is `gain`.
        b = -wins - losses + (2 * rows - wins + losses) * gain
        c = -losses * gain * (1 - gain)
        least = (math.sqrt(max(b * b - 8 * rows * c, 0.0)) - b) / (4 * rows)
        spread = rows * (2 * least + gain * (1 - gain))
        away = wins - losses - rows * gain
        if abs(away) < 1e-9:
            return 0.0
        return away / math.sqrt(spread) if spread > 0 else math.copysign(math.inf, away)

    estimate = (wins - losses) / rows
    edge = 1 - 1e-12
    low = -1.0 if estimate <= -edge or statistic(-edge) < z else _crossing(statistic, z, -edge, estimate)
    high = 1.0 if estimate >= edge or statistic(edge) > -z else _crossing(statistic, -z, estimate, edge)
    return low, high


def _crossing(falling: Callable[[float], float], level: float, low: float, high: float) -> float:
    # Bisection: SciPy's root finders would cost a second of import for a few microseconds of work.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return (low + high) / 2


def _conditional(wins: int, losses: int, rows: int, confidence: float) -> tuple[float, float]:
    # Clopper and Pearson's interval of the share of wins among differing rows: excludes 1/2 just when McNemar's
    # exact test rejects.
    from scipy.special import betaincinv

    differing, tail = wins + losses, (1 - confidence) / 2
    if differing == 0:
        return 0.0, 0.0
    least = float(betaincinv(wins, losses + 1, tail)) if wins else 0.0
    most = float(betaincinv(wins + 1, losses, 1 - tail)) if losses else 1.0
    return (2 * least - 1) * differing / rows, (2 * most - 1) * differing / rows


def paired_bootstrap(
    stacked: Statistics, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> dict[str, PairedResult]:
    """Every metric's gain of the first half of the rows over the second half.

    Args:
        stacked: statistics of 2 × rows predictions: the first predictor's on all rows, then the second's.
        resamples: of the bootstrap, and of the exchange test; fewer where a resample is dear. The interval's ends
            are quantiles of the resampled differences (Efron and Tibshirani, 1993); the test swaps the two answers
            of each row with probability 1/2 and asks how often the difference is as large (Yeh, COLING 2000).
        confidence: of the intervals, 0…1.
        seed: of both.
    """
    cells, resamples = _Cells.of(stacked), stacked.affordable(resamples, FEWEST_RESAMPLES)
    first, second = cells.sides(cells.counts[None, :])
    observed = _gains(stacked, first, second)
    drawn = gathered(_gains(stacked, *cells.sides(w)) for w in draws(cells.counts, resamples, seed))
    swapped = gathered(_gains(stacked, *cells.exchanged(s)) for s in swaps(cells.counts, resamples, seed + 1))
    tail = (1 - confidence) / 2
    results = {}
    for name, (difference,) in observed.items():
        low, high = np.nanquantile(drawn[name], [tail, 1 - tail])
        as_large = np.abs(swapped[name]) >= abs(difference) - 1e-12
        results[name] = PairedResult(
            float(difference),
            float(low),
            float(high),
            float((1 + as_large.sum()) / (1 + resamples)),
            confidence,
            cells.differing,
            len(stacked) // 2,
        )
    return results


@dataclass(frozen=True)
class _Cells:
    """Rows by the pair of kinds that the two predictors gave them; `first` and `second` are (cells, kinds)."""

    counts: NDArray[np.float64]
    first: Any
    second: Any
    differing: int

    @staticmethod
    def of(stacked: Statistics) -> _Cells:
        from scipy.sparse import csr_array

        pairs = stacked.kinds.reshape(2, -1)
        found, counts = np.unique(pairs, axis=1, return_counts=True)
        ones, cell = np.ones(found.shape[1]), np.arange(found.shape[1])
        shape = (found.shape[1], stacked.kind_count)
        differing = int(counts[found[0] != found[1]].sum())
        sides = [csr_array((ones, (cell, kinds)), shape=shape) for kinds in found]
        return _Cells(counts.astype(np.float64), sides[0], sides[1], differing)

    def sides(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return weights @ self.first, weights @ self.second

    def exchanged(self, swapped: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        kept = self.counts - swapped
        return kept @ self.first + swapped @ self.second, kept @ self.second + swapped @ self.first


def _gains(
    stacked: Statistics, first: NDArray[np.float64], second: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    ours, theirs = stacked.measure(first), stacked.measure(second)
    return {
        name: (theirs[name] - ours[name] if name in LOWER_IS_BETTER else ours[name] - theirs[name]) for name in ours
    }
