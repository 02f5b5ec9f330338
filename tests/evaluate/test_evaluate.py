from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from real_context import open_context
from thriftune.context import Context
from thriftune.errors import BadInput, OutOfBudget
from thriftune.evaluate.evaluate import compare, conclude, score
from thriftune.evaluate.latency import measure_latency
from thriftune.evaluate.options import EvaluateOptions, Target
from thriftune.evaluate.suites import SUITES, primary_metric
from thriftune.evaluate.types import Evaluation, Scores
from thriftune.metrics import classification, text
from thriftune.tasks.base import Prediction, Request

OPTIONS = EvaluateOptions(comparison_resamples=1_000, batch_rows=40)


@dataclass(frozen=True)
class Keyword:
    """Says `pos` for texts with one of its words; sure of it."""

    words: tuple[str, ...]
    name: str = "keyword"

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        said = [any(word in str(request).split() for word in self.words) for request in requests]
        return [
            Prediction("pos" if yes else "neg", {"pos": 0.8 if yes else 0.3, "neg": 0.2 if yes else 0.7})
            for yes in said
        ]


@dataclass(frozen=True)
class Speaker:
    """Says the same to everyone, and finds each character of an answer equally likely."""

    answer: str
    loss_a_character: float
    name: str = "speaker"

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        return [Prediction(self.answer, {}, len(self.answer)) for _ in requests]

    def answer_losses(
        self, requests: Sequence[Request], targets: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lengths = np.array([float(len(target)) for target in targets])
        return lengths * self.loss_a_character, lengths


@dataclass(frozen=True)
class Mute:
    """Answers, but knows no likelihoods."""

    answer: str
    name: str = "mute"

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        return [Prediction(self.answer) for _ in requests]


def reviews(rows: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    words = rng.choice(["good", "great", "bad", "dull"], size=rows)
    fillers = [" ".join(["film"] * int(n)) for n in rng.integers(1, 30, size=rows)]
    return pl.DataFrame(
        {
            "id": [f"{seed}-{i:05d}" for i in range(rows)],
            "text": [f"{filler} {word}" for filler, word in zip(fillers, words, strict=True)],
            "target": ["pos" if word in ("good", "great") else "neg" for word in words],
            "part": pl.Series([None] * rows, dtype=pl.String),
        }
    )


def support(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"{i:05d}" for i in range(rows)],
            "messages": [[{"role": "user", "content": f"help {i}"}] for i in range(rows)],
            "target": [f"press button {i % 7} and wait" for i in range(rows)],
            "part": pl.Series([None] * rows, dtype=pl.String),
        }
    )


def kinds(context: Context) -> list[str]:
    return [event.kind for event in context.events.read()]


def test_scores_are_the_metrics_of_the_answers_in_the_rows_order(context: Context) -> None:
    frame = reviews(100)
    predictor = Keyword(("good",))
    heard: list[tuple[int, int]] = []
    scores = score(predictor, frame, "validation", "classify", OPTIONS, context, progress=lambda *at: heard.append(at))
    outputs = [answer.output for answer in predictor.predict(frame["text"].to_list())]
    assert scores.predictions["output"].to_list() == outputs
    assert scores.predictions["id"].equals(frame["id"])
    expected = classification.scores(frame["target"].to_list(), outputs)
    assert {name: scores.metrics[name].value for name in expected} == pytest.approx(expected)
    assert all(i.low <= i.value <= i.high for i in scores.metrics.values())
    assert {"auroc", "ece"} < set(scores.metrics)
    assert scores.by_class["pos"]["recall"] < scores.by_class["neg"]["recall"] == 1
    assert scores.by_class["pos"]["rows"] + scores.by_class["neg"]["rows"] == 100
    assert heard == [(40, 100), (80, 100), (100, 100)]
    assert "evaluation.look" not in kinds(context)
    (told,) = context.events.read(kinds=["evaluation.scores"])
    assert told.data["predictor"] == "keyword" and told.data["rows"] == 100
    assert told.data["metrics"]["f1_macro"]["value"] == pytest.approx(expected["f1_macro"])


def test_everything_is_charged_to_evaluation_without_a_breach(context: Context) -> None:
    score(Keyword(("good",)), reviews(100), "validation", "classify", OPTIONS, context)
    charges = context.events.read(kinds=["charge"])
    assert [c.data["unit"] for c in charges] == ["evaluate keyword"] * 3 + ["measure keyword"]
    assert {c.data["phase"] for c in charges} == {"evaluation"}
    assert "breach" not in kinds(context)
    score(Keyword(("bad",), "other"), reviews(100), "validation", "classify", OPTIONS, context, upper_seconds=7)
    assert [c.data["unit"] for c in context.events.read(kinds=["charge"])][4:] == ["evaluate other"]


def test_without_the_money_it_does_not_begin(tmp_path: Path) -> None:
    with open_context(tmp_path, "evaluation", budget="20") as context:
        with pytest.raises(OutOfBudget):
            score(Keyword(("good",)), reviews(100), "test", "classify", OPTIONS, context, upper_seconds=1000)
        assert context.ledger.balance().reserved == Decimal(0)


def test_answers_that_take_longer_than_thought_end_before_the_deadline_does(context: Context) -> None:
    """The whole is one unit of a known bound; a machine that turned slow must not carry it beyond the limit."""
    asked: list[int] = []

    class Slow(Keyword):
        def predict(self, requests: Sequence[Request]) -> list[Prediction]:
            asked.append(len(requests))
            context.clock.sleep(0.3)
            return super().predict(requests)

    context.meter.deadline_at = context.clock.now() + 1.0
    with pytest.raises(OutOfBudget, match="deadline"):
        score(Slow(("good",)), reviews(400), "validation", "classify", OPTIONS, context, upper_seconds=0.2)
    assert 1 <= len(asked) < 4  # of ten batches
    assert context.ledger.balance().reserved == 0


def test_comparisons_that_take_longer_than_thought_end_before_the_deadline_does(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, *baselines = (
        score(Keyword((word,), word), reviews(60), "validation", "classify", OPTIONS, context)
        for word in ("good", "bad", "fine", "poor")
    )

    def slow(*asked: Any) -> object:
        context.clock.sleep(0.4)
        return compare(*asked)

    monkeypatch.setattr("thriftune.evaluate.evaluate.compare", slow)
    context.meter.deadline_at = context.clock.now() + 1.0
    with pytest.raises(OutOfBudget, match="deadline"):
        conclude(tuned, baselines, OPTIONS, context, upper_seconds=0.2)
    context.meter.deadline_at = None
    assert len(conclude(tuned, baselines, OPTIONS, context, upper_seconds=60).comparisons) >= 3


def test_no_rows_is_bad_input(context: Context) -> None:
    with pytest.raises(BadInput, match="no rows to evaluate on"):
        score(Keyword(("good",)), reviews(0), "test", "classify", OPTIONS, context)


def test_the_same_seed_gives_the_same_intervals(context: Context) -> None:
    first = score(Keyword(("good",)), reviews(100), "validation", "classify", OPTIONS, context)
    again = score(Keyword(("good",)), reviews(100), "validation", "classify", OPTIONS, context)
    assert first.metrics == again.metrics and first.by_class == again.by_class


def test_scores_are_read_back_as_they_were(context: Context, tmp_path: Path) -> None:
    for number, (predictor, frame, task) in enumerate(
        [(Keyword(("good",)), reviews(50), "classify"), (Speaker("press", 0.1), support(20), "chat")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        scores = score(predictor, frame, "validation", task, OPTIONS, context)  # type: ignore[arg-type]
        scores.save(folder)
        read = Scores.load(folder)
        assert read == scores
        assert read.predictions.equals(scores.predictions)


def test_chat_is_measured_on_rows_drawn_by_hash(context: Context) -> None:
    options = OPTIONS.model_copy(update={"generate_rows": 30})
    frame = support(80)
    ours = score(Speaker("press button 1 and wait", 0.5), frame, "validation", "chat", options, context)
    assert ours.rows == 30
    more = pl.concat([frame, frame.with_columns(pl.col("id") + "-new")])
    theirs = score(Mute("no"), more, "validation", "chat", options, context)
    assert 5 < len(set(ours.predictions["id"]) & set(theirs.predictions["id"])) < 25
    targets = ours.predictions["target"].to_list()
    expected = text.scores(targets, ["press button 1 and wait"] * 30)
    assert {name: ours.metrics[name].value for name in expected} == pytest.approx(expected)
    assert ours.metrics["perplexity"].value == pytest.approx(math.exp(0.5))
    assert "perplexity" not in theirs.metrics


def test_a_better_classifier_is_found_better_on_f1_and_by_mcnemar(context: Context) -> None:
    frame = reviews(300)
    good = score(Keyword(("good", "great"), "tuned"), frame, "test", "classify", OPTIONS, context, candidate="model a")
    half = score(Keyword(("good",)), frame, "test", "classify", OPTIONS, context)
    for metric in (None, "accuracy"):
        comparison = compare(good, half, OPTIONS, metric)
        assert comparison is not None
        assert comparison.outcome == "better"
        assert comparison.confidence == 0.975  # a first look may spend half of 5 %
        expected = good.metrics[comparison.metric].value - half.metrics[comparison.metric].value
        assert comparison.difference == pytest.approx(expected)
        assert comparison.rows == 300
    backwards = compare(half, good, OPTIONS)
    assert backwards is not None and backwards.outcome == "not better"
    same = compare(good, replace(good, predictor="twin"), OPTIONS)
    assert same is not None and (same.difference, same.outcome) == (0, "not better")


def test_other_rows_cannot_be_compared(context: Context) -> None:
    ours = score(Keyword(("good",)), reviews(50), "validation", "classify", OPTIONS, context)
    theirs = score(Keyword(("good",)), reviews(50, seed=1), "validation", "classify", OPTIONS, context)
    with pytest.raises(ValueError, match="same rows"):
        compare(ours, theirs, OPTIONS)


def test_the_order_of_rows_does_not_matter(context: Context) -> None:
    frame = reviews(120)
    ours = score(Keyword(("good", "great")), frame, "validation", "classify", OPTIONS, context)
    theirs = score(Keyword(("good",)), frame, "validation", "classify", OPTIONS, context)
    mixed = score(
        Keyword(("good",)), frame.sample(120, shuffle=True, seed=1), "validation", "classify", OPTIONS, context
    )
    assert compare(ours, theirs, OPTIONS) == compare(ours, mixed, OPTIONS)


def test_perplexity_is_compared_only_over_the_same_tokens(context: Context) -> None:
    frame = support(60)
    low, high = (
        score(Speaker("press", loss, name), frame, "validation", "chat", OPTIONS, context)
        for loss, name in ((0.5, "tuned"), (0.7, "untuned"))
    )
    mute = score(Mute("press"), frame, "validation", "chat", OPTIONS, context)
    comparison = compare(low, high, OPTIONS, "perplexity")
    assert comparison is not None
    assert comparison.outcome == "better"
    assert comparison.difference == pytest.approx(math.exp(0.7) - math.exp(0.5))
    assert compare(low, mute, OPTIONS, "perplexity") is None
    other = replace(high, predictions=high.predictions.with_columns(pl.col("tokens") * 2))
    assert compare(low, other, OPTIONS, "perplexity") is None


def test_the_stage_ends_with_a_verdict_that_is_kept(context: Context, tmp_path: Path) -> None:
    frame = reviews(300)
    baselines = [
        score(Keyword(words, name), frame, "test", "classify", OPTIONS, context)
        for name, words in (("majority", ()), ("tfidf", ("good",)))
    ]
    options = OPTIONS.model_copy(update={"latency_rows": 80})
    predictor = Keyword(("good", "great"), "tuned")
    tuned = score(predictor, frame, "test", "classify", options, context, candidate="model a")
    latency = measure_latency(predictor, frame, options, context)
    target = Target(at_least=0.9, latency_p95_ms=1000)
    evaluation = conclude(tuned, baselines, options, context, target=target, latency=latency)
    assert evaluation.verdict.decision == "ship", evaluation.verdict.reasons
    assert [(c.baseline, c.metric) for c in evaluation.comparisons] == [
        ("majority", "f1_macro"),
        ("tfidf", "f1_macro"),
        ("majority", "accuracy"),
        ("tfidf", "accuracy"),
    ]
    assert evaluation.latency is not None and 0 < evaluation.latency.p95_ms.value < 1000
    told = context.events.read(kinds=["verdict"])[-1]
    assert told.data == {"decision": "ship", "reasons": list(evaluation.verdict.reasons)}
    assert [e.data["outcome"] for e in context.events.read(kinds=["evaluation.comparison"])] == ["better"] * 4
    folder = tmp_path / "evaluation"
    folder.mkdir()
    evaluation.save(folder)
    read = Evaluation.load(folder)
    assert read == evaluation
    assert compare(read.tuned, read.baselines[1], OPTIONS) == evaluation.comparisons[1]


def test_a_test_split_that_was_looked_at_too_often_gives_no_verdict(context: Context) -> None:
    frame = reviews(300)
    options = OPTIONS.model_copy(update={"looks": 2})
    baseline = score(Keyword((), "majority"), frame, "test", "classify", options, context)
    decisions = []
    for candidate in ("a", "b", "c", "b"):
        tuned = score(
            Keyword(("good", "great"), "tuned"), frame, "test", "classify", options, context, candidate=candidate
        )
        decisions.append(conclude(tuned, [baseline], options, context).verdict)
    assert [verdict.decision for verdict in decisions] == ["ship", "ship", "cannot tell", "ship"]
    assert "fresh" in decisions[2].reasons[0]


def test_twenty_equal_models_on_one_test_split_are_not_shipped_by_luck(context: Context) -> None:
    # Twenty "tuned" models that are each as good as the baseline, in 12 projects: at most 5 % should ship one.
    options = OPTIONS.model_copy(update={"comparison_resamples": 2_000})
    shipped = 0
    frame = reviews(200).select("id", "target")
    for project in range(12):
        rng = np.random.default_rng(project)
        answered = [_answers(frame, rng) for _ in range(21)]
        baseline = _scores("tfidf", answered[0], look=0)
        for look, predictions in enumerate(answered[1:], start=1):
            comparison = compare(_scores("tuned", predictions, look), baseline, options, seed=project)
            if comparison is not None and comparison.outcome == "better":
                shipped += 1
                break
    assert shipped <= 3


def _answers(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    right = rng.random(len(frame)) < 0.75
    other = {"pos": "neg", "neg": "pos"}
    outputs = [t if ok else other[t] for t, ok in zip(frame["target"], right, strict=True)]
    return frame.with_columns(output=pl.Series(outputs))


def _scores(name: str, predictions: pl.DataFrame, look: int) -> Scores:
    return Scores(name, "classify", "test", len(predictions), {}, {}, {}, 0.0, look, "x" if look else "", predictions)


def test_a_metric_of_another_task_is_bad_input() -> None:
    assert primary_metric("classify", None) == "f1_macro"
    assert primary_metric("chat", "bleu") == "bleu"
    with pytest.raises(BadInput, match="not measured by this metric"):
        primary_metric("chat", "f1_macro")
    with pytest.raises(BadInput, match="no such task"):
        primary_metric("sing", None)
    assert set(SUITES["chat"].metrics) >= {"perplexity", "rougeL"}
