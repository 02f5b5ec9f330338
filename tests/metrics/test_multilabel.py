from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from thriftune.metrics import multilabel
from thriftune.metrics.paired import outcome, paired_bootstrap
from thriftune.metrics.statistics import draws

LABELS = ["news", "movie", "strong", "é 2"]
sets = st.sets(st.sampled_from(LABELS)).map(sorted)
pairs = st.lists(st.tuples(sets, sets), min_size=1, max_size=40)
Rows = list[tuple[list[str], list[str]]]


def tables(rows: Rows) -> list[NDArray[np.int64]]:
    """(rows, labels) of 0 and 1: the right labels, and the predicted ones."""
    targets, outputs = [t for t, _ in rows], [o for _, o in rows]
    binarizer = MultiLabelBinarizer(classes=multilabel.label_names(targets, outputs))
    return [binarizer.fit_transform(side) for side in (targets, outputs)]


def binary(wanted: NDArray[np.int64], given_: NDArray[np.int64]) -> list[float]:
    """Precision, recall and F1 of one column (scikit-learn takes a table of one column for two classes)."""
    return list(precision_recall_fscore_support(wanted, given_, average="binary", zero_division=0)[:3])


def by_scikit_learn(rows: Rows) -> dict[str, float]:
    wanted, given_ = tables(rows)
    found = {"exact_match": float(np.mean([t == o for t, o in rows]))}
    labels, names = wanted.shape[1], ("precision", "recall", "f1")
    macro, micro = np.zeros(3), np.zeros(3)
    if labels:
        macro = np.mean([binary(wanted[:, i], given_[:, i]) for i in range(labels)], axis=0)
        micro = binary(wanted.ravel(), given_.ravel())
    if labels > 1:
        parts = precision_recall_fscore_support(wanted, given_, average="macro", zero_division=0)[:3]
        assert [*macro, found["exact_match"]] == pytest.approx([*parts, accuracy_score(wanted, given_)])
    found |= {f"{name}_macro": value for name, value in zip(names, macro, strict=True)}
    return found | {f"{name}_micro": value for name, value in zip(names, micro, strict=True)}


@given(pairs)
@settings(max_examples=100, deadline=None)
def test_metrics_equal_scikit_learn(rows: Rows) -> None:
    found = multilabel.scores([t for t, _ in rows], [o for _, o in rows])
    assert found == pytest.approx(by_scikit_learn(rows), abs=1e-12)


@given(pairs, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_weighting_equals_the_metrics_of_repeated_rows(rows: Rows, seed: int) -> None:
    statistics = multilabel.set_statistics([t for t, _ in rows], [o for _, o in rows])
    row_of_kind = dict(zip(statistics.kinds, rows, strict=True))
    weights = next(iter(draws(statistics.counts(), 3, seed)))
    measured = statistics.measure(weights)
    for sample, weight in enumerate(weights):
        repeated = [row_of_kind[kind] for kind, times in enumerate(weight) for _ in range(int(times))]
        expected = by_scikit_learn(repeated)
        assert {name: values[sample] for name, values in measured.items()} == pytest.approx(expected, abs=1e-12)


@given(pairs.filter(lambda rows: any(t or o for t, o in rows)))
@settings(max_examples=50, deadline=None)
def test_metrics_by_label_equal_scikit_learn(rows: Rows) -> None:
    targets, outputs = [t for t, _ in rows], [o for _, o in rows]
    found = multilabel.label_statistics(targets, outputs).arrays()
    wanted, given_ = tables(rows)
    expected = np.array([binary(wanted[:, i], given_[:, i]) for i in range(wanted.shape[1])])
    for place, name in enumerate(("precision", "recall", "f1")):
        np.testing.assert_allclose(found[name], expected[:, place], atol=1e-12)


def test_a_better_predictor_of_label_sets_is_found_better() -> None:
    drawn = np.random.default_rng(0)
    targets = [sorted(drawn.choice(LABELS, drawn.integers(0, 4), replace=False)) for _ in range(200)]
    good = [labels if drawn.random() < 0.8 else [] for labels in targets]
    poor = [labels if drawn.random() < 0.4 else [] for labels in targets]
    stacked = multilabel.set_statistics(targets * 2, good + poor)
    compared = paired_bootstrap(stacked, 1_000)
    assert outcome(compared["f1_macro"]) == "better"
    assert outcome(paired_bootstrap(multilabel.set_statistics(targets * 2, poor + good), 1_000)["f1_micro"]) != "better"
