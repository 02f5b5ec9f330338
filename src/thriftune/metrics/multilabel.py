"""Precision, recall and F1 of label sets, macro and micro, and how many sets are right to the last label.

The labels are those that occur in the reference or among the outputs; a bootstrap resample has its own by the same
rule. `exact_match` is scikit-learn's accuracy of a multi-label classifier (subset accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thriftune.metrics.counts import by_class, macro, micro, ratio
from thriftune.metrics.statistics import Statistics, Weights, summed


def scores(targets: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every metric of label sets.

    Args:
        targets: (rows,) the right labels of each row.
        outputs: (rows,) the predicted ones.

    Returns:
        exact_match, and precision, recall and f1 as `_macro` and `_micro`, each 0…1.

    >>> scores([["a"], ["a", "b"], []], [["a"], ["a"], []])["exact_match"]
    0.6666666666666666
    """
    return set_statistics(targets, outputs).values()


def label_names(targets: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]) -> list[str]:
    """The labels that occur in the reference or among the outputs, sorted."""
    return sorted({label for row in (*targets, *outputs) for label in row})


def set_statistics(targets: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]) -> Statistics:
    """The overall metrics of label sets, ready to be resampled."""
    wanted, given = _tables(targets, outputs)
    exact = (wanted == given).all(axis=1)
    count = wanted.shape[1]

    def measure(sums: Weights) -> dict[str, NDArray[np.float64]]:
        parts = _parts(sums, count)
        return {"exact_match": ratio(sums[:, -2], sums[:, -1]), **macro(*parts), **micro(*parts)}

    return summed(np.column_stack([wanted * given, wanted, given, exact, np.ones(len(exact))]), measure)


def label_statistics(targets: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]) -> Statistics:
    """`precision`, `recall` and `f1`, each (samples, labels) in the order of `label_names`."""
    wanted, given = _tables(targets, outputs)
    count = wanted.shape[1]

    def measure(sums: Weights) -> dict[str, NDArray[np.float64]]:
        return dict(zip(("precision", "recall", "f1"), by_class(*_parts(sums, count)), strict=True))

    return summed(np.column_stack([wanted * given, wanted, given]), measure)


def _tables(
    targets: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # (rows, labels) of 0 and 1: the right labels, and the predicted ones.
    index = {label: column for column, label in enumerate(label_names(targets, outputs))}
    tables = []
    for rows in (targets, outputs):
        table = np.zeros((len(rows), len(index)))
        for row, labels in zip(table, rows, strict=True):
            row[[index[label] for label in labels]] = 1
        tables.append(table)
    return tables[0], tables[1]


def _parts(sums: Weights, count: int) -> tuple[Weights, Weights, Weights]:
    return sums[:, :count], sums[:, count : 2 * count], sums[:, 2 * count : 3 * count]
