from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from thriftune.evaluate.options import EvaluateOptions, Target
from thriftune.evaluate.types import Comparison, Latency, Scores
from thriftune.evaluate.verdict import verdict
from thriftune.metrics.intervals import Interval
from thriftune.metrics.paired import Outcome

OPTIONS = EvaluateOptions()
TUNED = Scores(
    "tuned",
    "classify",
    "test",
    500,
    {"f1_macro": Interval(0.84, 0.81, 0.86), "ece": Interval(0.05, 0.03, 0.08)},
    {},
    {},
    1.0,
    1,
    "model a",
    pl.DataFrame(),
)


def against(baseline: str, outcome: Outcome, metric: str = "f1_macro") -> Comparison:
    gain = {"better": 0.05, "not better": -0.05, "cannot tell": 0.01}[outcome]
    return Comparison(baseline, metric, gain, gain - 0.03, gain + 0.03, 0.01, 0.975, outcome, 500, 60)


def decided(*outcomes: Outcome, target: Target | None = None, latency: Latency | None = None) -> str:
    comparisons = [against(f"baseline {i}", outcome) for i, outcome in enumerate(outcomes)]
    names = [comparison.baseline for comparison in comparisons]
    found = verdict(comparisons, TUNED, names, target or Target(), OPTIONS, latency)
    assert found.reasons
    return found.decision


def test_better_than_every_baseline_ships() -> None:
    assert decided("better") == "ship"
    assert decided("better", "better", "better") == "ship"


def test_not_better_than_one_baseline_is_rejected() -> None:
    assert decided("better", "not better") == "reject"
    assert decided("cannot tell", "not better") == "reject"


def test_too_little_evidence_is_said() -> None:
    assert decided("better", "cannot tell") == "cannot tell"
    found = verdict([against("tfidf", "cannot tell")], TUNED, ["tfidf"], Target(), OPTIONS)
    assert "about 4,500 test rows would tell" in found.reasons[0]


@pytest.mark.parametrize(
    ("target", "decision"),
    [
        (Target(at_least=0.80), "ship"),
        (Target(at_least=0.83), "ship"),
        (Target(at_least=0.85), "hold"),
        (Target(at_least=0.87), "reject"),
        (Target(metric="f1_macro", at_least=0.84), "ship"),
    ],
)
def test_the_target_decides_with_its_interval(target: Target, decision: str) -> None:
    assert decided("better", target=target) == decision


def test_a_value_that_meets_the_target_in_doubt_says_so() -> None:
    found = verdict([against("tfidf", "better")], TUNED, ["tfidf"], Target(at_least=0.83), OPTIONS)
    assert "reaches beyond" in found.reasons[-1]
    found = verdict([against("tfidf", "better")], TUNED, ["tfidf"], Target(at_least=0.80), OPTIONS)
    assert "reaches beyond" not in found.reasons[-1]


def test_metrics_where_lower_is_better_have_an_upper_target() -> None:
    def on_ece(at_most: float) -> str:
        target = Target(metric="ece", at_most=at_most)
        return verdict([against("tfidf", "better", "ece")], TUNED, ["tfidf"], target, OPTIONS).decision

    assert [on_ece(limit) for limit in (0.1, 0.05, 0.04, 0.02)] == ["ship", "ship", "hold", "reject"]


def test_a_target_that_was_not_measured_holds() -> None:
    target = Target(latency_p95_ms=40)
    assert decided("better", target=target) == "hold"
    assert decided("better", target=target, latency=Latency(Interval(30, 25, 38), 100)) == "ship"
    assert decided("better", target=target, latency=Latency(Interval(45, 38, 60), 100)) == "hold"
    assert decided("better", target=target, latency=Latency(Interval(90, 80, 99), 100)) == "reject"


def test_missing_evidence_never_ships() -> None:
    better = [against("tfidf", "better")]

    def decision(tuned: Scores | None, comparisons: list[Comparison], baselines: list[str]) -> str:
        found = verdict(comparisons, tuned, baselines, Target(), OPTIONS)
        assert len(found.reasons) == 1
        return found.decision

    assert decision(None, better, ["tfidf"]) == "cannot tell"
    assert decision(TUNED, [], []) == "cannot tell"
    assert decision(TUNED, better, ["tfidf", "untuned"]) == "cannot tell"
    assert decision(TUNED, [against("tfidf", "better", "accuracy")], ["tfidf"]) == "cannot tell"
    assert decision(replace(TUNED, split="validation"), better, ["tfidf"]) == "cannot tell"
    assert decision(replace(TUNED, look=0), better, ["tfidf"]) == "cannot tell"
    assert decision(replace(TUNED, look=21), better, ["tfidf"]) == "cannot tell"
