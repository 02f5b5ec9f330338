"""Which metrics a task is measured by, and how two predictors are held against each other on one of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thriftune.errors import BadInput
from thriftune.metrics import classification, multilabel, preference, tagging, text
from thriftune.metrics.intervals import Interval, bootstrap, bootstrap_arrays
from thriftune.metrics.paired import PairedResult, mcnemar, paired_bootstrap
from thriftune.metrics.statistics import Statistics
from thriftune.tasks.kinds import kind_of
from thriftune.tasks.targets import read_list

if TYPE_CHECKING:
    import polars as pl

Build = Callable[["pl.DataFrame"], Statistics | None]
"""Statistics of a frame of predictions; None where the predictor did not give what they need."""


@dataclass(frozen=True)
class Suite:
    """A task's metrics.

    Args:
        families: metrics that are computed together, by their names, and how.
        shares: metrics that are a share of right rows, and when a row is right: (target, output).
        by_class: precision, recall and f1 by class, and the classes with the rows of each, in the same order.
    """

    families: Mapping[tuple[str, ...], Build]
    shares: Mapping[str, Callable[[str, str], bool]]
    by_class: Callable[[pl.DataFrame], tuple[Statistics, dict[str, int]]] | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all its metrics."""
        return tuple(name for names in self.families for name in names)


def suite_for(task: str) -> Suite:
    """The metrics of a task by its name.

    Raises:
        BadInput: no such task.
    """
    if task not in SUITES:
        raise BadInput(
            "no such task",
            where="objective.task",
            found=task,
            expected=f"one of {', '.join(SUITES)}",
            way_out="use one",
        )
    return SUITES[task]


def primary_metric(task: str, wanted: str | None) -> str:
    """The metric that the verdict looks at: the one the project names, or the task's own.

    Raises:
        BadInput: the task has no such metric.
    """
    suite = suite_for(task)
    if wanted is None:
        return kind_of(task).metrics[0]
    if wanted not in suite.metrics:
        raise BadInput(
            f"{task} is not measured by this metric",
            where="objective.target.metric",
            found=wanted,
            expected=f"one of {', '.join(suite.metrics)}",
            way_out=f"name one of these, or leave the metric out for {kind_of(task).metrics[0]}",
        )
    return wanted


def measure(
    predictions: pl.DataFrame, task: str, resamples: int, confidence: float, seed: int
) -> tuple[dict[str, Interval], dict[str, dict[str, float]]]:
    """Every metric of a frame of predictions with its interval, and for classifiers the figures of each class.

    A metric that these rows do not define (the area under a curve of one class) is left out.
    """
    suite = suite_for(task)
    found: dict[str, Interval] = {}
    for build in suite.families.values():
        statistics = build(predictions)
        if statistics is not None:
            found |= bootstrap(statistics, resamples, confidence, seed)
    found = {name: interval for name, interval in found.items() if math.isfinite(interval.value)}
    if suite.by_class is None:
        return found, {}
    statistics, classes = suite.by_class(predictions)
    figures = bootstrap_arrays(statistics, resamples, confidence, seed)
    by_class = {
        label: {
            "precision": float(figures["precision"][0, i]),
            "recall": float(figures["recall"][0, i]),
            "f1": float(figures["f1"][0, i]),
            "f1_low": float(figures["f1"][1, i]),
            "f1_high": float(figures["f1"][2, i]),
            "rows": rows,
        }
        for i, (label, rows) in enumerate(classes.items())
    }
    return found, by_class


def pair(
    tuned: pl.DataFrame, baseline: pl.DataFrame, task: str, metric: str, resamples: int, confidence: float, seed: int
) -> PairedResult | None:
    """The gain of one predictor over another on a metric, from their predictions for the same rows in one order.

    Returns:
        None where one of them does not have the metric (a retrieval baseline has no perplexity).
    """
    suite = suite_for(task)
    if metric in suite.shares:
        right = suite.shares[metric]
        ours, theirs = (
            [right(target, output) for target, output in zip(frame["target"], frame["output"], strict=True)]
            for frame in (tuned, baseline)
        )
        return mcnemar(ours, theirs, confidence)
    build = next(build for names, build in suite.families.items() if metric in names)
    if metric == "perplexity" and not tuned["tokens"].equals(baseline["tokens"]):
        return None  # other tokens: a mean over them is another quantity
    stacked = build(tuned.vstack(baseline))
    return None if stacked is None else paired_bootstrap(stacked, resamples, confidence, seed).get(metric)


def _labels(predictions: pl.DataFrame) -> Statistics:
    return classification.label_statistics(predictions["target"].to_list(), predictions["output"].to_list())


def _classes(predictions: pl.DataFrame) -> tuple[Statistics, dict[str, int]]:
    targets, outputs = predictions["target"].to_list(), predictions["output"].to_list()
    rows = Counter(targets)
    classes = {label: rows[label] for label in classification.class_names(targets, outputs)}
    return classification.class_statistics(targets, outputs), classes


def _lists(predictions: pl.DataFrame) -> tuple[list[list[str]], list[list[str]]]:
    targets, outputs = ([read_list(text) for text in predictions[column]] for column in ("target", "output"))
    return targets, outputs


def _label_sets(predictions: pl.DataFrame) -> Statistics:
    return multilabel.set_statistics(*_lists(predictions))


def _each_label(predictions: pl.DataFrame) -> tuple[Statistics, dict[str, int]]:
    targets, outputs = _lists(predictions)
    rows = Counter(label for target in targets for label in target)
    classes = {label: rows[label] for label in multilabel.label_names(targets, outputs)}
    return multilabel.label_statistics(targets, outputs), classes


def _tags(predictions: pl.DataFrame) -> Statistics:
    return tagging.tag_statistics(*_lists(predictions))


def _each_kind(predictions: pl.DataFrame) -> tuple[Statistics, dict[str, int]]:
    targets, outputs = _lists(predictions)
    spans = Counter(kind for target in targets for kind, _, _ in tagging.spans(target))
    classes = {kind: spans[kind] for kind in tagging.kinds(targets, outputs)}
    return tagging.kind_statistics(targets, outputs), classes


def _probabilities(predictions: pl.DataFrame) -> Statistics | None:
    rows: Sequence[list[dict[str, float | str]] | None] = predictions["probabilities"].to_list()
    if any(not row for row in rows):
        return None
    by_label = [{str(p["label"]): float(p["probability"]) for p in row or ()} for row in rows]
    return classification.score_statistics(predictions["target"].to_list(), predictions["output"].to_list(), by_label)


def _answers(predictions: pl.DataFrame) -> Statistics:
    return text.answer_statistics(predictions["target"].to_list(), predictions["output"].to_list())


def _likelihood(predictions: pl.DataFrame) -> Statistics | None:
    if predictions["loss"].null_count() or not predictions["tokens"].sum():
        return None
    return text.likelihood_statistics(predictions["loss"].to_numpy(), predictions["tokens"].to_numpy())


def _bits(predictions: pl.DataFrame) -> Statistics | None:
    if predictions["loss"].null_count() or not predictions["tokens"].sum():
        return None
    losses, tokens, characters = (predictions[name].to_numpy() for name in ("loss", "tokens", "characters"))
    return text.text_statistics(losses, tokens, characters)


def _preferences(predictions: pl.DataFrame) -> Statistics:
    preferred = (predictions["output"] == predictions["target"]).to_numpy().astype(np.float64)
    return preference.preference_statistics(preferred)


def _margins(predictions: pl.DataFrame) -> Statistics | None:
    if predictions["margin"].null_count():
        return None
    return preference.margin_statistics(predictions["margin"].to_numpy())


def _equal(target: str, output: str) -> bool:
    return target == output


def _equal_answer(target: str, output: str) -> bool:
    return text.normalise(target) == text.normalise(output)


LABEL_METRICS = (
    "f1_macro",
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_micro",
    "precision_micro",
    "recall_micro",
)
SET_METRICS = (
    "f1_macro",
    "f1_micro",
    "exact_match",
    "precision_macro",
    "recall_macro",
    "precision_micro",
    "recall_micro",
)
TAG_METRICS = (
    "f1_span",
    "precision_span",
    "recall_span",
    "accuracy",
    "f1_macro",
    "precision_macro",
    "recall_macro",
    "exact_match",
)
ANSWER_METRICS = ("rougeL", "rouge1", "rouge2", "exact_match", "bleu", "chrf", "squad_f1", "squad_exact")

SUITES = {
    "classify": Suite(
        families={LABEL_METRICS: _labels, ("auroc", "ece"): _probabilities},
        shares=dict.fromkeys(("accuracy", "f1_micro", "precision_micro", "recall_micro"), _equal),
        by_class=_classes,
    ),
    "multilabel": Suite(families={SET_METRICS: _label_sets}, shares={"exact_match": _equal}, by_class=_each_label),
    "tag": Suite(families={TAG_METRICS: _tags}, shares={"exact_match": _equal}, by_class=_each_kind),
    "chat": Suite(
        families={
            ANSWER_METRICS: _answers,
            ("perplexity",): _likelihood,
        },
        shares={"exact_match": _equal_answer, "squad_exact": text.squad_equal},
    ),
    "prefer": Suite(
        families={("preference_accuracy",): _preferences, ("margin",): _margins},
        shares={"preference_accuracy": _equal},
    ),
    "pretrain": Suite(families={("perplexity", "bits_per_character"): _bits}, shares={}),
}
