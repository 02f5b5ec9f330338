"""Classification of texts that have any number of labels, none too, with an encoder and a fresh head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from thriftune.metrics import multilabel
from thriftune.tasks.base import Batch, Encoded, Prediction, Request
from thriftune.tasks.batches import READ_BATCH_TOKENS
from thriftune.tasks.encoder import EncoderTask, exact
from thriftune.tasks.heads import contents
from thriftune.tasks.similarity import SimilarityPredictor
from thriftune.tasks.targets import read_list, write_labels

THRESHOLD = 0.5  # a label with at least this probability is given
TEMPERATURE = 0.05  # spreads cosine similarities into probabilities; does not change the labels


@dataclass(frozen=True)
class MultilabelTask(EncoderTask):
    """Texts in, those of `labels` that fit out.

    The loss is binary cross-entropy with logits, averaged over the labels of a row and summed over rows; what it is
    divided by is the number of rows. That is Transformers' loss with `problem_type="multi_label_classification"`.
    Label smoothing draws both targets, 0 and 1, towards a half.
    """

    name = "multilabel"
    head = "several"

    def encode(self, frame: pl.DataFrame) -> Encoded:
        tokens, offsets, cut_tokens, cut_rows = self._tokens(frame["text"].to_list())
        targets = tuple(self._targets(frame))
        labels = np.zeros((len(targets), len(self.labels)), dtype=np.int64)
        for row, target in zip(labels, targets, strict=True):
            row[[self._index[label] for label in read_list(target) if label in self._index]] = 1
        ones, parts = np.ones(len(targets)), self._parts(frame)
        return Encoded(tokens, offsets, labels, ones, cut_tokens, cut_rows, targets=targets, parts=parts)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits = exact(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits)
        wanted = batch["labels"].to(logits.dtype)
        if self.label_smoothing:
            wanted = wanted * (1 - self.label_smoothing) + self.label_smoothing / 2
        if self.heads is not None:
            return own_binary_cross_entropy(logits, wanted, batch["own"])
        return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(self.labels)

    def validate(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> dict[str, float]:
        logits = self.text_logits(model, encoded, batch_tokens)
        wanted = torch.from_numpy(encoded.labels).to(logits.dtype)
        if self.heads is None:
            loss = functional.binary_cross_entropy_with_logits(logits, wanted).item()
        else:
            own = self.own_columns(encoded, np.arange(len(encoded)))
            loss = own_binary_cross_entropy(logits, wanted, own).item() / len(encoded)
            logits = logits.masked_fill(~own, -torch.inf)
        outputs = [answer.output for answer in from_probabilities(self.labels, logits.sigmoid().numpy())]
        scores = multilabel.scores([read_list(target) for target in encoded.targets], [read_list(o) for o in outputs])
        return {"loss": loss} | scores

    def predictor(self, model: torch.nn.Module, name: str) -> MultilabelPredictor:
        return MultilabelPredictor(name, self, model)

    def similar(self, encoder: torch.nn.Module) -> SimilarityPredictor:
        """The labels whose names lie nearer to the text than its labels' average."""

        def answers(cosines: torch.Tensor) -> list[Prediction]:
            nearer = (cosines - cosines.mean(dim=1, keepdim=True)) / TEMPERATURE
            return from_probabilities(self.labels, nearer.sigmoid().numpy())

        return SimilarityPredictor("untuned", self, encoder, answers)


@dataclass(frozen=True)
class MultilabelPredictor:
    """An encoder with its head."""

    name: str
    task: MultilabelTask
    model: torch.nn.Module
    batch_tokens: int = READ_BATCH_TOKENS

    @property
    def parts(self) -> tuple[str, ...]:
        """Those that there is a head for each of."""
        return self.task.heads.parts if self.task.heads is not None else ()

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """The labels of each text, with the probability of each that there is; with several heads of its own part's."""
        encoded = self.task.unlabelled([cast(str, content) for content in contents(requests)])
        logits = self.task.text_logits(self.model, encoded, self.batch_tokens)
        if self.task.heads is not None:
            return self.task.heads.answers(requests, logits, from_logits)
        return from_logits(self.task.labels, logits)


def from_logits(labels: Sequence[str], logits: torch.Tensor) -> list[Prediction]:
    """Rows of (rows, labels) logits as predictions."""
    return from_probabilities(labels, logits.sigmoid().numpy())


def own_binary_cross_entropy(logits: torch.Tensor, wanted: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Averaged over the labels of each row's own head, and summed over rows.

    Args:
        logits: (rows, labels).
        wanted: (rows, labels) 0 to 1.
        own: (rows, labels) bool.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").masked_fill(~own, 0.0)
    return (losses.sum(dim=1) / own.sum(dim=1)).sum()


def from_probabilities(labels: Sequence[str], probabilities: NDArray[np.float32]) -> list[Prediction]:
    """Rows of a (rows, labels) table as predictions: the labels that reach `THRESHOLD`."""
    return [
        Prediction(
            write_labels(label for label, p in zip(labels, row, strict=True) if p >= THRESHOLD),
            {label: float(p) for label, p in zip(labels, row, strict=True)},
        )
        for row in probabilities
    ]
