"""The continuous review in a real session, on a clock that the test drives: when it is made, and the moves it makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from line_for_tests import write_films
from thriftune.budget.forecast import Forecast
from thriftune.clock import ManualClock
from thriftune.errors import Interrupted
from thriftune.forecasting import ROW_EPOCH_PART, expect_all
from thriftune.money.prices import Price, PriceTable
from thriftune.money.tables import interruptions
from thriftune.plan.plan import Part, Plan, Workload
from thriftune.plan.review import FEWER_TRIALS
from thriftune.project import Project
from thriftune.reviewing import REVIEW_SECONDS, Reviewer, room_for_search, watch
from thriftune.search.options import ALLOWANCE
from thriftune.session import Session, open_session
from thriftune.sizes import Size

PROJECT = """name: films
objective: {{task: classify}}
data:
  - {{file: films.csv, text: text, label: label}}
budget: {{total: 100.00{budget}}}
deadline: {deadline}
compute: {{price_per_hour: 3.6}}
search: {{space: {{learning_rate: [0.001, 0.003]}}, share: 0.5}}
train: {{epochs: 4}}
"""
SIZE = Size(rows=300, train=200, test=30, classes=2)
ROW_PASS = 0.05  # seconds: 40 s of training


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))
    write_films(tmp_path / "films.csv", rows=20)


@contextmanager
def session(folder: Path, deadline: str = "10h", budget: str = "", now: float = 1.8e9) -> Iterator[Session]:
    (folder / "thriftune.yaml").write_text(PROJECT.format(deadline=deadline, budget=budget))
    with open_session(Project.load(folder / "thriftune.yaml"), clock=ManualClock(now)) as opened:
        expect_all(opened)
        yield opened


def work(opened: Session, seconds: float) -> None:
    """A unit of so many seconds."""
    clock = opened.context.clock
    with opened.context.meter.unit("training", "steps", 2 * seconds):
        assert isinstance(clock, ManualClock)
        clock.advance(seconds)


def reviews(opened: Session) -> list[dict]:
    return [event.data for event in opened.context.events.read(kinds=["review"])]


def test_a_review_is_made_every_hour_and_not_sooner(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        watch(opened)
        for _ in range(5):
            work(opened, REVIEW_SECONDS / 2)
        assert [each["when"] for each in reviews(opened)] == ["an hour has passed since the last review"] * 2
        first, second = reviews(opened)
        assert first["seconds_left"] - second["seconds_left"] == pytest.approx(REVIEW_SECONDS)
        assert not first["in_danger"] and first["proposals"] == []


def test_a_review_is_made_where_a_phase_begins(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        watch(opened)
        for stage in ("collect", "prepare", "score", "baselines", "untuned-elsewhere", "encode", "load"):
            opened.context.events.emit("stage.started", stage=stage, key="")
        assert [each["when"] for each in reviews(opened)] == [
            "collection is over, evaluation begins with baselines",
            "evaluation is over, training begins with encode",
        ]


def test_while_it_trains_the_rest_is_foretold_by_its_own_pace(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        reviewer = watch(opened)
        for stage in [name for name in opened.outlook.parts if name != "train"]:
            opened.outlook.done(stage)
        for step in (1, 11):
            opened.context.events.emit("training.step", step=step, planned=61, seconds=0.5, loss=1.0)
            work(opened, 30.0)
        assert reviewer.renewed().full.p50 == pytest.approx(50 * 3.0)  # ten steps took 30 s, validations and all


def prepared(opened: Session) -> Reviewer:
    """A run whose rows are split and whose record knows what training a row takes."""
    reference = opened.project.file.model_references[0]
    for _ in range(3):
        opened.record.add(f"{ROW_EPOCH_PART}/{reference}", ROW_PASS)
    for part in ("collect", "prepare", "baselines"):
        opened.outlook.done(part)
    reviewer = watch(opened)
    reviewer.size = SIZE
    return reviewer


def room(opened: Session) -> float:
    return opened.limits().seconds - opened.outlook.after("search")


def test_a_search_is_cut_before_it_begins_only_where_the_project_file_allows_it(tmp_path: Path) -> None:
    with session(tmp_path, deadline="140s") as opened:
        reviewer = prepared(opened)
        told = reviewer.review("now")
        (proposal,) = told.proposals
        assert proposal.move == FEWER_TRIALS and not proposal.allowed and proposal.seconds > 0
        assert room_for_search(reviewer, room(opened)) == room(opened)
        assert opened.decisions.recorded(FEWER_TRIALS) is None


def test_a_cut_search_is_a_recorded_decision_that_a_resumed_run_reads(tmp_path: Path) -> None:
    allowed = ", may: [fewer_trials]"
    with pytest.raises(Interrupted), session(tmp_path, deadline="140s", budget=allowed) as opened:
        reviewer = prepared(opened)
        whole = reviewer.renewed()
        cut = room_for_search(reviewer, room(opened))
        search = opened.project.file.search
        assert search is not None and cut < room(opened)
        missing = whole.full.p95 - whole.limits.seconds
        before = next(part for part in whole.parts if part.what == "search").seconds.p95
        assert search.share * cut == pytest.approx(before - missing)
        (decision,) = [e.data for e in opened.context.events.read(kinds=["decision"]) if e.data["what"] == FEWER_TRIALS]
        assert decision["chosen"] == pytest.approx(search.share * cut) and "saves" in decision["because"]
        raise Interrupted("interrupted")
    with session(tmp_path, deadline="140s", budget=allowed, now=1.8e9 + 5) as opened:
        reviewer = prepared(opened)
        assert room_for_search(reviewer, 1e6) == pytest.approx(cut)
        taken = [e for e in opened.context.events.read(kinds=["decision"]) if e.data["what"] == FEWER_TRIALS]
        assert len(taken) == 1


def searching(opened: Session, allowed: float, taken: float) -> Reviewer:
    """A run in the midst of its search, one look of which has been made."""
    reviewer = prepared(opened)
    for part in ("score", "untuned-elsewhere"):
        opened.outlook.done(part)
    opened.context.events.emit("stage.started", stage="search", key="")
    opened.decisions.take(ALLOWANCE, lambda: (allowed, "for this test"))
    opened.context.events.emit("search.look", study="", seconds=taken, failed="")
    return reviewer


def test_a_search_is_cut_in_its_midst_by_just_what_is_missing(tmp_path: Path) -> None:
    hours = 3 * REVIEW_SECONDS
    with session(tmp_path, deadline="3h", budget=", may: [fewer_trials]") as opened:
        reviewer = searching(opened, allowed=hours - 2 * ROW_PASS * 4 * SIZE.train, taken=REVIEW_SECONDS / 2)
        waiting = opened.context.clock
        assert isinstance(waiting, ManualClock)
        waiting.advance(2 * REVIEW_SECONDS)  # for a more urgent run, say
        work(opened, 1.0)
        cut = opened.decisions.recorded(ALLOWANCE)
        told = reviews(opened)[-1]
        assert told["in_danger"] and cut == pytest.approx(REVIEW_SECONDS / 2 + told["proposals"][0]["chosen"])
        after = reviewer.renewed()
        assert after.full.p95 == pytest.approx(after.limits.seconds, rel=1e-3)  # just what is missing, nothing more
        decisions = [e.data for e in opened.context.events.read(kinds=["decision"]) if e.data["what"] == ALLOWANCE]
        assert len(decisions) == 2 and "saves" in decisions[1]["because"]


def test_a_search_that_goes_on_in_another_process_is_reviewed_at_once(tmp_path: Path) -> None:
    allowed = ", may: [fewer_trials]"
    with pytest.raises(Interrupted), session(tmp_path, deadline="3h", budget=allowed) as opened:
        searching(opened, allowed=2 * REVIEW_SECONDS, taken=REVIEW_SECONDS / 2)
        raise Interrupted("interrupted")
    with session(tmp_path, deadline="3h", budget=allowed, now=1.8e9 + 2 * REVIEW_SECONDS) as opened:
        reviewer = prepared(opened)
        opened.context.events.emit("stage.started", stage="search", key="")
        assert reviews(opened)[-1]["when"] == "the search goes on"
        assert REVIEW_SECONDS / 2 < opened.decisions.recorded(ALLOWANCE) < 1.5 * REVIEW_SECONDS
        after = reviewer.renewed()
        assert after.full.p95 == pytest.approx(after.limits.seconds, rel=1e-3)


def test_a_search_is_not_cut_in_its_midst_where_the_project_file_does_not_allow_it(tmp_path: Path) -> None:
    with session(tmp_path, deadline="3h") as opened:
        searching(opened, allowed=2 * REVIEW_SECONDS, taken=REVIEW_SECONDS / 2)
        assert isinstance(opened.context.clock, ManualClock)
        opened.context.clock.advance(2 * REVIEW_SECONDS)
        work(opened, 1.0)
        (proposal,) = reviews(opened)[-1]["proposals"]
        assert proposal["move"] == FEWER_TRIALS and not proposal["allowed"]
        assert opened.decisions.recorded(ALLOWANCE) == 2 * REVIEW_SECONDS


def test_what_nobody_has_measured_is_not_held_to_be_in_danger(tmp_path: Path) -> None:
    """Before the probe and without a record nothing is known of training but its least."""
    with session(tmp_path, budget=", may: [fewer_trials]") as opened:
        reviewer = watch(opened)
        reviewer.size = SIZE
        assert not reviewer.review("now").proposals


def rented() -> tuple[Price, Price]:
    """A machine that is sold on demand and, in the same region, as spot with a known rate of interruptions."""
    table, known = PriceTable.load(), interruptions()
    spot = {(row.provider, row.machine, row.region): row for row in table.rows if row.market == "spot"}
    for row in sorted(table.rows, key=lambda row: row.per_hour):
        other = spot.get((row.provider, row.machine, row.region))
        if row.market == "on-demand" and other and (row.provider, row.machine.lower(), row.region) in known:
            return row, other
    raise AssertionError("the table has none")


def test_the_spot_market_is_proposed_with_its_interruptions_and_never_taken(tmp_path: Path) -> None:
    price, spot = rented()
    machine = f"machine: '{price.provider}:{price.machine}', region: {price.region}"
    whole = PROJECT.replace("price_per_hour: 3.6", machine)
    (tmp_path / "thriftune.yaml").write_text(whole.format(deadline="100h", budget=", may: [deeper_freeze]"))
    with open_session(Project.load(tmp_path / "thriftune.yaml"), clock=ManualClock(1.8e9)) as opened:
        reviewer = watch(opened)
        hours = Forecast.exact(10 * 3600.0, "probe")
        work_there = Workload(1e15, 1000, 6, 10**6, 1e12, Forecast.exact(0.0), Forecast.exact(60.0), 30.0)
        plan = Plan((Part("training", "train", hours),), opened.limits(), workload=work_there)
        reviewer.probed = plan
        (proposal,) = reviewer.proposals(plan)
    assert proposal.move == "spot" and not proposal.allowed and "interruptions expected" in proposal.says
    assert proposal.seconds <= 0  # interruptions take time, where the median run meets one
    undisturbed = 10 * (price.per_hour - spot.per_hour)
    assert Decimal("0.5") * undisturbed < proposal.money <= undisturbed
    assert proposal.chosen == f"{spot.per_hour:f}"
