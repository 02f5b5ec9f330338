"""A model of all learning curves of a search at once: a Gaussian process over configuration and training done.

What a configuration will reach is inferred from its own curve so far and from those of its neighbours, as in
Freeze-Thaw (Swersky et al., 2014) and DyHPO (Wistuba et al., 2022). A look's score is the sum of a smooth function of
configuration and training done, of what a fold makes easier or harder for all, of what is peculiar to one training,
and of noise. Nobody knows the length scales and variances after a few looks: the answers are averaged over draws of
them from a prior, each weighed by how well it explains the looks, so that nothing is fitted and little can be
overfitted.

Scores are taken to be shares of 1, or negative logarithms of losses: 0.1 is much for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thriftune.search.space import Space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 32
LENGTH, LENGTH_SPREAD = 0.3, 0.5  # of a dimension's 0…1; medians, and standard deviations of the logarithms
BESIDE_PACE = 2.0  # times as far the options reach for themselves where the pace tells of two of them together
TRAINING_LENGTH = 0.5  # of progress 0…1, and of the logarithm of the training done
SIGNAL, SIGNAL_SPREAD = 0.12, 0.4  # between configurations
FOLD, TRAINING, TRAINING_SPREAD = 0.015, 0.015, 0.5  # of a fold for all, of one training
NOISE, NOISE_SPREAD = 0.02, 0.3  # of one look
SQRT_5 = 5.0**0.5
TINY = 1e-12  # of a variance, where rounding would leave none


@dataclass(frozen=True)
class Look:
    """A look at a training: its validation.

    Args:
        configuration: its number in the space.
        fold: which one was held out.
        rung: the number of the look, from 1; the configuration's last is at the end of its training.
        score: larger is better.
        cost: what going on to it took, in the space's unit.
    """

    configuration: int
    fold: int
    rung: int
    score: float
    cost: float


@dataclass(frozen=True)
class Beliefs:
    """What is believed of each configuration's end, the mean of all folds.

    Args:
        mean: (configurations,).
        deviation: (configurations,) standard deviations.
        told: (configurations,) by how much the mean would be expected to move, one standard deviation, if one more
            training on another fold were seen to its end.
    """

    mean: Floats
    deviation: Floats
    told: Floats


class Curves:
    """The model of one space.

    Args:
        space: what is searched.
        seed: of the draws.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        random = np.random.default_rng(seed)

        def draw(median: float, spread: float, *shape: int) -> Floats:
            return np.exp(random.normal(np.log(median), spread, (DRAWS, *shape)))

        self._space = space
        self._places_of = np.concatenate([space.pace, space.coordinates], axis=1)
        paced = space.pace.shape[1]
        self._lengths = draw(LENGTH, LENGTH_SPREAD, self._places_of.shape[1])
        if paced:
            self._lengths[:, paced:] *= BESIDE_PACE
        self._over_training = draw(TRAINING_LENGTH, LENGTH_SPREAD, 2)
        self._signal = draw(SIGNAL, SIGNAL_SPREAD)
        self._training = draw(TRAINING, TRAINING_SPREAD)
        self._noise = draw(NOISE, NOISE_SPREAD)
        self._fold = draw(FOLD, TRAINING_SPREAD)
        self._forget()

    def beliefs(self, looks: Sequence[Look]) -> Beliefs:
        """What the looks tell of all configurations. Where they go on from those of the call before, only the new ones
        are worked in, each in time that grows with the square of how many there are."""
        if list(looks[: len(self._looks)]) != self._looks:
            self._forget()
        for look in looks[len(self._looks) :]:
            self._work_in(look)
        scores = np.array([look.score for look in looks])
        middle = float(np.median(scores))
        whitened = self._inverse @ (scores - middle)
        pivots = np.diagonal(self._inverse, axis1=1, axis2=2)
        log_evidence = np.log(pivots).sum(axis=1) - 0.5 * (whitened**2).sum(axis=1)
        weights = np.exp(log_evidence - log_evidence.max())
        weights /= weights.sum()

        means = np.einsum("dij,di->dj", self._towards, whitened)
        variances = np.maximum(self._signal[:, None] ** 2 - (self._towards**2).sum(axis=1), 1e-9)
        mean = weights @ means
        variance = weights @ (variances + (means - mean) ** 2)
        of_one_training = float(weights @ (self._fold**2 + self._training**2 + self._noise**2))
        return Beliefs(mean + middle, np.sqrt(variance), np.sqrt(variance**2 / (variance + of_one_training)))

    def _forget(self) -> None:
        """No looks yet."""
        self._looks: list[Look] = []
        self._inverse = np.zeros((DRAWS, 0, 0))  # of the looks' covariance's lower Cholesky factor, by draw
        self._towards = np.zeros((DRAWS, 0, len(self._space)))  # it times the covariance of looks and ends

    def _work_in(self, look: Look) -> None:
        """Add a row to the inverse Cholesky factor: with L's new row (l, d), the inverse's is (-l L⁻¹ / d, 1 / d)."""
        numbers = np.array([one.configuration for one in self._looks], dtype=np.int64)
        folds = np.array([one.fold for one in self._looks], dtype=np.int64)
        rungs = np.array([one.rung for one in self._looks], dtype=np.int64)
        here = self._places(np.array([look.configuration]), np.array([look.rung]))
        same_fold = folds == look.fold
        same_training = same_fold & (numbers == look.configuration)
        covariance = self._smooth(self._places(numbers, rungs), here)[:, :, 0]
        covariance += self._fold[:, None] ** 2 * same_fold + self._training[:, None] ** 2 * same_training
        row = np.einsum("dij,dj->di", self._inverse, covariance)
        own = self._signal**2 + self._fold**2 + self._training**2 + self._noise**2
        pivot = np.sqrt(np.maximum(own - (row**2).sum(axis=1), TINY))[:, None]

        every = np.arange(len(self._space))
        ends = self._smooth(here, self._places(every, self._space.rungs))[:, 0]
        told = (ends - np.einsum("di,dij->dj", row, self._towards)) / pivot
        below = np.concatenate([-np.einsum("di,dij->dj", row, self._inverse), np.ones_like(pivot)], axis=1) / pivot
        self._inverse = np.pad(self._inverse, ((0, 0), (0, 1), (0, 1)))
        self._inverse[:, -1] = below
        self._towards = np.concatenate([self._towards, told[:, None]], axis=1)
        self._looks.append(look)

    def _places(self, numbers: Ints, rungs: Ints) -> tuple[Floats, Floats]:
        """Where looks lie: pace and coordinates of the configuration, and the progress and amount of training done."""
        whole = self._space.rungs[numbers]
        done = np.stack([rungs / whole, np.log2(rungs) / 2], axis=1)
        return self._places_of[numbers], done

    def _smooth(self, some: tuple[Floats, Floats], others: tuple[Floats, Floats]) -> Floats:
        """(draws, some, others): Matérn 5/2 over configuration and training done."""
        square = np.zeros((DRAWS, len(some[0]), len(others[0])))
        for values, more, lengths in zip(some, others, (self._lengths, self._over_training), strict=True):
            for dim in range(values.shape[1]):
                apart = values[:, None, dim] - more[None, :, dim]
                square += (apart / _by_draw(lengths[:, dim])) ** 2
        distance = SQRT_5 * np.sqrt(square)
        kernel: Floats = _by_draw(self._signal**2) * (1 + distance + distance**2 / 3) * np.exp(-distance)
        return kernel


def _by_draw(values: Floats) -> Floats:
    return values[:, None, None]
