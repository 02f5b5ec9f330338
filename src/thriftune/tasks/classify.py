"""Single-label classification of texts with an encoder and a fresh head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from thriftune.metrics import classification
from thriftune.models.adapters import LoraShape, with_adapters
from thriftune.models.dropout import make_dropout_quick
from thriftune.models.first_token import read_first_token_only
from thriftune.models.load import load_encoder, load_encoder_classifier, load_tokenizer
from thriftune.models.prefix import freeze_first, still_prefix
from thriftune.models.quiet import quiet_transformers
from thriftune.models.reference import ModelFolder
from thriftune.tasks.base import TASK_FILE, Batch, Encoded, Prediction, Request
from thriftune.tasks.batches import attention_mask, pad, ragged, sorted_batches


@dataclass(frozen=True)
class ClassifyTask:
    """Texts in, one of `labels` out.

    Args:
        model: the encoder.
        labels: every label of the training split, in the order of the head's outputs.
        seed: of the head's fresh weights.
        max_tokens: longer rows are cut (and counted); at most what the model reads.
        dropout: replaces the model's own rates, or None to keep them.
        label_smoothing: 0…1, as in Szegedy et al., "Rethinking the Inception Architecture", 2016.
        frozen_layers: how many of the first layers (and with them the embeddings) stay as they are.
        head_only: freeze the whole encoder.
        lora: adapters on the encoder's linear layers, or None to train its own weights.
        class_weights: what a row of each label counts, in the order of `labels`; None for 1.
    """

    model: ModelFolder
    labels: tuple[str, ...]
    seed: int = 0
    max_tokens: int = 512
    dropout: float | None = None
    label_smoothing: float = 0.0
    frozen_layers: int = 0
    head_only: bool = False
    lora: LoraShape | None = None
    class_weights: tuple[float, ...] | None = None

    name = "classify"

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.model.path)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    def build(self) -> torch.nn.Module:
        torch.manual_seed(self.seed)
        model = self._quick(load_encoder_classifier(self.model.path, list(self.labels), self.dropout))
        if self.head_only:
            freeze_body(model)
        else:
            freeze_first(model, self.frozen_layers)
        if self.lora is not None:
            model = with_adapters(model, self.lora, "SEQ_CLS", self.frozen_layers, fresh_modules(model))
        still_prefix(model)
        return model

    def encode(self, frame: pl.DataFrame) -> Encoded:
        tokens, offsets, cut_tokens, cut_rows = self._tokens(frame["text"].to_list())
        labels = np.array([self._index.get(label, -1) for label in frame["target"]], dtype=np.int64)
        weights = np.ones(len(frame))
        if self.class_weights is not None:
            weights = np.where(labels >= 0, np.array(self.class_weights)[labels], 1.0)
        return Encoded(tokens, offsets, labels, weights, cut_tokens, cut_rows)

    def _tokens(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], int, int]:
        # Truncation is left to the tokenizer, which keeps the closing special token; what it cut is counted.
        whole = self._tokenizer(list(texts), truncation=False, add_special_tokens=True, verbose=False)["input_ids"]
        cut = [i for i, ids in enumerate(whole) if len(ids) > self.max_tokens]
        if not cut:
            return ragged(whole, self.max_tokens)
        kept = list(whole)
        shorter = self._tokenizer([texts[i] for i in cut], truncation=True, max_length=self.max_tokens)["input_ids"]
        for i, ids in zip(cut, shorter, strict=True):
            kept[i] = ids
        tokens, offsets, _, _ = ragged(kept, self.max_tokens)
        return tokens, offsets, sum(len(whole[i]) - len(kept[i]) for i in cut), len(cut)

    def batch(self, encoded: Encoded, rows: NDArray[np.int64]) -> Batch:
        side = self._tokenizer.padding_side  # XLNet's head reads the last position, so it is padded on the left
        return {
            "input_ids": pad(encoded.tokens, encoded, rows, self._tokenizer.pad_token_id or 0, side),
            "attention_mask": attention_mask(encoded, rows, side),
            "labels": torch.from_numpy(encoded.labels[rows]),
        }

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        logits = logits.float() if logits.dtype != torch.float64 else logits
        return functional.cross_entropy(
            logits,
            batch["labels"],
            weight=None if self.class_weights is None else logits.new_tensor(self.class_weights),
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def validate(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> dict[str, float]:
        logits = class_logits(self, model, encoded, batch_tokens)
        known = encoded.labels >= 0
        targets = torch.from_numpy(encoded.labels[known])
        loss = functional.cross_entropy(logits[torch.from_numpy(known)], targets).item()
        outputs = logits.argmax(dim=1).numpy()
        scores = classification.scores(
            [self.labels[i] if i >= 0 else "" for i in encoded.labels], [self.labels[i] for i in outputs]
        )
        return {"loss": loss} | scores

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        whole = model if self.lora is None else cast(Any, deepcopy(model)).merge_and_unload()
        with quiet_transformers():
            cast(Any, whole).save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        (folder / TASK_FILE).write_text(json.dumps(self.describe(), indent=1))

    def load(self, folder: Path) -> torch.nn.Module:
        return self._quick(load_encoder_classifier(folder, list(self.labels), self.dropout))

    @staticmethod
    def _quick(model: torch.nn.Module) -> torch.nn.Module:
        """The same model without the arithmetic that its head throws away, and with cheap random numbers."""
        read_first_token_only(model)
        make_dropout_quick(model)
        return model

    def predictor(self, model: torch.nn.Module, name: str) -> EncoderPredictor:
        return EncoderPredictor(name, self, model)

    def untuned(self) -> ZeroShotPredictor:
        """The model without any tuning, as a predictor: nearest label name in its embedding space."""
        return ZeroShotPredictor("untuned", self, load_encoder(self.model.path))

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "reference": self.model.lasting_reference,
            "model": self.model.content_hash,
            "labels": list(self.labels),
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "dropout": self.dropout,
            "label_smoothing": self.label_smoothing,
            "frozen_layers": self.frozen_layers,
            "head_only": self.head_only,
            "lora": None if self.lora is None else vars(self.lora),
            "class_weights": None if self.class_weights is None else list(self.class_weights),
        }


def fresh_modules(model: torch.nn.Module) -> list[str]:
    """The names of the modules that no pre-training has trained for this: the head, and the pooler under it."""
    body = str(model.base_model_prefix)
    names = [name for name, part in model.named_children() if name != body and any(True for _ in part.parameters())]
    pooler = getattr(getattr(model, body), "pooler", None)
    return names + (["pooler"] if isinstance(pooler, torch.nn.Module) else [])


def freeze_body(model: torch.nn.Module) -> None:
    """Freeze everything but the head."""
    base = cast(torch.nn.Module, getattr(model, str(model.base_model_prefix)))
    for parameter in base.parameters():
        parameter.requires_grad = False


@torch.inference_mode()
def class_logits(task: ClassifyTask, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> torch.Tensor:
    """(rows, labels) fp32 logits of every row, in the rows' order."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    logits = torch.empty(len(encoded), len(task.labels))
    for rows in sorted_batches(encoded.lengths, batch_tokens):
        batch = task.batch(encoded, rows)
        out = model(input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device))
        logits[torch.from_numpy(rows)] = out.logits.float().cpu()
    model.train(training)
    return logits


@dataclass(frozen=True)
class EncoderPredictor:
    """An encoder with its head."""

    name: str
    task: ClassifyTask
    model: torch.nn.Module
    batch_tokens: int = 4096

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One label a text, with the probability of each."""
        tokens, offsets, _, _ = self.task._tokens([cast(str, request) for request in requests])
        unlabelled = np.full(len(requests), -1, dtype=np.int64)
        encoded = Encoded(tokens, offsets, unlabelled, np.ones(len(requests)))
        logits = class_logits(self.task, self.model, encoded, self.batch_tokens)
        return from_probabilities(self.task.labels, logits.softmax(dim=1).numpy())


@dataclass(frozen=True)
class ZeroShotPredictor:
    """The untuned encoder: the label whose name lies nearest to the text in mean-pooled embedding space.

    An encoder cannot answer before it has a head; a random head would be a straw man. Comparing embeddings of
    text and label names is the usual zero-shot reading of an encoder (Yin et al., "Benchmarking Zero-shot Text
    Classification", EMNLP 2019, section 4: Label-similarity).
    """

    name: str
    task: ClassifyTask
    encoder: torch.nn.Module
    batch_tokens: int = 4096
    temperature: float = 0.05  # spreads cosine similarities into probabilities; does not change the label

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One label a text, with the softmax of its cosine similarities."""
        texts = self._embed([cast(str, request) for request in requests])
        similarities = texts @ self._label_vectors.T
        return from_probabilities(self.task.labels, (similarities / self.temperature).softmax(dim=1).numpy())

    @cached_property
    def _label_vectors(self) -> torch.Tensor:
        return self._embed([label.replace("_", " ") for label in self.task.labels])

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> torch.Tensor:
        tokens, offsets, _, _ = self.task._tokens(texts)
        encoded = Encoded(tokens, offsets, np.full(len(texts), -1), np.ones(len(texts)))
        device = next(self.encoder.parameters()).device
        vectors: list[torch.Tensor | None] = [None] * len(texts)
        self.encoder.eval()
        for rows in sorted_batches(encoded.lengths, self.batch_tokens):
            batch = self.task.batch(encoded, rows)
            mask = batch["attention_mask"].to(device)
            hidden = self.encoder(input_ids=batch["input_ids"].to(device), attention_mask=mask).last_hidden_state
            mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            for row, vector in zip(rows, functional.normalize(mean.float(), dim=1).cpu(), strict=True):
                vectors[row] = vector
        return torch.stack(cast(list[torch.Tensor], vectors))


def from_probabilities(labels: Sequence[str], probabilities: NDArray[np.float32]) -> list[Prediction]:
    """Rows of a (rows, labels) table as predictions."""
    return [
        Prediction(labels[int(row.argmax())], {label: float(p) for label, p in zip(labels, row, strict=True)})
        for row in probabilities
    ]
