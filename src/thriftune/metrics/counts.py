"""Precision, recall and F1 from counts: what three families of metrics share.

Conventions, all scikit-learn's defaults: a ratio with nothing in its denominator is 0, and a macro average is over the
classes that occur in the reference or among the outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Counts:
    """The quotient, 0 where the denominator is."""
    return np.asarray(np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) > 0))


def by_class(hits: Counts, wanted: Counts, given: Counts) -> tuple[Counts, Counts, Counts]:
    """Precision, recall and F1, each of the shape of its arguments: what was right, what should be, what was said."""
    return ratio(hits, given), ratio(hits, wanted), ratio(2 * hits, wanted + given)


def macro(hits: Counts, wanted: Counts, given: Counts) -> dict[str, Counts]:
    """`precision_macro`, `recall_macro` and `f1_macro`, each (samples,), from counts of (samples, classes)."""
    classes = (wanted + given > 0).sum(axis=1)
    names = ("precision_macro", "recall_macro", "f1_macro")
    return {
        name: ratio(figures.sum(axis=1), classes)
        for name, figures in zip(names, by_class(hits, wanted, given), strict=True)
    }


def micro(hits: Counts, wanted: Counts, given: Counts) -> dict[str, Counts]:
    """`precision_micro`, `recall_micro` and `f1_micro`, each (samples,), from counts of (samples, classes)."""
    names = ("precision_micro", "recall_micro", "f1_micro")
    sums = (counts.sum(axis=1) for counts in (hits, wanted, given))
    return dict(zip(names, by_class(*sums), strict=True))
