"""The benches of the plan and the budget: how they draw, score and explain."""

import random
import sys
import time
from pathlib import Path

import psutil
import pytest

BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import budget_quality  # noqa: E402
import forecast  # noqa: E402
import landed  # noqa: E402
import outside  # noqa: E402


def test_no_scored_model_or_length_is_among_the_calibrating_runs():
    scored = [settings for settings in forecast.cells(quick=False) if settings["kind"] == "fixed"]
    calibrating = forecast.calibrating()
    assert len(scored) >= 60
    assert len(calibrating) >= 19
    for key in ("family", "max_tokens"):
        assert not {one[key] for one in scored} & {one[key] for one in calibrating}
    assert {"full", "lora", "prefix", "head"} == {one["method"] for one in scored if one["task"] == "classify"} | {
        "prefix"
    }


def test_a_forecast_is_scored_on_coverage_width_error_and_their_sum():
    quantiles = [80.0, 95.0, 100.0, 105.0, 120.0]
    runs = [{"plan": {"time_s": quantiles}, "time_s": came} for came in (100.0, 110.0, 200.0, 60.0)]
    found = forecast.scores(runs, "plan", "time_s")
    assert (found["coverage_90"], found["coverage_50"]) == (0.5, 0.25)
    assert found["median_half_width_90"] == pytest.approx(0.2)
    assert forecast.interval_score(80.0, 120.0, 100.0) == pytest.approx(40.0)
    assert forecast.interval_score(80.0, 120.0, 200.0) == pytest.approx(40 + 20 * 80)
    assert forecast.interval_score(80.0, 120.0, 60.0) == pytest.approx(40 + 20 * 20)
    low, high = forecast.binomial_range(60, 0.9)
    assert 0.8 < low < 0.9 < high < 1.0


def test_a_process_is_seen_from_outside_with_its_children(tmp_path):
    grow = "import time; block = bytearray(60_000_000); time.sleep(0.4)"
    child = f"import subprocess, sys; block = bytearray(60_000_000); subprocess.run([sys.executable, '-c', {grow!r}])"
    seen = outside.watch([sys.executable, "-c", child + "; print('told'); sys.exit(3)"], tmp_path)
    assert (seen.exit, seen.out) == (3, "told\n")
    assert seen.peak_bytes > 120_000_000
    assert seen.seconds >= 0.4


def test_the_disturbing_process_comes_late_and_goes_with_the_block():
    def burning() -> int:
        return sum("while True: pass" in child.cmdline() for child in psutil.Process().children())

    with outside.core_eaten_after(0.3):
        assert burning() == 0
        time.sleep(1.0)
        assert burning() == 1
    assert burning() == 0


def test_the_margin_takes_the_larger_of_both_errors():
    drawn = random.Random(2)
    ours = [[float(drawn.random() < 0.8) for _ in range(500)] for _ in range(3)]
    same = budget_quality.margin(ours, ours)
    assert same == {"points": 0.0, "error": 0.0, "lower": 0.0}
    apart = [[score + shift for score in seed] for seed, shift in zip(ours, (0.0, 0.1, 0.2), strict=True)]
    between = budget_quality.margin(apart, ours)
    assert between["points"] == pytest.approx(10.0)
    assert between["error"] == pytest.approx(100 * 0.1 / 3**0.5)
    assert between["lower"] == pytest.approx(10 - 1.645 * between["error"])


def pooled_cell(limit: int, ours: float, theirs: float) -> dict:
    return {"limit_s": limit, "quality": {"thriftune": ours, "trainer": theirs}, "best_peer": "trainer"}


def test_the_ratio_says_when_the_peer_reaches_what_we_have_in_the_middle_limit():
    def ratio(ours: float) -> float:
        cells = [pooled_cell(limit, ours, theirs) for limit, theirs in ((60, 0.7), (180, 0.78), (600, 0.8))]
        return budget_quality.times_our_limit(cells)

    assert ratio(0.79) == pytest.approx(600 / 180)
    assert ratio(0.81) == pytest.approx(600 / 180)  # never reached: at least so many times
    assert ratio(0.75) == pytest.approx(1.0)
    assert ratio(0.65) == pytest.approx(60 / 180)


def test_one_scorer_reads_all_answers_and_wants_one_a_row():
    assert budget_quality.row_scores("classify", ["a", "b"], ["a", "a"]) == [1.0, 0.0]
    assert budget_quality.row_scores("chat", ["an animal: a dog"], ["animal: a dog"])[0] == pytest.approx(
        6 / 7, abs=1e-4
    )
    with pytest.raises(ValueError, match="1 answers to 2 rows"):
        budget_quality.row_scores("classify", ["a"], ["a", "b"])


def test_all_systems_get_the_same_rows_and_none_is_held_out():
    settings = {"data": "amazon", "seed": 2, "held_out": 2000, "train": None}
    train, held_out = budget_quality.rows_of(settings)
    assert len(held_out) == 2000
    assert not {row["id"] for row in train} & {row["id"] for row in held_out}
    assert (train, held_out) == budget_quality.rows_of(settings)


BEST = {"quality": 0.80, "helped": "yes", "recipe": {}}


def ended(**changed) -> dict:
    report = {
        "decision": "ship",
        "reasons": [],
        "stopped": "limit",
        "steps": ["50 s are left: 60 of 90 steps"],
        "breaches": [],
        "test_rows": 90,
        "forecast": {
            "training": {"p5": 20.0, "p50": 25.0, "p95": 30.0, "actual": 45.0, "basis": "probe"},
            "total": {"p5": 50.0, "p50": 55.0, "p95": 60.0, "actual": 56.0, "basis": "probe"},
        },
    }
    whole = {"exit": 0, "outer_s": 56.0, "outer_money": 0.5, "deadline": 60.0, "budget": 1.0, "price": 36.0}
    kept = {key: value for key, value in changed.items() if key not in report}
    return whole | {"quality": 0.795, "message": "", "report": report | changed} | kept


def test_a_project_lands_when_everything_about_it_is_right():
    judged = landed.judge(ended(), BEST)
    assert judged["landed"]
    assert judged["why"] == []


@pytest.mark.parametrize(
    ("changed", "part", "why"),
    [
        ({"outer_s": 60.4, "deadline": 60.0}, "inside", "over by 0.40 s: no breach is reported"),
        ({"quality": 0.75}, "near_best", "5.0 points below the defaults: the limit cut it (50 s are left"),
        ({"decision": "cannot tell"}, "verdict", "said cannot tell where it helped: yes, by 90 test rows"),
        ({"outer_s": 49.0}, "covered", "training: 20.0 to 30.0 s foretold (probe), 45.0 s came"),
    ],
)
def test_a_miss_is_explained_by_the_report(changed, part, why):
    judged = landed.judge(ended(**changed), BEST)
    assert not judged["landed"]
    assert not judged[part]
    assert why in "; ".join(judged["why"])


def test_a_refusal_is_a_miss_that_names_what_would_have_worked():
    message = "expected at least a budget of $0.75 and a deadline of 88 s"
    judged = landed.judge(ended(exit=3, message=message), BEST)
    assert not judged["landed"]
    assert judged["why"] == ["refused: needs 0.75 and 88 s, was given 1.0000 and 60 s"]


def test_where_nothing_can_be_learnt_shipping_is_the_mistake():
    assert [landed.right_verdict(one, "no") for one in ("ship", "reject", "cannot tell")] == [False, True, True]
    assert [landed.right_verdict(one, "yes") for one in ("ship", "reject", "cannot tell")] == [True, False, False]
    hopeless = landed.judge(ended(quality=0.5, decision="reject"), BEST | {"helped": "no", "quality": 0.54})
    assert hopeless["landed"]


def test_money_binds_in_half_of_the_projects():
    drawn = [one for one in landed.cells(quick=False) if "project" in one]
    assert len(drawn) >= 24
    assert sum(one["bound_by"] == "money" for one in drawn) == len(drawn) / 2
    assert all(one["other_s"] > one["limit_s"] for one in drawn)


def test_every_project_is_held_against_longer_runs_on_its_data_and_size():
    for quick in (True, False):
        drawn = landed.cells(quick)
        longer = {(one["data"], one["rows"]) for one in drawn if "project" not in one}
        assert longer == {(one["data"], one["rows"]) for one in drawn if "project" in one}


@pytest.mark.parametrize(
    ("tuned", "without", "helped"),
    [
        ("1" * 90 + "0" * 10, {"tfidf": "1" * 60 + "0" * 40, "untuned": "1" * 70 + "0" * 30}, "yes"),
        ("1" * 90 + "0" * 10, {"tfidf": "1" * 60 + "0" * 40, "untuned": "1" * 89 + "0" * 11}, "unclear"),
        ("1" * 70 + "0" * 30, {"tfidf": "1" * 60 + "0" * 40, "untuned": "1" * 90 + "0" * 10}, "no"),
        ("10" * 50, {"tfidf": "0" * 100, "untuned": "0" * 100}, "no"),  # no better than a guess
    ],
)
def test_fine_tuning_helped_where_it_beats_everything_that_can_be_had_without_it(tuned, without, helped):
    targets = ["a", "b"] * 50
    found = landed.helped_by([{"right": tuned, "without": without}] * 2, targets)
    assert found["helped"] == helped
    assert found["points_over"]["tfidf"][1] == pytest.approx(tuned.count("1") - without["tfidf"].count("1"))


def test_what_others_compute_meanwhile_is_told(tmp_path):
    with outside.core_eaten_after(0.0):
        seen = outside.watch(["sleep", "2"], tmp_path)
    assert seen.others_cores > 0.2
