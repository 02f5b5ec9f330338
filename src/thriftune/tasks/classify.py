"""Single-label classification of texts with an encoder and a fresh head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from thriftune.metrics import classification
from thriftune.tasks.base import Batch, Encoded, Prediction, Request
from thriftune.tasks.batches import READ_BATCH_TOKENS
from thriftune.tasks.encoder import EncoderTask, exact
from thriftune.tasks.heads import contents
from thriftune.tasks.similarity import SimilarityPredictor

TEMPERATURE = 0.05  # spreads cosine similarities into probabilities; does not change the label


@dataclass(frozen=True)
class ClassifyTask(EncoderTask):
    """Texts in, one of `labels` out.

    Args:
        class_weights: what a row of each label counts, in the order of `labels`; None for 1.
    """

    class_weights: tuple[float, ...] | None = None

    name = "classify"
    head = "one"

    def encode(self, frame: pl.DataFrame) -> Encoded:
        tokens, offsets, cut_tokens, cut_rows = self._tokens(frame["text"].to_list())
        labels = np.array([self._index.get(label, -1) for label in self._targets(frame)], dtype=np.int64)
        weights = np.ones(len(frame))
        if self.class_weights is not None:
            weights = np.where(labels >= 0, np.array(self.class_weights)[labels], 1.0)
        return Encoded(tokens, offsets, labels, weights, cut_tokens, cut_rows, parts=self._parts(frame))

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits = exact(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits)
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        if self.heads is not None:
            return own_cross_entropy(logits, batch["labels"], batch["own"], weights, self.label_smoothing)
        return functional.cross_entropy(
            logits, batch["labels"], weight=weights, reduction="sum", label_smoothing=self.label_smoothing
        )

    def validate(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> dict[str, float]:
        logits = self.text_logits(model, encoded, batch_tokens)
        if self.heads is not None:
            logits = logits.masked_fill(~self.own_columns(encoded, np.arange(len(encoded))), -torch.inf)
        known = encoded.labels >= 0
        targets = torch.from_numpy(encoded.labels[known])
        loss = functional.cross_entropy(logits[torch.from_numpy(known)], targets).item()
        outputs = logits.argmax(dim=1).numpy()
        scores = classification.scores(
            [self.labels[i] if i >= 0 else "" for i in encoded.labels], [self.labels[i] for i in outputs]
        )
        return {"loss": loss} | scores

    def predictor(self, model: torch.nn.Module, name: str) -> EncoderPredictor:
        return EncoderPredictor(name, self, model)

    def similar(self, encoder: torch.nn.Module) -> SimilarityPredictor:
        """The nearest label name in the encoder's embedding space."""
        return SimilarityPredictor(
            "untuned",
            self,
            encoder,
            lambda cosines: from_probabilities(self.labels, (cosines / TEMPERATURE).softmax(dim=1).numpy()),
        )

    def describe(self) -> dict[str, Any]:
        weights = None if self.class_weights is None else list(self.class_weights)
        return super().describe() | {"class_weights": weights}


@dataclass(frozen=True)
class EncoderPredictor:
    """An encoder with its head."""

    name: str
    task: ClassifyTask
    model: torch.nn.Module
    batch_tokens: int = READ_BATCH_TOKENS

    @property
    def parts(self) -> tuple[str, ...]:
        """Those that there is a head for each of."""
        return self.task.heads.parts if self.task.heads is not None else ()

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One label a text, with the probability of each; with several heads of its own part's."""
        encoded = self.task.unlabelled([cast(str, content) for content in contents(requests)])
        logits = self.task.text_logits(self.model, encoded, self.batch_tokens)
        if self.task.heads is not None:
            return self.task.heads.answers(requests, logits, from_logits)
        return from_logits(self.task.labels, logits)


def from_logits(labels: Sequence[str], logits: torch.Tensor) -> list[Prediction]:
    """Rows of (rows, labels) logits as predictions."""
    return from_probabilities(labels, logits.softmax(dim=1).numpy())


def from_probabilities(labels: Sequence[str], probabilities: NDArray[np.float32]) -> list[Prediction]:
    """Rows of a (rows, labels) table as predictions."""
    return [
        Prediction(labels[int(row.argmax())], {label: float(p) for label, p in zip(labels, row, strict=True)})
        for row in probabilities
    ]


def own_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    own: torch.Tensor,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """`functional.cross_entropy` summed over rows, each over the outputs of its own head alone.

    Args:
        logits: (rows, labels).
        labels: (rows,) the right one, of its own head.
        own: (rows, labels) bool.
        weights: (labels,) what a row of each label counts.
        label_smoothing: over the labels of the own head.
    """
    losses = -logits.masked_fill(~own, -torch.inf).log_softmax(dim=1).masked_fill(~own, 0.0)
    if weights is not None:
        losses = losses * weights
    right = losses.gather(1, labels[:, None]).sum()
    if not label_smoothing:
        return right
    return (1 - label_smoothing) * right + label_smoothing * (losses.sum(dim=1) / own.sum(dim=1)).sum()
