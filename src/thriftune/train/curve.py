"""What the rest of a validation curve can still bring, from its first part.

Domhan, Springenberg and Hutter, "Speeding up Automatic Hyperparameter Optimization of Deep Neural Networks by
Extrapolation of Learning Curves" (IJCAI 2015) fit a weighted mixture of parametric families to the first part and read
the rest off the posterior. Here the families are their power law and exponential on a grid of exponents, and the
logarithm, which never saturates. With the exponent given, each is a straight line in its level and its scale, whose
posterior is known in closed form: nothing is sampled, and the same curve gives the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

EXPONENTS = (0.25, 0.5, 1.0, 2.0)  # of the power law
DECAYS = (0.2, 0.4, 0.8, 1.6)  # of the exponential, in units of the steps so far
MIN_VALIDATIONS = 4  # two are fitted through; the spread of fewer than two others says next to nothing
OPTIMISM = 0.95  # the probability that the gain stays below its upper bound
HALVINGS = 60  # of the bracket around a quantile

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gains:
    """How much better the curve will be than now, in the unit of its values.

    Args:
        mean: (points ahead,) the expected gain.
        upper: (points ahead,) what it stays below with probability `OPTIMISM`.
    """

    mean: Floats
    upper: Floats


def future_gains(steps: Sequence[int], values: Sequence[float], ahead: Sequence[int], noise: float) -> Gains:
    """What a curve gains from its last point to each of some later ones.

    With a shape ψ that is 0 at the first point and 1 at the last, a curve is c + a·ψ + noise, and its gain up to a
    later point is a·(ψ − 1). Under flat priors of c, a and log σ, a has Student's t distribution with n − 2 degrees
    of freedom around the least squares' slope, and the shapes weigh as their marginal likelihoods.

    Args:
        steps: (n,) of the points, increasing; n is at least `MIN_VALIDATIONS`.
        values: (n,) larger is better.
        ahead: later steps.
        noise: the standard deviation of a value's noise, to begin with: it counts as one more residual.
    """
    x, u = np.asarray(steps, np.float64) / steps[-1], np.asarray(ahead, np.float64) / steps[-1]
    y, degrees = np.asarray(values, np.float64), len(steps) - 2
    fits = [_fit(shape(x), shape(u), y, noise) for shape in _SHAPES]
    slopes, errors, evidence = (np.array(column) for column in list(zip(*fits, strict=True))[:3])
    reach = np.array([fit[3] for fit in fits])  # (shapes, points ahead)
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    centres, scales = slopes[:, None] * reach, errors[:, None] * reach
    low, high = np.zeros(len(u)), (np.abs(centres) + _FAR * scales).max(axis=0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = weights @ stdtr(degrees, (middle - centres) / np.maximum(scales, 1e-300))
        low, high = np.where(below < OPTIMISM, middle, low), np.where(below < OPTIMISM, high, middle)
    return Gains(mean=weights @ np.maximum(centres, 0.0), upper=high)


_FAR = 20.0  # scales from the centre: beyond every quantile that is asked for, two degrees of freedom included


def _power(exponent: float) -> Callable[[Floats], Floats]:
    return lambda x: -(x**-exponent)


def _exponential(decay: float) -> Callable[[Floats], Floats]:
    return lambda x: -np.exp(-x / decay)


_SHAPES: list[Callable[[Floats], Floats]] = [np.log, *map(_power, EXPONENTS), *map(_exponential, DECAYS)]


def _fit(past: Floats, future: Floats, y: Floats, noise: float) -> tuple[float, float, float, Floats]:
    """One shape's slope, the slope's standard error, its log evidence, and how far it goes beyond 1 at each point."""
    span = past[-1] - past[0]
    psi = (past - past[0]) / span
    centred, degrees = psi - psi.mean(), len(y) - 2
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    residual = y - y.mean() - slope * centred
    squares = float(residual @ residual) + max(noise, 1e-12) ** 2
    error = float(np.sqrt(squares / degrees / spread))
    evidence = -0.5 * float(np.log(spread)) - 0.5 * degrees * float(np.log(squares))
    return slope, error, evidence, (future - past[-1]) / span
