"""Of projects said to be so likely, as many keep their deadline: simulated ones, asked at their start and half-way.

The simulator draws how long everything really takes and walks through it by itself; the planner sees the plans, and
half-way what has ended and what has begun by then.
"""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from thriftune.budget.forecast import Forecast
from thriftune.plan.sampling import remaining
from thriftune.timeline.calendars import WorkingTime
from thriftune.timeline.options import WorkingHours
from thriftune.timeline.schedule import Phase, schedule

START = datetime(2026, 11, 25, 9, tzinfo=UTC).timestamp()
HOUR = 3600.0
Z95 = 1.6448536
PROJECTS = 2_500
WORKING = WorkingTime(WorkingHours())
# name, median hours, spread, what it waits for, whether people do it
NETWORK = (
    ("label", 10.0, 0.6, (), True),
    ("data", 2.0, 0.5, ("label",), False),
    ("train", 20.0, 0.4, ("data",), False),
    ("guide", 4.0, 0.8, (), True),
    ("review", 5.0, 0.5, ("train", "guide"), True),
)


def phases() -> list[Phase]:
    found = []
    for name, hours, spread, after, people in NETWORK:
        planned = Forecast.lognormal(hours * HOUR, spread, "prior")
        found.append(Phase(name, planned, planned, after, working=WORKING if people else None))
    return found


def happens(planned: list[Phase], random: np.random.Generator) -> dict[str, tuple[float, float]]:
    """When everything really begins and ends."""
    ends: dict[str, tuple[float, float]] = {}
    for phase, (_, hours, spread, after, _people) in zip(planned, NETWORK, strict=True):
        seconds = hours * HOUR * float(np.exp(np.log1p(spread) / Z95 * random.standard_normal()))
        ready = max([START, *(ends[other][1] for other in after)])
        begins = float(phase.begins(np.asarray([ready]))[0])
        ends[phase.name] = begins, float(phase.ends(np.asarray([begins]), np.asarray([seconds]))[0])
    return ends


def seen_at(now: float, planned: list[Phase], truth: dict[str, tuple[float, float]]) -> list[Phase]:
    """What is known by an instant."""
    found = []
    for phase in planned:
        begins, ends = truth[phase.name]
        if ends <= now:
            found.append(replace(phase, started=begins, finished=ends))
        elif begins <= now:
            left = remaining(phase.planned, phase.seconds(begins, now))
            found.append(replace(phase, started=begins, duration=left))
        else:
            found.append(phase)
    return found


@pytest.mark.parametrize("half_way", [False, True], ids=["at the start", "half-way"])
def test_of_those_said_to_be_so_likely_as_many_keep_the_deadline(half_way: bool) -> None:
    random = np.random.default_rng(11)
    planned = phases()
    said, kept = [], []
    for number in range(PROJECTS):
        truth = happens(planned, random)
        last = max(end for _, end in truth.values())
        now = START + HOUR * float(random.uniform(5, 70)) if half_way else START  # never by what will happen
        if last <= now:
            continue
        found = schedule(seen_at(now, planned, truth), now, 0.15, seed=number, size=400)
        ends = np.max(np.stack(list(found.draws.values())), axis=0)
        deadline = float(np.quantile(ends, random.uniform(0.02, 0.98)))  # so that every chance comes up
        said.append(float(np.mean(ends <= deadline)))
        kept.append(last <= deadline)
    chances, made = np.asarray(said), np.asarray(kept, dtype=float)
    for low, high in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.01)):
        inside = (chances >= low) & (chances < high)
        count = int(inside.sum())
        assert count >= 300
        mean = float(chances[inside].mean())
        error = 3 * np.sqrt(max(mean * (1 - mean), 0.01) / count) + 0.01
        assert made[inside].mean() == pytest.approx(mean, abs=error), (low, high, count)
