from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from thriftune.metrics import classification
from thriftune.metrics.statistics import draws

LABELS = ["neg", "pos", "mixed", "", "é 2"]
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60)


def by_scikit_learn(targets: list[str], outputs: list[str]) -> dict[str, float]:
    found = {"accuracy": accuracy_score(targets, outputs)}
    for average in ("macro", "micro"):
        parts = precision_recall_fscore_support(targets, outputs, average=average, zero_division=0)
        found |= {f"{name}_{average}": value for name, value in zip(("precision", "recall", "f1"), parts, strict=False)}
    return found


@given(pairs)
@settings(max_examples=100, deadline=None)
def test_label_metrics_equal_scikit_learn(rows: list[tuple[str, str]]) -> None:
    targets, outputs = [t for t, _ in rows], [o for _, o in rows]
    assert classification.scores(targets, outputs) == pytest.approx(by_scikit_learn(targets, outputs), abs=1e-12)


@given(pairs, st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_weighting_equals_the_metrics_of_repeated_rows(rows: list[tuple[str, str]], seed: int) -> None:
    statistics = classification.label_statistics(*map(list, zip(*rows, strict=True)))
    weights = next(iter(draws(statistics.counts(), 3, seed)))
    row_of_kind = dict(zip(statistics.kinds, rows, strict=True))
    measured = statistics.measure(weights)
    for sample, weight in enumerate(weights):
        repeated = [row_of_kind[kind] for kind, times in enumerate(weight) for _ in range(int(times))]
        expected = by_scikit_learn([t for t, _ in repeated], [o for _, o in repeated])
        assert {name: values[sample] for name, values in measured.items()} == pytest.approx(expected, abs=1e-12)


@given(pairs)
@settings(max_examples=50, deadline=None)
def test_metrics_by_class_equal_scikit_learn(rows: list[tuple[str, str]]) -> None:
    targets, outputs = [t for t, _ in rows], [o for _, o in rows]
    found = classification.class_statistics(targets, outputs).arrays()
    expected = precision_recall_fscore_support(targets, outputs, zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        np.testing.assert_allclose(found[name], values, atol=1e-12)


def random_probabilities(rows: int, labels: list[str], seed: int) -> NDArray[np.float64]:
    # Rounded, so that there are ties.
    table = np.random.default_rng(seed).dirichlet(np.ones(len(labels)), size=rows).round(2) + 1e-9
    return np.asarray(table / table.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "d"]])
def test_area_under_the_curve_equals_scikit_learn_on_resamples(labels: list[str]) -> None:
    rng = np.random.default_rng(1)
    table = random_probabilities(80, labels, 2)
    targets = [labels[i] for i in rng.integers(len(labels), size=80)]
    outputs = [labels[i] for i in table.argmax(axis=1)]
    statistics = classification.score_statistics(
        targets, outputs, [dict(zip(labels, row, strict=True)) for row in table]
    )
    weights = next(iter(draws(statistics.counts(), 4, 3)))
    for weight, area in zip(weights, statistics.measure(weights)["auroc"], strict=True):
        rows = np.repeat(np.arange(80), weight.astype(int))
        scores = table[rows] if len(labels) > 2 else table[rows, 1]
        expected = roc_auc_score([targets[i] for i in rows], scores, multi_class="ovr", average="macro")
        assert area == pytest.approx(expected, abs=1e-9)


def test_area_under_the_curve_is_no_number_with_one_class() -> None:
    statistics = classification.score_statistics(["a", "a"], ["a", "a"], [{"a": 0.9}, {"a": 0.8}])
    assert np.isnan(statistics.values()["auroc"])


def test_calibration_error_equals_its_definition() -> None:
    table = random_probabilities(200, ["a", "b"], 5)
    targets = [("a", "b")[i] for i in np.random.default_rng(6).integers(2, size=200)]
    outputs = [("a", "b")[i] for i in table.argmax(axis=1)]
    confidence = table.max(axis=1)
    correct = np.array([t == o for t, o in zip(targets, outputs, strict=True)])
    expected = 0.0
    for upper in range(1, 16):
        inside = (confidence > (upper - 1) / 15) & (confidence <= upper / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    rows = [{"a": a, "b": b} for a, b in table]
    assert classification.score_statistics(targets, outputs, rows).values()["ece"] == pytest.approx(expected)
