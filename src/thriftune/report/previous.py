"""What a model gained over the one before it: the tuned models of two attempts on the same number of test rows.

The events hold no answers row by row, so the two are not paired. The interval of the difference comes from the two
intervals by square and add (Zou and Donner, "Construction of confidence limits about effect measures", Statistics in
Medicine 2008), as if they were independent: on the same rows, where models err alike, it is wider than need be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from thriftune.events import Event
from thriftune.report.model import Estimate, Previous

TUNED, TEST = "tuned", "test"


def over_previous(past: Sequence[Event], attempt: int, metric: str | None) -> Previous | None:
    """The gain over the latest earlier attempt whose tuned model was scored on as many rows; None where there is none.

    Args:
        past: the events of this attempt and all before it.
        attempt: this one.
        metric: what is compared; larger is better.
    """
    scored: dict[int, tuple[int | None, Estimate]] = {}
    for event in past:
        data = event.data
        if event.kind == "evaluation.scores" and (data["predictor"], data["split"]) == (TUNED, TEST):
            value = data["metrics"].get(metric)
            if isinstance(value, dict) and value.get("low") is not None and value.get("high") is not None:
                estimate = Estimate(float(value["value"]), float(value["low"]), float(value["high"]))
                scored[event.attempt] = data.get("rows"), estimate
    if attempt not in scored or scored[attempt][0] is None:
        return None
    rows, new = scored[attempt]
    earlier = [number for number, (count, _) in scored.items() if number < attempt and count == rows]
    if not earlier:
        return None
    return Previous(max(earlier), difference(new, scored[max(earlier)][1]))


def difference(new: Estimate, old: Estimate) -> Estimate:
    """The difference of two independent estimates with its interval."""
    low, high = new.low or 0.0, new.high or 0.0
    old_low, old_high = old.low or 0.0, old.high or 0.0
    value = new.value - old.value
    below = math.hypot(new.value - low, old_high - old.value)
    above = math.hypot(high - new.value, old.value - old_low)
    return Estimate(value, value - below, value + above)
