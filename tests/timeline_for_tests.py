"""A timeline to look at: the events of a run on a clock, and a person's task with an awkward name."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from thriftune.budget.forecast import Forecast
from thriftune.timeline.options import TimelineOptions
from thriftune.timeline.timeline import Timeline, timeline_of

START = datetime(2026, 11, 25, 9, tzinfo=UTC).timestamp()
PARTS = {"collect": 10, "prepare": 20, "baselines": 30, "imports": 5, "load": 5, "probe": 10, "train": 600, "save": 2}
LATER = {"open": 3, "tuned": 40, "verdict": 10, "report": 2, "exit": 0.1}


@dataclass(frozen=True)
class Recorded:
    kind: str
    at: float
    data: dict[str, Any] = field(default_factory=dict)


def started(at: float, deadline: float | None = None) -> Recorded:
    return Recorded("attempt.started", at, {"started_at": at, "deadline_at": deadline, "deadline_fixed": True})


def planned(at: float, cut: bool = False, **seconds: float) -> Recorded:
    parts = []
    for what, middle in seconds.items():
        forecast = Forecast.lognormal(middle, 0.2, "probe")
        quantiles = dict(zip(("p5", "p25", "p50", "p75", "p95"), forecast.quantiles(), strict=True))
        parts.append({"phase": "training", "what": what, "basis": "probe", **quantiles})
    return Recorded("plan.made", at, {"parts": parts, "cut": cut})


def stage(what: str, begins: float, ends: float | None = None, reused: bool = False) -> list[Recorded]:
    found = [Recorded("stage.started", begins, {"stage": what, "key": ""})]
    if ends is not None:
        found.append(Recorded("stage.finished", ends, {"stage": what, "key": "", "seconds": 0, "reused": reused}))
    return found


NAME = 'review; "model", \\ twice\nby 17:00 — ünïcödé ' + "long " * 6


def timeline(zone: str = "Europe/Amsterdam", name: str = NAME) -> Timeline:
    tasks = [{"name": name, "who": "Bo, Ltd", "hours": 3, "after": "evaluation"}]
    options = TimelineOptions.model_validate({"tasks": tasks, "people": {"time_zone": zone}, "rollout": {"each": "6h"}})
    events = [started(START, START + 800), planned(START, **PARTS, **LATER), *stage("collect", START, START + 9)]
    found = timeline_of(
        "films; or: not", options, None, [*events, *stage("prepare", START + 9, START + 30)], START + 30
    )
    assert found is not None
    return found
