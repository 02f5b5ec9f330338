"""The cheap classifier that a tuned model has to beat: logistic regression on TF-IDF of words and pairs of words.

It is meant to be strong, since the verdict is measured against it: sublinear term frequencies, punctuation kept, and
the regularisation chosen by the cross-entropy on the validation split, which is less noisy than F1 on few rows. Where a
text has any number of labels there is a regression for each label against the rest, and a label is given from a
probability of one half on.
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
from thriftune.tasks.targets import read_list, write_labels

LABELS_FILE = "labels.json"
WEIGHTS_FILE = "weights.safetensors"
SOLVER = "newton-cg"  # nearer to the optimum than L-BFGS, in a seventh of its time at 26 labels, a quarter at two
TOLERANCE = 1e-6  # a Newton step from 1e-4, with which probabilities are 0.005 off
MAX_ITERATIONS = 300
UNKNOWN = 1e-9  # probability of a validation label that the training rows do not have
THRESHOLD = 0.5  # of several labels, one with at least this probability is given

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
        several: whether a text has any number of the labels, and not one.
        name: as shown in reports.
    """

    vectors: TfidfVectors
    labels: tuple[str, ...]
    weights: NDArray[np.float64]
    biases: NDArray[np.float64]
    several: bool = False
    name: str = "tfidf"

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One label a text, or those that fit, with the probability of each."""
        if not requests:
            return []
        table = self.probabilities(self.vectors.of([cast(str, request) for request in requests]))
        return [Prediction(self._output(row), dict(zip(self.labels, row.tolist(), strict=True))) for row in table]

    def probabilities(self, rows: Any) -> NDArray[np.float64]:
        """(texts, labels) of (texts, terms) rows."""
        logits = np.asarray(rows @ self.weights.T) + self.biases
        if self.several:
            return np.asarray(1 / (1 + np.exp(-logits)))
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def _output(self, row: NDArray[np.float64]) -> str:
        if self.several:
            return write_labels(self.labels[i] for i in np.flatnonzero(row >= THRESHOLD))
        return self.labels[int(row.argmax())]

    def save(self, folder: Path) -> None:
        """Write vocabulary, weights and labels into a folder that is there."""
        from safetensors.numpy import save_file

        self.vectors.save(folder)
        about = {"labels": self.labels, "several": self.several}
        (folder / LABELS_FILE).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
        save_file({"weights": self.weights, "biases": self.biases}, folder / WEIGHTS_FILE)

    @staticmethod
    def load(folder: Path) -> TfidfPredictor:
        """What `save` wrote; it gives the same predictions."""
        from safetensors.numpy import load_file

        about = json.loads((folder / LABELS_FILE).read_text(encoding="utf-8"))
        arrays = load_file(folder / WEIGHTS_FILE)
        vectors, labels = TfidfVectors.load(folder), tuple(about["labels"])
        return TfidfPredictor(vectors, labels, arrays["weights"], arrays["biases"], about["several"])


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
    several: bool = False,
) -> Fitted:
    """Fit one classifier for each strength, and keep the one that does best on the validation rows.

    Args:
        texts: (rows,) training texts.
        labels: (rows,) their labels, of at least two kinds; with `several` lists of labels, as targets are written.
        validation_texts: (validation rows,) at least one.
        validation_labels: (validation rows,).
        strengths: inverse strengths of regularisation (scikit-learn's C), of which equally good ones lose to smaller.
        guard: wraps each piece of work.
        several: whether a text has any number of labels.

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
    best: tuple[float, float, TfidfPredictor] | None = None  # the others' weights are not kept: they are large
    losses: dict[float, float] = {}
    for c in sorted(strengths):
        with guard(f"fit with C = {c:g}"):
            predictor = (_fit_several if several else _fit_one)(vectors, train, labels, c)
            table = predictor.probabilities(held_out)
            loss_of = _binary_cross_entropy if several else _cross_entropy
            losses[c] = loss_of(table, predictor.labels, validation_labels)
            if best is None or losses[c] < best[0]:
                best = losses[c], c, predictor
    if best is None:
        raise ValueError("no strength of regularisation to choose from")
    return Fitted(best[2], best[1], losses)


def _fit_one(vectors: TfidfVectors, rows: Any, labels: Sequence[str], c: float) -> TfidfPredictor:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, solver=SOLVER, tol=TOLERANCE, max_iter=MAX_ITERATIONS).fit(rows, labels)
    # scikit-learn may keep the weights column by column, which safetensors would write as they lie.
    weights, biases = np.ascontiguousarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) == 1:  # two labels: scikit-learn keeps the second one's log-odds only
        weights, biases = np.vstack([np.zeros_like(weights), weights]), np.array([0.0, biases[0]])
    return TfidfPredictor(vectors, tuple(str(label) for label in model.classes_), weights, biases)


def _fit_several(vectors: TfidfVectors, rows: Any, targets: Sequence[str], c: float) -> TfidfPredictor:
    from sklearn.linear_model import LogisticRegression

    labels = sorted({label for target in targets for label in read_list(target)})
    wanted = _indicators(labels, targets)
    weights, biases = np.zeros((len(labels), rows.shape[1])), np.zeros(len(labels))
    for column, has in enumerate(wanted.T):
        if has.all():  # nothing to tell apart: every row has the label
            biases[column] = np.log(2 * len(has) + 1)  # the odds of (n + 1/2) to 1/2
        else:
            model = LogisticRegression(C=c, solver=SOLVER, tol=TOLERANCE, max_iter=MAX_ITERATIONS).fit(rows, has)
            weights[column], biases[column] = model.coef_[0], model.intercept_[0]
    return TfidfPredictor(vectors, tuple(labels), weights, biases, several=True)


def _indicators(labels: Sequence[str], targets: Sequence[str]) -> NDArray[np.bool_]:
    """(rows, labels): which labels each target has."""
    sets = [set(read_list(target)) for target in targets]
    return np.array([[label in has for label in labels] for has in sets], dtype=bool)


def _binary_cross_entropy(table: NDArray[np.float64], labels: Sequence[str], targets: Sequence[str]) -> float:
    wanted = _indicators(labels, targets)
    return float(-np.log(np.maximum(np.where(wanted, table, 1 - table), UNKNOWN)).mean())


def _cross_entropy(table: NDArray[np.float64], labels: Sequence[str], wanted: Sequence[str]) -> float:
    index = {label: column for column, label in enumerate(labels)}
    given = [row[index[label]] if label in index else 0.0 for row, label in zip(table, wanted, strict=True)]
    return float(-np.log(np.maximum(given, UNKNOWN)).mean())
