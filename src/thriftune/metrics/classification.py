"""Accuracy, precision, recall, F1, calibration error and area under the curve of single-label classifiers.

Conventions, all scikit-learn's defaults: the classes are those that occur in the reference or among the outputs (so
a label that a predictor made up costs it macro F1); a ratio with nothing in its denominator is 0; the micro
averages, one label a row, equal accuracy. A bootstrap resample has its own classes by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftune.metrics.counts import by_class, macro, ratio
from thriftune.metrics.statistics import Statistics, Weights

BINS = 15  # of the calibration error, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


def scores(targets: Sequence[str], outputs: Sequence[str]) -> dict[str, float]:
    """Every metric that needs labels only.

    Args:
        targets: (rows,) the right labels.
        outputs: (rows,) the predicted ones.

    Returns:
        accuracy, and precision, recall and f1 as `_macro` and `_micro`, each 0…1.

    >>> scores(["a", "a", "b"], ["a", "b", "b"])["accuracy"]
    0.6666666666666666
    """
    return label_statistics(targets, outputs).values()


def class_names(targets: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """The classes that occur in the reference or among the outputs, sorted."""
    return sorted(set(targets) | set(outputs))


def label_statistics(targets: Sequence[str], outputs: Sequence[str]) -> Statistics:
    """The overall metrics of labels, ready to be resampled; a kind is a pair of right and predicted class."""
    kinds, parts = _pairs(targets, outputs)

    def measure(weights: Weights) -> dict[str, NDArray[np.float64]]:
        hits, wanted, given = (weights @ part for part in parts)
        rows = weights.sum(axis=1)
        accuracy = ratio(hits.sum(axis=1), rows)
        return {
            "accuracy": accuracy,
            **macro(hits, wanted, given),
            "precision_micro": accuracy,
            "recall_micro": accuracy,
            "f1_micro": accuracy,
        }

    return Statistics(kinds, parts[0].shape[0], measure)


def class_statistics(targets: Sequence[str], outputs: Sequence[str]) -> Statistics:
    """`precision`, `recall` and `f1`, each (samples, classes) in the order of `class_names`."""
    kinds, parts = _pairs(targets, outputs)

    def measure(weights: Weights) -> dict[str, NDArray[np.float64]]:
        precision, recall, f1 = by_class(*(weights @ part for part in parts))
        return {"precision": precision, "recall": recall, "f1": f1}

    return Statistics(kinds, parts[0].shape[0], measure)


def score_statistics(
    targets: Sequence[str], outputs: Sequence[str], probabilities: Sequence[Mapping[str, float]]
) -> Statistics:
    """`auroc` and `ece`, ready to be resampled.

    `auroc` is one class against the rest, averaged over the classes of the reference that have both rows of their
    own and others, among the rows for which the class was possible (for two classes with probabilities that sum to 1
    that is the usual binary value); where there is none, it is not a number. `ece` is the gap between the probability
    of the predicted label and how often it is right, averaged over 15 bins of equal width, weighted by rows.

    Args:
        targets: (rows,) the right labels.
        outputs: (rows,) the predicted ones.
        probabilities: (rows,) probability by label; a label that is absent has probability 0.
    """
    classes = sorted(set(targets))
    wanted = np.array(targets, dtype=object)
    belongs = np.stack([wanted == label for label in classes])
    ranked = [_ranking(label, probabilities) for label in classes]
    confidence = np.array([row.get(label, 0.0) for row, label in zip(probabilities, outputs, strict=True)])
    correct = (wanted == np.array(outputs, dtype=object)).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    gaps = np.zeros((len(targets), BINS))
    gaps[np.arange(len(targets)), bins] = correct - confidence

    def measure(weights: Weights) -> dict[str, NDArray[np.float64]]:
        areas = np.stack([rank.areas(weights, own) for rank, own in zip(ranked, belongs, strict=True)])
        defined = ~np.isnan(areas)
        area = np.where(defined, areas, 0).sum(axis=0) / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)
        return {"auroc": area, "ece": ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))}

    rows = len(targets)
    return Statistics(np.arange(rows), rows, measure, work=rows * len(classes))


class _Ranking:
    """Rows sorted by one class's score, to compute the area under its curve for many weightings.

    Args:
        values: (rows,) scores.
        among: the rows that count.
    """

    def __init__(self, values: NDArray[np.float64], among: NDArray[np.int64]) -> None:
        self._order = among[np.argsort(values[among], kind="stable")]
        self._starts = np.flatnonzero(np.diff(values[self._order], prepend=-np.inf))

    def areas(self, weights: Weights, own: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(samples,) the chance that an own row ranks above another one, ties counting half (Mann and Whitney)."""
        ordered = weights[:, self._order]
        mine = np.where(own[self._order], ordered, 0.0)
        by_value = np.add.reduceat(mine, self._starts, axis=1)
        others = np.add.reduceat(ordered - mine, self._starts, axis=1)
        below = np.cumsum(others, axis=1) - others
        pairs = by_value.sum(axis=1) * others.sum(axis=1)
        wins = (by_value * (below + others / 2)).sum(axis=1)
        return np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1), np.nan)


def _ranking(label: str, probabilities: Sequence[Mapping[str, float]]) -> _Ranking:
    # With a head for each part of the data, rows of other parts cannot have the label: to rank them below is no feat.
    possible = np.flatnonzero([label in row for row in probabilities])
    values = np.array([row.get(label, 0.0) for row in probabilities])
    return _Ranking(values, possible if len(possible) else np.arange(len(values)))


def _pairs(targets: Sequence[str], outputs: Sequence[str]) -> tuple[NDArray[np.int64], tuple[Any, Any, Any]]:
    # Each row's kind, and for each kind (kinds × classes, sparse) its hit, its right class and its predicted class.
    from scipy.sparse import csr_array

    classes = class_names(targets, outputs)
    index = {label: i for i, label in enumerate(classes)}
    codes = np.array(
        [index[right] * len(classes) + index[given] for right, given in zip(targets, outputs, strict=True)],
        dtype=np.int64,
    )
    found, kinds = np.unique(codes, return_inverse=True)
    right, given = np.divmod(found, max(1, len(classes)))
    rows, shape = np.arange(len(found)), (len(found), len(classes))
    ones = np.ones(len(found))
    hits = csr_array(((right == given).astype(np.float64), (rows, right)), shape=shape)
    return kinds, (hits, csr_array((ones, (rows, right)), shape=shape), csr_array((ones, (rows, given)), shape=shape))
