"""Rollouts on record: what steps took is kept, foretells the next ones, and stands in the timeline as it happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from thriftune.clock import ManualClock
from thriftune.events import EventLog, open_attempt
from thriftune.report.durations import durations
from thriftune.store import open_store
from thriftune.timeline.options import TimelineOptions
from thriftune.timeline.rollouts import expected, tell_begun, tell_ended, took_of
from thriftune.timeline.timeline import Timeline, timeline_of
from timeline_for_tests import LATER, PARTS, START, Recorded, planned, stage, started

DAY = 86_400.0
OPTIONS = TimelineOptions.model_validate({"rollout": {"shares": [10, 100], "each": "1d"}})
ENDED = Recorded("attempt.finished", START + 800, {"outcome": "done"})


def step(share: int, seconds: float, stated: float, at: float = START) -> Recorded:
    data = {"stage": f"rollout {share} %", "key": "", "seconds": seconds, "reused": False, "stated_seconds": stated}
    return Recorded("stage.finished", at, data)


def seen(now: float, *events: Recorded, past: tuple[Recorded, ...] = ()) -> Timeline:
    run = [started(START), planned(START, **PARTS, **LATER)]
    found = timeline_of("films", OPTIONS, None, [*run, *events], now, took=took_of([*past, *events]))
    assert found is not None
    return found


def test_without_a_rollout_on_record_a_step_takes_what_is_stated() -> None:
    assert expected("rollout 10 %", DAY, {}).quantiles() == (DAY,) * 5
    assert {slot.phase.note for slot in seen(START).schedule.slots if slot.phase.name.startswith("rollout")} == {
        "stated"
    }


def test_earlier_steps_foretell_the_next_by_what_was_stated_for_them() -> None:
    """Steps of 10 % took twice what was stated for them, whatever that was; one of 100 % a tenth more."""
    past = (step(10, 7200, 3600), step(10, 2 * DAY, DAY), step(10, 200, 100), step(100, 1.1 * DAY, DAY))
    took = took_of(past)
    ten, whole, other = (expected(f"rollout {share} %", DAY, took) for share in (10, 100, 50))
    assert ten.p50 == pytest.approx(2 * DAY) and ten.basis == "record"
    assert ten.p5 < ten.p50 < ten.p95
    assert whole.p50 == pytest.approx(1.1 * DAY)
    assert other.p50 == pytest.approx(2 * DAY)  # the median of all steps
    slots = seen(START, past=past).schedule
    assert [s.phase.note for s in slots.slots if s.phase.name.startswith("rollout")] == ["earlier rollouts"] * 2
    first = slots.slot("rollout 10 %")
    assert first.ends.p50 - first.starts.p50 == pytest.approx(2 * DAY, rel=0.1)


def test_a_step_at_work_has_its_beginning_and_one_that_is_over_its_end() -> None:
    run = [each for name in PARTS | LATER for each in stage(name, START, START + 800)]
    begun = stage("rollout 10 %", START + 1000, START + 1000 + DAY / 2)
    begun[1] = replace(begun[1], data=begun[1].data | {"seconds": DAY / 2, "stated_seconds": DAY})
    then = stage("rollout 100 %", START + 1000 + DAY / 2)
    now = START + 1000 + DAY
    slots = {s.phase.name: s.phase for s in seen(now, *run, ENDED, *begun, *then).schedule.slots}
    assert slots["rollout 10 %"].finished == START + 1000 + DAY / 2
    assert slots["rollout 100 %"].started == START + 1000 + DAY / 2 and slots["rollout 100 %"].finished is None
    assert {m.name: m.reached for m in seen(now, *run, ENDED, *begun, *then).milestones}["10 % rollout"]


def test_a_run_that_starts_anew_does_not_undo_a_step() -> None:
    begun = stage("rollout 10 %", START + 1000)
    slots = {s.phase.name: s.phase for s in seen(START + 3000, ENDED, *begun, started(START + 2000)).schedule.slots}
    assert slots["rollout 10 %"].started == START + 1000


def test_the_project_keeps_the_duration_of_every_step(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/films.db")
    clock = ManualClock(START)
    events = EventLog(store, clock, "films", open_attempt(store, clock, "films", "recipe").attempt)
    tell_begun(events, 10)
    clock.advance(7200)
    tell_ended(events, 10, 7200.0, 3600.0)
    kept = events.read()
    assert took_of(kept)["rollout 10 %"] == [2.0]
    assert [(one.attempt, one.phase, one.seconds) for one in durations(kept)] == [(1, "rollout 10 %", 7200.0)]
    events.close()
    store.close()
