"""Steps of rollouts that were gone through: kept as stages of the project, and what the next ones are expected to take.

A step is watched for as long as the project file states, or as long as its decision takes. What earlier steps took is
kept as a share of what was stated for them then, so that another watch says something of this one too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thriftune.budget.forecast import Forecast
from thriftune.budget.record import Record
from thriftune.timeline.options import ROLLOUT

if TYPE_CHECKING:
    from thriftune.events import EventLog
    from thriftune.timeline.phases import Recorded

PREFIX = ROLLOUT.partition("{")[0]
ANY_STEP = "any step"
TRAFFIC = "traffic"  # in the place of a machine's class: what a step takes hangs on requests, not on the machine

Took = Mapping[str, Sequence[float]]
"""By the step's name, and of `ANY_STEP`: what each took over what was stated for it."""


def is_rollout(stage: str) -> bool:
    """Whether a stage is a step of a rollout."""
    return stage.startswith(PREFIX)


def tell_begun(events: EventLog, share: int) -> None:
    """A step begins: `share` per cent of the users get the release."""
    events.emit("stage.started", stage=ROLLOUT.format(share=share), key="")


def tell_ended(events: EventLog, share: int, seconds: float, stated_seconds: float) -> None:
    """A step has ended, after `seconds` of the `stated_seconds` that it was to be watched for."""
    events.emit(
        "stage.finished",
        stage=ROLLOUT.format(share=share),
        key="",
        seconds=seconds,
        reused=False,
        stated_seconds=stated_seconds,
    )


def took_of(events: Iterable[Recorded]) -> Took:
    """What the steps on record took, the earliest first."""
    found: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.kind == "stage.finished" and is_rollout(event.data["stage"]) and event.data.get("stated_seconds"):
            ratio = event.data["seconds"] / event.data["stated_seconds"]
            found[event.data["stage"]].append(ratio)
            found[ANY_STEP].append(ratio)
    return found


def expected(name: str, stated_seconds: float, took: Took) -> Forecast:
    """Seconds of a step: as earlier ones of this share took, or of any, or as is stated where there were none."""
    known = next((each for each in (name, ANY_STEP) if took.get(each)), None)
    if known is None or not stated_seconds:
        return Forecast.exact(stated_seconds)
    return Record(Path(), TRAFFIC, {TRAFFIC: {known: list(took[known])}}).forecast(known, stated_seconds)
