"""What a search says of itself: each configuration, what leaving some of them saved, and which option matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thriftune.search.choice import choose, on_frontier
from thriftune.search.curves import Look
from thriftune.search.policies import Standing
from thriftune.search.space import Space
from thriftune.search.types import Found

FEW_TO_WEIGH = 4  # configurations: of fewer, nobody can tell which option makes the difference
TREES = 200


def found_of(
    space: Space,
    looks: Sequence[Look],
    spent: Sequence[float],
    standing: Standing,
    serving: Sequence[float],
    cheapest_within: float,
    because: str,
) -> Found:
    """A search's result.

    Args:
        space: what was searched.
        looks: all of them, at the least one.
        spent: seconds of each.
        standing: how it stands after them.
        serving: (configurations,) what a request costs.
        cheapest_within: standard errors, see `choose`.
        because: why it ended.
    """
    seen = list(dict.fromkeys(look.configuration for look in looks))
    choice = choose(standing, seen, serving, cheapest_within)
    frontier = set(on_frontier(standing.mean, serving, seen))
    rows: list[dict[str, Any]] = []
    for number in seen:
        own = [place for place, look in enumerate(looks) if look.configuration == number]
        rows.append(
            {
                "trial": number,
                "values": dict(space.configurations[number].values),
                "expected": float(standing.mean[number]),
                "deviation": known(standing.deviation[number]),
                "looks": len(own),
                "seconds": math.fsum(spent[place] for place in own),
                "ended": max(looks[place].rung for place in own) == space.configurations[number].rungs,
                "serving": serving[number],
                "on_frontier": number in frontier,
            }
        )
    rows.sort(key=lambda row: -row["expected"])
    return Found(
        values=dict(space.configurations[choice.winner].values),
        configurations=rows,
        seconds=math.fsum(spent),
        because=because,
        chosen_because=choice.because,
        top=dict(space.configurations[choice.top].values),
        saved_seconds=saved_seconds(space, looks, spent),
        importance=importance(space, standing, seen),
    )


def known(value: float) -> float | None:
    """A number, or None for a NaN."""
    return None if math.isnan(value) else float(value)


def saved_seconds(space: Space, looks: Sequence[Look], spent: Sequence[float]) -> float:
    """What it would have taken to see every training that was left to its end, at the search's own mean pace."""
    reached: dict[tuple[int, int], int] = {}
    for look in looks:
        trial = (look.configuration, look.fold)
        reached[trial] = max(reached.get(trial, 0), look.rung)
    left = math.fsum(
        space.configurations[number].cost - rung * space.configurations[number].rung_cost
        for (number, _), rung in reached.items()
    )
    return left * math.fsum(spent) / math.fsum(look.cost for look in looks)


def importance(space: Space, standing: Standing, seen: Sequence[int]) -> Mapping[str, float]:
    """Share of the differences in expected score that each option makes, by what it explains in a random forest.

    The forest's mean decrease in impurity (Breiman, 2001) over the configurations that were looked at; an option of
    words has a column a word, which are summed.
    """
    from sklearn.ensemble import RandomForestRegressor

    if len(seen) < FEW_TO_WEIGH:
        return {}
    forest = RandomForestRegressor(n_estimators=TREES, random_state=0)
    forest.fit(space.coordinates[seen], standing.mean[seen])
    shares = dict.fromkeys(space.names, 0.0)
    for name, share in zip(space.columns, forest.feature_importances_, strict=True):
        shares[name] += float(share)
    whole = math.fsum(shares.values())
    return dict(sorted(shares.items(), key=lambda entry: -entry[1])) if np.isfinite(whole) and whole > 0 else {}
