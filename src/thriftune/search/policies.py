"""Which look to pay for next, and who has won: pure functions of the looks so far, whoever makes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from thriftune.search.curves import Beliefs, Curves, Look
from thriftune.search.space import Space

SQRT_TWO_PI = 2.5066282746310002


@dataclass(frozen=True)
class Proposal:
    """The next look.

    Args:
        configuration: its number.
        fold: the one that is held out.
        rung: up to which look the training goes on.
        gain: what is expected of seeing this training to its end: by how much the winner's score would rise.
        cost: of seeing it to its end, in the space's unit.
    """

    configuration: int
    fold: int
    rung: int
    gain: float
    cost: float


@dataclass(frozen=True)
class Standing:
    """How the search stands.

    Args:
        winner: the number of the configuration to take.
        mean: (configurations,) expected score at the end.
        deviation: (configurations,) its standard deviation.
    """

    winner: int
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


class Policy(Protocol):
    """How to search."""

    def propose(self, looks: Sequence[Look], left: float, without: Collection[int] = ()) -> Proposal | None:
        """The next look, whose training can be seen to its end for `left`; None where none is worth it or fits.

        Args:
            looks: so far.
            left: what may still be spent, in the space's unit.
            without: configurations that are not to be gone on with.
        """
        ...

    def standing(self, looks: Sequence[Look]) -> Standing:
        """Who is ahead, of those that were looked at."""
        ...


class CurvesPolicy:
    """The look that is expected to teach most for its price.

    The worth of seeing a training to its end is its knowledge gradient (Frazier et al., 2009): by how much the best
    expected score would rise, taken over what that training may tell of its own configuration. One look at a time is
    paid for, and then everything is weighed anew; a training that disappoints is left where it is, and taken up again
    should the others turn out worse. A configuration is trained on another fold only once it has been seen to the end
    of the one before, and only where that can still change the ranking.

    Args:
        space: what is searched.
        folds: how many there are.
        least_gain: a smaller expected gain is not paid for.
        seed: of the model's draws.
    """

    def __init__(self, space: Space, folds: int, least_gain: float = 0.0, seed: int = 0) -> None:
        self._space, self._folds, self._least_gain = space, folds, least_gain
        self._beliefs = lru_cache(maxsize=1)(Curves(space, seed).beliefs)  # asked twice about the same looks

    def propose(self, looks: Sequence[Look], left: float, without: Collection[int] = ()) -> Proposal | None:
        """The next look, by worth for its price."""
        costs = np.array([one.cost for one in self._space.configurations])
        folds, done = open_folds(self._space, looks, self._folds)
        to_end = costs * (1 - done / self._space.rungs)
        possible = (folds < self._folds) & (to_end <= left)
        possible[list(without)] = False
        if not possible.any():
            return None
        if not looks:
            start = self._space.start if possible[self._space.start] else int(np.argmin(to_end))
            return Proposal(start, 0, 1, np.inf, float(to_end[start]))
        gains = knowledge_gradients(self._beliefs(tuple(looks)))
        chosen = int(np.argmax(np.where(possible, gains / to_end, -np.inf)))
        if gains[chosen] < self._least_gain:
            return None
        return Proposal(chosen, int(folds[chosen]), int(done[chosen]) + 1, float(gains[chosen]), float(to_end[chosen]))

    def standing(self, looks: Sequence[Look]) -> Standing:
        """The best expected score among those that were looked at."""
        beliefs = self._beliefs(tuple(looks))
        seen = np.zeros(len(self._space), dtype=bool)
        seen[[look.configuration for look in looks]] = True
        winner = int(np.argmax(np.where(seen, beliefs.mean, -np.inf)))
        return Standing(winner, beliefs.mean, beliefs.deviation)


def to_its_end(space: Space, looks: Sequence[Look], folds: int, number: int) -> Proposal | None:
    """The next look at a configuration on the fold that it is on; None where it has been through all."""
    current, done = open_folds(space, looks, folds)
    if current[number] >= folds:
        return None
    one, rung = space.configurations[number], int(done[number])
    return Proposal(number, int(current[number]), rung + 1, np.inf, one.cost - rung * one.rung_cost)


def open_folds(space: Space, looks: Sequence[Look], folds: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(configurations,) the fold that each is on, `folds` where it has been through all; and the looks it had there."""
    done = np.zeros((len(space), folds + 1), dtype=np.int64)
    for look in looks:
        done[look.configuration, look.fold] = max(done[look.configuration, look.fold], look.rung)
    current = (done >= space.rungs[:, None]).argmin(axis=1)
    return current, done[np.arange(len(space)), current]


def knowledge_gradients(beliefs: Beliefs) -> NDArray[np.float64]:
    """(configurations,) by how much the best mean is expected to rise once a configuration is seen to an end.

    Source: Frazier, Powell and Dayanik, "The Knowledge-Gradient Policy for Correlated Normal Beliefs", 2009, here with
    what each training tells of its own configuration only.
    """
    order = np.argsort(beliefs.mean)
    others = np.full(len(order), beliefs.mean[order[-1]])
    others[order[-1]] = beliefs.mean[order[-2]] if len(order) > 1 else -np.inf
    z = -np.abs(beliefs.mean - others) / beliefs.told
    gains: NDArray[np.float64] = beliefs.told * (np.exp(-0.5 * z**2) / SQRT_TWO_PI + z * ndtr(z))
    return gains
