"""When to end training early: where the rest of it costs more than it can bring.

At each validation the two ways to go on are held against each other: the short decay now, and every later point at
which training could end, the plan's end among them. Going on is worth the gain in the watched figure up to there; it
costs the machine time between the two ends, at the pace that is metered. That is the utility of Lee et al.,
"Cost-Sensitive Freeze-Thaw Bayesian Optimization for Efficient Hyperparameter Tuning" (NeurIPS 2025), performance less
a price of what it took, with the price in money. Training ends when no later point has a positive one even under the
gain's upper bound (train/curve.py).

The curve is read before the rate decays, so the gain of a decay itself is no part of it: the short one brings most of
that (Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from thriftune.money.amounts import shown_money
from thriftune.train.curve import MIN_VALIDATIONS, future_gains
from thriftune.train.recipe import Recipe

POINT = 0.01  # of a figure from 0 to 1, or nats of a loss: about one per cent of the perplexity
ROW_DEVIATION = 0.5  # of a share's rows, at most; about that of a row's loss in nats
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Weighed:
    """The best later end of training, held against ending now.

    Args:
        until: the step at which the rate would begin its last decay.
        points: the expected gain up to there.
        most_points: its upper bound.
        worth: of the upper bound, in money.
        cost: of getting there, beyond that of ending now.
        saved: what ending now costs less than the whole plan.
    """

    until: int
    points: float
    most_points: float
    worth: Decimal
    cost: Decimal
    saved: Decimal

    @property
    def pays(self) -> bool:
        """Whether going on may be worth its cost."""
        return self.worth > self.cost

    def told(self) -> dict[str, Any]:
        """As an event tells it: plain JSON values, money as decimal text."""
        money = {"worth": f"{self.worth:f}", "cost": f"{self.cost:f}", "saved": f"{self.saved:f}"}
        points = {"points": self.points, "most_points": self.most_points}
        return {"until": self.until, "pays": self.pays} | points | money


@dataclass(frozen=True)
class Stopping:
    """What a point is worth, and what a second costs.

    Args:
        worth_per_point: money for a point.
        price_per_hour: of the machine.
        currency: of both.
    """

    worth_per_point: Decimal
    price_per_hour: Decimal
    currency: str

    def weigh(
        self,
        curve: Sequence[tuple[int, float]],
        began_at: float,
        planned: int,
        every: int,
        step_seconds: float,
        recipe: Recipe,
        rows: int,
    ) -> Weighed | None:
        """The most that going on can be worth; None while the curve cannot tell.

        It cannot while it is short, or has not risen yet: one that has not begun to learn looks like one that has
        nothing to learn.

        Args:
            curve: step and `height` of each validation so far; the last is at the step of now.
            began_at: the height of the run's first validation.
            planned: the steps of the plan.
            every: steps from one validation to the next.
            step_seconds: what a step takes, with its share of validations and checkpoints.
            recipe: how long the short decay is, and what is watched.
            rows: of a validation.
        """
        steps, heights = zip(*curve, strict=True) if curve else ((), ())
        if len(steps) < MIN_VALIDATIONS or max(heights) <= began_at:
            return None
        now = steps[-1]
        ahead = [*range(now + every, planned, every), planned]
        gains = future_gains(steps, heights, ahead, ROW_DEVIATION / math.sqrt(rows))
        ends_now = end_after(now, planned, recipe)
        room = headroom(max(heights), recipe)

        def at(until: int, mean: float, upper: float) -> Weighed:
            points, most = min(mean, room) / POINT, min(upper, room) / POINT
            return Weighed(
                until,
                points,
                most,
                worth=self.worth_per_point * Decimal(repr(most)),
                cost=self._cost(end_after(until, planned, recipe) - ends_now, step_seconds),
                saved=self._cost(planned - ends_now, step_seconds),
            )

        found = [at(*each) for each in zip(ahead, gains.mean.tolist(), gains.upper.tolist(), strict=True)]
        return max(found, key=lambda weighed: weighed.worth - weighed.cost)

    def reason(self, weighed: Weighed, watch: str) -> str:
        """Why training ends, with its figures."""

        def say(amount: Decimal) -> str:
            return shown_money(amount, self.currency)

        unit = "points of" if watch not in IN_NATS else "hundredths of a nat of"
        return (
            f"going on to step {weighed.until} could bring {weighed.most_points:.2f} {unit} {watch} at most"
            f" ({weighed.points:.2f} are expected), worth {say(weighed.worth)} at {say(self.worth_per_point)} a point,"
            f" and would cost {say(weighed.cost)}; ending now saves {say(weighed.saved)}"
        )

    def _cost(self, steps: int, step_seconds: float) -> Decimal:
        return self.price_per_hour * Decimal(repr(steps * step_seconds)) / SECONDS_PER_HOUR


IN_NATS = ("loss", "perplexity")


def end_after(step: int, planned: int, recipe: Recipe) -> int:
    """The step at which training ends when the short decay begins at `step`."""
    return min(planned, step + max(1, round(recipe.ending_share * step)))


def height(figures: Mapping[str, float], recipe: Recipe) -> float:
    """A validation as a point of the curve: the watched figure, or the loss in nats where that is the same; larger is
    better."""
    if recipe.watch in IN_NATS:
        return -figures["loss"]
    return figures[recipe.watch] if recipe.higher_is_better else -figures[recipe.watch]


def headroom(best: float, recipe: Recipe) -> float:
    """How much better than the best height any curve can get: losses end at 0, shares at 1."""
    if recipe.watch == "reward_margin":
        return float("inf")
    return max(0.0, -best if not recipe.higher_is_better else 1.0 - best)
