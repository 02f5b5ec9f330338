"""How long each phase of the timeline took, attempt by attempt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from thriftune.events import Event
from thriftune.report.model import PhaseDuration
from thriftune.timeline.phases import PHASE_OF


def durations(past: Sequence[Event]) -> tuple[PhaseDuration, ...]:
    """Seconds of the stages that were really gone through; one that was looked up from an earlier attempt is none.

    A stage that no phase of the timeline names stands under its own name.
    """
    seconds: dict[tuple[int, str], float] = defaultdict(float)
    for event in past:
        if event.kind == "stage.finished" and not event.data["reused"] and event.data.get("seconds") is not None:
            stage = event.data["stage"]
            seconds[event.attempt, PHASE_OF.get(stage, stage)] += event.data["seconds"]
    return tuple(PhaseDuration(attempt, phase, took) for (attempt, phase), took in seconds.items())
