"""Who wins a search: the top score, or what is cheaper to serve and as good as one can tell."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thriftune.search.policies import Standing


@dataclass(frozen=True)
class Choice:
    """Who wins.

    Args:
        winner: the number of the configuration to take.
        top: the one with the best expected score.
        because: why the winner is the winner.
    """

    winner: int
    top: int
    because: str


def choose(standing: Standing, seen: Collection[int], serving: Sequence[float], cheapest_within: float) -> Choice:
    """The cheapest to serve within so many standard errors of the best expected score, the better one of equals.

    Source: the one-standard-error rule of Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees",
    1984, with the cost of serving in the place of the tree's size.

    Args:
        standing: how the search stands.
        seen: numbers of the configurations that were looked at.
        serving: (configurations,) what a request costs, in any unit that all share.
        cheapest_within: standard errors of the top's expected score; 0 for the top score.
    """
    top = standing.winner
    error = float(standing.deviation[top])
    if not cheapest_within or math.isnan(error):
        return Choice(top, top, "it has the best expected score")
    least = standing.mean[top] - cheapest_within * error
    within = [number for number in seen if standing.mean[number] >= least and serving[number] < serving[top]]
    if not within:
        return Choice(
            top, top, "it has the best expected score, and nothing cheaper to serve comes as near as its error"
        )
    winner = min(within, key=lambda number: (serving[number], -standing.mean[number]))
    behind, share = 100 * float(standing.mean[top] - standing.mean[winner]), serving[winner] / serving[top]
    return Choice(
        winner,
        top,
        f"it costs {share:.0%} of what the top score costs to serve and is {behind:.2f} points behind it, "
        f"within {cheapest_within:g} standard error{'s' * (cheapest_within != 1)} of {100 * error:.2f} points",
    )


def on_frontier(means: NDArray[np.float64], serving: Sequence[float], seen: Collection[int]) -> list[int]:
    """Of those that were looked at, the ones that nothing is cheaper to serve and better than; the cheapest first."""
    found: list[int] = []
    for number in sorted(seen, key=lambda number: (serving[number], -means[number])):
        if not found or (means[number] > means[found[-1]] and serving[number] > serving[found[-1]]):
            found.append(number)
    return found
