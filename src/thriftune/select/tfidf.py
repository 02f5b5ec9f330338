"""The cheap classifier that a tuned model has to beat: logistic regression on TF-IDF of words and pairs of words.

It is meant to be strong, since the verdict is measured against it: sublinear term frequencies, punctuation kept, and
the regularisation chosen by the cross-entropy on the validation split, which is less noisy than F1 on few rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from thriftune.errors import BadInput
from thriftune.select.vectors import TfidfVectors
from thriftune.tasks.base import Prediction, Request

LABELS_FILE = "labels.json"
WEIGHTS_FILE = "weights.safetensors"
MAX_ITERATIONS = 300
UNKNOWN = 1e-9  # probability of a validation label that the training rows do not have

Guard = Callable[[str], AbstractContextManager[None]]
"""Wraps one fit, by its name, such as in a metered unit."""


@dataclass(frozen=True)
class TfidfPredictor:
    """A linear classifier of texts.

    Args:
        vectors: texts to rows.
        labels: in the order of the weights' rows.
        weights: (labels, terms) float64.
        biases: (labels,) float64.
        name: as shown in reports.
    """

    vectors: TfidfVectors
    labels: tuple[str, ...]
    weights: NDArray[np.float64]
    biases: NDArray[np.float64]
    name: str = "tfidf"

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One label a text, with the probability of each."""
        if not requests:
            return []
        table = probabilities(self.vectors.of([cast(str, request) for request in requests]), self.weights, self.biases)
        return [
            Prediction(self.labels[int(row.argmax())], dict(zip(self.labels, row.tolist(), strict=True)))
            for row in table
        ]

    def save(self, folder: Path) -> None:
        """Write vocabulary, weights and labels into a folder that is there."""
        from safetensors.numpy import save_file

        self.vectors.save(folder)
        (folder / LABELS_FILE).write_text(json.dumps(self.labels, ensure_ascii=False), encoding="utf-8")
        save_file({"weights": self.weights, "biases": self.biases}, folder / WEIGHTS_FILE)

    @staticmethod
    def load(folder: Path) -> TfidfPredictor:
        """What `save` wrote; it gives the same predictions."""
        from safetensors.numpy import load_file

        labels = json.loads((folder / LABELS_FILE).read_text(encoding="utf-8"))
        arrays = load_file(folder / WEIGHTS_FILE)
        return TfidfPredictor(TfidfVectors.load(folder), tuple(labels), arrays["weights"], arrays["biases"])


@dataclass(frozen=True)
class Fitted:
    """A fitted predictor and how its regularisation was chosen: validation cross-entropy by inverse strength."""

    predictor: TfidfPredictor
    c: float
    cross_entropy: dict[float, float]


def fit(
    texts: Sequence[str],
    labels: Sequence[str],
    validation_texts: Sequence[str],
    validation_labels: Sequence[str],
    strengths: Sequence[float],
    guard: Guard = lambda _: nullcontext(),
) -> Fitted:
    """Fit one classifier for each strength, and keep the one that does best on the validation rows.

    Args:
        texts: (rows,) training texts.
        labels: (rows,) their labels, of at least two kinds.
        validation_texts: (validation rows,) at least one.
        validation_labels: (validation rows,).
        strengths: inverse strengths of regularisation (scikit-learn's C), of which equally good ones lose to smaller.
        guard: wraps each piece of work.

    Raises:
        BadInput: one label only, or no validation rows.
    """
    if len(set(labels)) < 2:
        raise BadInput(
            "a classifier needs two labels to tell apart",
            where="the train split",
            found=f"one label, {labels[0]!r}" if labels else "no rows",
            expected="rows with two or more labels",
            way_out="add rows with other labels",
        )
    if not validation_texts:
        raise BadInput(
            "there are no rows to choose the regularisation by",
            where="the validation split",
            found="0 rows",
            expected="at least 1 row",
            way_out="add rows, or give this side a larger share in prepare.split",
        )
    with guard("read the texts"):
        vectors = TfidfVectors.fit(texts)
        train, held_out = vectors.of(texts), vectors.of(validation_texts)
    found: dict[float, tuple[float, TfidfPredictor]] = {}
    for c in sorted(strengths):
        with guard(f"fit with C = {c:g}"):
            predictor = _fit_one(vectors, train, labels, c)
            table = probabilities(held_out, predictor.weights, predictor.biases)
            found[c] = _cross_entropy(table, predictor.labels, validation_labels), predictor
    best = min(found, key=lambda c: (found[c][0], c))
    return Fitted(found[best][1], best, {c: loss for c, (loss, _) in found.items()})


def probabilities(rows: Any, weights: NDArray[np.float64], biases: NDArray[np.float64]) -> NDArray[np.float64]:
    """(texts, labels) the softmax of a linear model."""
    logits = np.asarray(rows @ weights.T) + biases
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _fit_one(vectors: TfidfVectors, rows: Any, labels: Sequence[str], c: float) -> TfidfPredictor:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(rows, labels)
    # scikit-learn may keep the weights column by column, which safetensors would write as they lie.
    weights, biases = np.ascontiguousarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) == 1:  # two labels: scikit-learn keeps the second one's log-odds only
        weights, biases = np.vstack([np.zeros_like(weights), weights]), np.array([0.0, biases[0]])
    return TfidfPredictor(vectors, tuple(str(label) for label in model.classes_), weights, biases)


def _cross_entropy(table: NDArray[np.float64], labels: Sequence[str], wanted: Sequence[str]) -> float:
    index = {label: column for column, label in enumerate(labels)}
    given = [row[index[label]] if label in index else 0.0 for row, label in zip(table, wanted, strict=True)]
    return float(-np.log(np.maximum(given, UNKNOWN)).mean())
