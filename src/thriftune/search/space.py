"""The space of a search: every configuration that may be tried, what its training costs, and where it lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CONFIGURATIONS = 512  # of a larger product so many are drawn
LOG_RATIO = 8.0  # numbers that differ by more than this factor are compared by their logarithms
RATE, ROWS = "learning_rate", "batch_rows"  # the options whose pace is told apart
LOOKS = 3  # the cheapest training is looked at so many times


@dataclass(frozen=True)
class Configuration:
    """What may be tried.

    Args:
        values: option by name.
        cost: of training it on one fold, in any unit that all configurations share, such as tokens.
        rungs: how many times its training is looked at; the last is at its end.
    """

    values: Mapping[str, Any]
    cost: float
    rungs: int

    @property
    def rung_cost(self) -> float:
        """Of going on from one look to the next."""
        return self.cost / self.rungs


@dataclass(frozen=True)
class Space:
    """A finite space.

    Args:
        configurations: all of them.
        coordinates: (configurations, dimensions), each dimension scaled to 0…1.
        start: the number of the configuration that is tried first.
        columns: (dimensions,) the option that each dimension belongs to.
        pace: (configurations, 1) learning rate ÷ √rows of an update, in the learning rate's scale; no column where
            either of them is not searched. With AdamW, trainings of one pace go much the same way, whatever the two
            are (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022).
    """

    configurations: tuple[Configuration, ...]
    coordinates: NDArray[np.float64]
    start: int
    columns: tuple[str, ...]
    pace: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.configurations)

    @property
    def names(self) -> tuple[str, ...]:
        """The options."""
        return tuple(self.configurations[0].values)

    @property
    def rungs(self) -> NDArray[np.int64]:
        """(configurations,) looks at each."""
        return np.array([one.rungs for one in self.configurations])


def product_of(space: Mapping[str, Sequence[Any]], seed: int) -> list[dict[str, Any]]:
    """All combinations of the values; of more than `MOST_CONFIGURATIONS`, that many drawn at random."""
    sizes = [len(values) for values in space.values()]
    count = math.prod(sizes)
    numbers = np.arange(count)
    if count > MOST_CONFIGURATIONS:
        numbers = np.sort(np.random.default_rng(seed).choice(count, MOST_CONFIGURATIONS, replace=False))
    places = np.unravel_index(numbers, sizes)
    names, values = list(space), list(space.values())
    return [
        {name: values[dim][place] for dim, (name, place) in enumerate(zip(names, row, strict=True))}
        for row in zip(*places, strict=True)
    ]


def make_space(
    candidates: Sequence[Mapping[str, Any]],
    costs: Sequence[float],
    first: Mapping[str, Any],
    steps: Sequence[int] | None = None,
    rung: float | None = None,
) -> Space:
    """The space of these candidates.

    Args:
        candidates: each with the same names.
        costs: of training each on one fold.
        first: what would be taken without a search; the candidate next to it is tried first.
        steps: updates of each candidate's training, of which looks take a whole number; None where they do not tell.
        rung: what a look is worth of training, in the unit of `costs`; by default the cheapest has `LOOKS` of them.
    """
    rung = min(costs) / LOOKS if rung is None else rung
    rungs = [max(1, round(cost / rung)) for cost in costs]
    if steps is not None:
        rungs = [-(-whole // -(-whole // wanted)) for whole, wanted in zip(steps, rungs, strict=True)]
    configurations = tuple(starmap(Configuration, zip(candidates, costs, rungs, strict=True)))
    options = {name: _coordinates([*(one[name] for one in candidates), first.get(name)]) for name in candidates[0]}
    columns = tuple(name for name, values in options.items() for _ in range(values.shape[1]))
    coordinates = np.concatenate(list(options.values()), axis=1)
    distances = np.abs(coordinates[:-1] - coordinates[-1]).sum(axis=1)
    return Space(configurations, coordinates[:-1], int(np.argmin(distances)), columns, _pace(candidates))


def _pace(candidates: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """`Space.pace` of the candidates."""
    found = []
    for name in (RATE, ROWS):
        values = [one.get(name) for one in candidates]
        numbers = [float(value) for value in values if isinstance(value, int | float) and value > 0]
        if len(numbers) < len(values) or min(numbers) == max(numbers):
            return np.empty((len(candidates), 0))
        found.append(np.log(numbers))
    rate, rows = found
    pace: NDArray[np.float64] = (rate - 0.5 * rows) / np.ptp(rate)
    return pace[:, None]


def _coordinates(values: Sequence[Any]) -> NDArray[np.float64]:
    """(values, 1) in 0…1 for numbers, by their logarithms where they span decades; (values, kinds) of 0 and 1 for
    words, half each so that two that differ are one apart. A value that is not known lies in the middle."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        low, high = min(known), max(known)
        spans = low > 0 and high / low >= LOG_RATIO
        scaled = [math.log(value) if spans else float(value) for value in known]
        bottom, width = min(scaled), max(scaled) - min(scaled) or 1.0
        places = iter((value - bottom) / width for value in scaled)
        return np.array([[0.5 if value is None else next(places)] for value in values])
    kinds = sorted({str(value) for value in known})
    return np.array([[0.5 * (str(value) == kind) for kind in kinds] for value in values])
