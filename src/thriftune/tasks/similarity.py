"""The untuned encoder as a classifier: how near the names of labels lie to a text in its embedding space.

An encoder cannot answer before it has a head; a random head would be a straw man. Comparing embeddings of text and
label names is the usual zero-shot reading of an encoder (Yin et al., "Benchmarking Zero-shot Text Classification",
EMNLP 2019, section 4: Label-similarity).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch.nn import functional

from thriftune.tasks.base import Prediction, Request
from thriftune.tasks.batches import READ_BATCH_TOKENS, sorted_batches
from thriftune.tasks.encoder import EncoderTask


@dataclass(frozen=True)
class SimilarityPredictor:
    """Labels by the cosine of mean-pooled embeddings.

    Args:
        name: as shown in reports.
        task: whose tokens and labels it uses.
        encoder: the model without a head.
        answers: (texts, labels) cosines to predictions.
    """

    name: str
    task: EncoderTask
    encoder: torch.nn.Module
    answers: Callable[[torch.Tensor], list[Prediction]]
    batch_tokens: int = READ_BATCH_TOKENS

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """What `answers` makes of each text's cosines."""
        texts = self._embed([cast(str, request) for request in requests])
        return self.answers(texts @ self._label_vectors.T)

    @cached_property
    def _label_vectors(self) -> torch.Tensor:
        return self._embed([label.replace("_", " ") for label in self.task.labels])

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> torch.Tensor:
        encoded = self.task.unlabelled(texts)
        device = next(self.encoder.parameters()).device
        vectors: list[torch.Tensor | None] = [None] * len(texts)
        self.encoder.eval()
        for rows in sorted_batches(encoded.lengths, self.batch_tokens):
            batch = {name: tensor.to(device) for name, tensor in self.task.inputs(encoded, rows).items()}
            mask = batch["attention_mask"]
            hidden = self.encoder(**batch).last_hidden_state
            mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            for row, vector in zip(rows, functional.normalize(mean.float(), dim=1).cpu(), strict=True):
                vectors[row] = vector
        return torch.stack(cast(list[torch.Tensor], vectors))
