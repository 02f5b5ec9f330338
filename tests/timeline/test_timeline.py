"""From a project's events and people to a timeline: plans, actuals, milestones, the deadline."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from thriftune.timeline.options import TimelineOptions
from thriftune.timeline.timeline import Timeline, timeline_of
from timeline_for_tests import LATER, PARTS, START, Recorded, planned, stage, started


def seen(now: float, *events: Recorded, **stated: Any) -> Timeline:
    deadline = stated.pop("deadline", None)
    found = timeline_of("films", TimelineOptions.model_validate(stated), deadline, events, now)
    assert found is not None
    return found


def test_without_a_plan_there_is_no_timeline() -> None:
    assert timeline_of("films", TimelineOptions(), None, [], START) is None
    assert timeline_of("films", TimelineOptions(), None, [started(START), *stage("collect", START)], START) is None


def test_a_plan_becomes_phases_one_after_the_other() -> None:
    found = seen(START, started(START), planned(START, **PARTS, **LATER))
    assert [slot.phase.name for slot in found.schedule.slots] == [
        "data",
        "baselines",
        "set-up",
        "training",
        "evaluation",
    ]
    assert found.schedule.ends.p50 == pytest.approx(START + sum(PARTS.values()) + sum(LATER.values()))
    assert found.schedule.slot("training").phase.duration.p50 == pytest.approx(602)
    assert [milestone.name for milestone in found.milestones] == [
        "data complete",
        "first checkpoint",
        "evaluation done",
    ]
    assert found.chance is None


def test_actuals_replace_what_was_planned_and_the_overrun_is_seen() -> None:
    events = [started(START), planned(START, **PARTS, **LATER)]
    events += [*stage("collect", START, START + 10), *stage("prepare", START + 10, START + 80)]
    found = seen(START + 80, *events)
    data = found.schedule.slot("data")
    assert (data.phase.started, data.phase.finished) == (START, START + 80)
    assert data.phase.planned.p50 == pytest.approx(30)
    assert [(bite.of, bite.by) for bite in found.schedule.eaten][:1] == [("data", "data")]
    assert found.milestones[0].reached
    assert found.schedule.ends.p50 == pytest.approx(START + 80 + sum((PARTS | LATER).values()) - 30)


def test_a_part_is_planned_by_the_last_plan_before_it_began() -> None:
    rest = {name: seconds for name, seconds in PARTS.items() if name in ("train", "save")} | LATER
    events = [started(START), planned(START, **PARTS, **LATER), *stage("collect", START, START + 30)]
    events += [planned(START + 60, **{**rest, "train": 900}), *stage("train", START + 60), planned(START + 70, **LATER)]
    found = seen(START + 160, *events)
    training = found.schedule.slot("training").phase
    assert training.planned.p50 == pytest.approx(900)
    assert training.started == START + 60
    assert training.duration.p50 == pytest.approx(800, rel=0.05)  # of 900, 100 are behind


def test_a_promised_date_moves_the_median_and_keeps_the_spread() -> None:
    task = {"name": "review", "who": "bo", "hours": 3, "after": "evaluation"}
    events = [started(START), planned(START, **PARTS, **LATER)]
    free = seen(START, *events, tasks=[task]).schedule.slot("review")
    due = free.ends.p50 + 86_400
    promised = seen(START, *events, tasks=[task | {"due": datetime.fromtimestamp(due, UTC)}]).schedule.slot("review")
    assert promised.ends.p50 == pytest.approx(due)
    assert promised.ends.p95 - promised.ends.p50 == pytest.approx(free.ends.p95 - free.ends.p50)
    assert promised.starts == free.starts
    overdue = seen(START, *events, tasks=[task | {"due": datetime.fromtimestamp(START, UTC)}]).schedule.slot("review")
    assert overdue.ends == free.ends  # a promise from before the work can begin does not make it take no time


def test_training_that_runs_is_foretold_from_its_own_steps() -> None:
    steps = [Recorded("training.step", START + n, {"step": n, "planned": 100, "seconds": 2.0}) for n in range(1, 41)]
    found = seen(START + 80, started(START), planned(START, **PARTS, **LATER), *stage("train", START), *steps)
    assert found.schedule.slot("training").phase.duration.p50 == pytest.approx(60 * 2 + 2)


def test_training_that_was_killed_goes_on_from_where_it_was() -> None:
    events = [started(START), planned(START, **PARTS, **LATER), *stage("train", START)]
    events += [Recorded("training.step", START + n, {"step": n, "planned": 100, "seconds": 2.0}) for n in range(1, 41)]
    found = timeline_of("films", TimelineOptions(), None, events, START + 9999, at_work=False)
    assert found is not None
    training = found.schedule.slot("training")
    assert training.phase.started is None
    assert training.phase.duration.p50 == pytest.approx(60 * 2 + 2)


def test_a_run_that_was_killed_begins_its_part_again() -> None:
    events = [started(START), planned(START, **PARTS, **LATER), *stage("train", START + 50), started(START + 500)]
    assert seen(START + 500, *events).schedule.slot("training").phase.started is None


def test_what_a_plan_held_in_memory_is_to_be_done_again_by_the_run() -> None:
    rest = {name: seconds for name, seconds in PARTS.items() if name in ("baselines", "train", "save")} | LATER
    events = [started(START), planned(START, **PARTS, **LATER), *stage("collect", START, START + 10)]
    events += [*stage("prepare", START + 10, START + 30), *stage("imports", START + 30, START + 37)]
    events += [*stage("load", START + 37, START + 45), *stage("probe", START + 45, START + 60)]
    events += [planned(START + 60, **rest), Recorded("attempt.finished", START + 60, {"outcome": "planned"})]
    found = seen(START + 90, *events)
    assert found.schedule.slot("data").phase.finished == START + 30
    assert found.schedule.slot("set-up").phase.started is None
    assert found.schedule.slot("set-up").phase.duration.p50 == pytest.approx(7 + 8 + 15)
    assert found.schedule.ends.p50 == pytest.approx(START + 90 + 30 + sum(rest.values()))


def test_a_run_that_is_done_has_ended_everywhere() -> None:
    events, at = [started(START), planned(START, **PARTS, **LATER)], START
    for what, seconds in (PARTS | LATER).items():
        if what not in ("save", "exit"):
            events += stage(what, at, at + seconds)
            at += seconds
    found = seen(at + 1000, *events, Recorded("attempt.finished", at, {"outcome": "done"}))
    assert all(slot.phase.finished is not None for slot in found.schedule.slots)
    assert found.schedule.ends.quantiles() == (at,) * 5
    assert all(milestone.reached for milestone in found.milestones)
    assert found.schedule.eaten == ()


def test_people_wait_for_the_machine_and_the_machine_for_people() -> None:
    tasks = [
        {"name": "label", "who": "ana", "hours": 8, "before": "data"},
        {"name": "train the raters", "who": "ana", "hours": 4},
        {"name": "review", "who": "bo", "hours": 1, "after": "evaluation", "before": "rollout 10 %"},
    ]
    found = seen(START, started(START), planned(START, **PARTS, **LATER), tasks=tasks, rollout={"each": "1d"})
    slots = found.schedule.slot
    assert slots("data").starts.p50 == pytest.approx(slots("label").ends.p50, abs=3600)
    assert slots("train the raters").starts.p50 >= slots("label").ends.p50  # Ana does one thing at a time
    assert slots("rollout 10 %").starts.p50 >= slots("review").ends.p50
    assert found.schedule.critical_path[-1] == "rollout 100 %"
    assert "train the raters" not in found.schedule.critical_path
    names = [milestone.name for milestone in found.milestones]
    assert names == ["data complete", "first checkpoint", "evaluation done", "10 % rollout", "full rollout"]
    assert found.milestones[-1].at.p50 == pytest.approx(found.milestones[-2].at.p50 + 3 * 86_400)


def test_a_task_that_is_done_or_begun_counts_as_it_went() -> None:
    done = {"name": "label", "who": "ana", "hours": 4, "before": "data"}
    done |= {"started": "2026-11-24T09:00Z", "done": "2026-11-24T15:00Z"}
    found = seen(START, started(START), planned(START, **PARTS, **LATER), tasks=[done])
    assert found.schedule.slot("data").starts.p50 == START
    assert {(bite.of, bite.by) for bite in found.schedule.eaten} == {("label", "label")}
    begun = {"name": "label", "who": "ana", "hours": 4, "started": "2026-11-24T15:00Z"}
    going = seen(START, started(START), planned(START, **PARTS, **LATER), tasks=[begun])
    assert going.schedule.slot("label").phase.duration.p50 == pytest.approx(2 * 3600, rel=0.1)


def test_what_a_plan_did_before_people_were_ready_is_to_be_done_again_and_what_a_run_did_is_not() -> None:
    events = [started(START), planned(START, **PARTS, **LATER), *stage("collect", START, START + 10)]
    events += stage("prepare", START + 10, START + 50)
    events += [Recorded("attempt.finished", START + 50, {"outcome": "planned"})]
    tasks = [{"name": "label", "who": "ana", "hours": 2, "before": "data"}]
    found = seen(START + 60, *events, tasks=tasks)
    data = found.schedule.slot("data")
    assert data.phase.finished is None
    assert data.phase.duration.p50 == pytest.approx(50)
    assert data.starts.p50 == pytest.approx(START + 60 + 7200, abs=90)
    assert found.schedule.critical_path[:2] == ("label", "data")
    run = seen(START + 60, *events, started(START + 55), tasks=tasks)
    assert run.schedule.slot("data").phase.finished == START + 50
    ready = tasks[0] | {"done": "2026-11-24T15:00Z"}
    assert seen(START + 60, *events, tasks=[ready]).schedule.slot("data").phase.finished == START + 50


def test_a_part_that_the_phases_do_not_name_goes_with_the_one_before_it() -> None:
    parts = {"collect": 10.0, "prepare": 20.0, "census": 70.0, "baselines": 30.0, "train": 600.0}
    found = seen(START, started(START), planned(START, **parts))
    assert found.schedule.slot("data").phase.duration.p50 == pytest.approx(100)
    assert found.schedule.ends.p50 == pytest.approx(START + 730)
    events = [*stage("collect", START, START + 10), *stage("prepare", START + 10, START + 30)]
    going = seen(START + 40, started(START), planned(START, **parts), *events, *stage("census", START + 30))
    assert going.schedule.slot("data").phase.finished is None
    done = seen(
        START + 99,
        started(START),
        planned(START, **parts),
        *events,
        Recorded("attempt.finished", START + 50, {"outcome": "done"}),
    )
    assert all(slot.phase.finished is not None for slot in done.schedule.slots)


def test_the_deadline_is_the_one_that_the_first_run_fixed() -> None:
    whole = sum((PARTS | LATER).values())
    plan = planned(START, **PARTS, **LATER)
    unfixed = Recorded(
        "attempt.started", START, {"started_at": START, "deadline_at": START + 9, "deadline_fixed": False}
    )
    assert seen(START, unfixed, plan).deadline_at is None
    fixed = seen(START, started(START, START + whole), plan, deadline=timedelta(hours=9))
    assert fixed.deadline_at == START + whole
    assert fixed.chance == pytest.approx(0.5, abs=0.02)
    date = seen(START, started(START), plan, deadline=datetime.fromtimestamp(START + 1.2 * whole, UTC))
    assert date.chance == pytest.approx(0.95, abs=0.01)
    duration = seen(START, started(START), plan, deadline=timedelta(seconds=1.2 * whole), starts="2026-12-01T09:00Z")
    assert duration.chance == pytest.approx(0.95, abs=0.01)  # it counts from the first run
    assert duration.deadline_at == pytest.approx(datetime(2026, 12, 1, 9, tzinfo=UTC).timestamp() + 1.2 * whole, abs=1)


def test_of_runs_said_to_be_so_likely_as_many_keep_the_deadline() -> None:
    """Calibration against a simulator of its own: the actual durations drawn from what the plan states."""
    import numpy as np

    random, hits, said = np.random.default_rng(7), [], []
    sigma = np.log(1.2) / 1.6448536
    for _ in range(60):
        whole = sum((PARTS | LATER).values())
        deadline = START + whole * float(random.uniform(0.85, 1.2))
        found = seen(START, started(START, deadline), planned(START, **PARTS, **LATER))
        actual = whole * np.exp(sigma * random.standard_normal(200))
        said.append(found.chance)
        hits.append(float(np.mean(START + actual <= deadline)))
    assert np.mean(np.abs(np.asarray(said) - np.asarray(hits))) < 0.04
    assert np.corrcoef(np.asarray(said, dtype=float), hits)[0, 1] > 0.98
