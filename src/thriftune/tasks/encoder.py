"""What the tasks of an encoder share: a fresh head on a model that reads texts, saved and opened as one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from thriftune.models.adapters import LoraShape, with_adapters
from thriftune.models.dropout import make_dropout_quick
from thriftune.models.first_token import read_first_token_only
from thriftune.models.load import (
    Head,
    body_of,
    has_head_for,
    head_modules,
    load_encoder,
    load_encoder_classifier,
    load_tokenizer,
)
from thriftune.models.prefix import freeze_first, still_prefix
from thriftune.models.quiet import quiet_transformers
from thriftune.models.reference import ModelFolder
from thriftune.tasks.base import TASK_FILE, Batch, Encoded, Predictor
from thriftune.tasks.batches import attention_mask, pad, ragged, sorted_batches
from thriftune.tasks.heads import ByPart, Heads, named_targets

READ_ROWS = 4096  # texts read at once: what the tokenizer tells of each takes many times the memory of its tokens


@dataclass(frozen=True)
class EncoderTask:
    """An encoder with a head of `labels`: the part of a `Task` that does not depend on what a label is given to.

    Args:
        model: the encoder.
        labels: every label of the training split, in the order of the head's outputs; with several heads by full names.
        seed: of the head's fresh weights.
        max_tokens: longer rows are cut (and counted); at most what the model reads.
        dropout: replaces the model's own rates, or None to keep them.
        label_smoothing: 0…1, as in Szegedy et al., "Rethinking the Inception Architecture", 2016.
        frozen_layers: how many of the first layers (and with them the embeddings) stay as they are.
        head_only: freeze the whole encoder.
        lora: adapters on the encoder's linear layers, or None to train its own weights.
        heads: a head for each part of the data, or None for one head.
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
    heads: Heads | None = None

    name: ClassVar[str]
    head: ClassVar[Head]

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.model.path)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    def build(self) -> torch.nn.Module:
        torch.manual_seed(self.seed)
        model = self._open(self.model.path)
        if self.head_only:
            body_of(model).requires_grad_(False)
        else:
            freeze_first(model, self.frozen_layers)
        if self.lora is not None:
            kind = "TOKEN_CLS" if self.head == "token" else "SEQ_CLS"
            model = with_adapters(model, self.lora, kind, self.frozen_layers, fresh_modules(model))
        still_prefix(model)
        return model

    @property
    def fresh_head(self) -> bool:
        """Whether the head is drawn at random, since the model's folder has none for these labels."""
        return not has_head_for(self.model.path, list(self.labels))

    def _read(self, asked: Sequence[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        """(rows,) each as the tokenizer reads it whole, and cut to `max_tokens`."""
        # Truncation is left to the tokenizer, which keeps the closing special token.
        if not asked:
            return [], []
        whole = self._tokenizer(list(asked), truncation=False, verbose=False, **options).encodings
        cut = [i for i, one in enumerate(whole) if len(one) > self.max_tokens]
        if not cut:
            return whole, whole
        kept = list(whole)
        shorter = self._tokenizer([asked[i] for i in cut], truncation=True, max_length=self.max_tokens, **options)
        for i, one in zip(cut, shorter.encodings, strict=True):
            kept[i] = one
        return whole, kept

    def _tokens(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], int, int]:
        """Texts as flat tokens and offsets; and how many tokens, and of how many rows, were cut."""
        pieces, cut = [], np.zeros(len(texts), dtype=np.int64)
        for start in range(0, max(1, len(texts)), READ_ROWS):
            whole, kept = self._read(texts[start : start + READ_ROWS])
            pieces.append(ragged([one.ids for one in kept], self.max_tokens)[:2])
            cut[start : start + len(kept)] = [len(all_) - len(some) for all_, some in zip(whole, kept, strict=True)]
        lengths = np.concatenate([np.diff(offsets) for _, offsets in pieces])
        tokens = np.concatenate([flat for flat, _ in pieces])
        return tokens, np.concatenate([[0], np.cumsum(lengths)]), int(cut.sum()), int((cut > 0).sum())

    def unlabelled(self, texts: Sequence[str]) -> Encoded:
        """Texts as the model reads them, with nothing that could be learned from them."""
        tokens, offsets, cut_tokens, cut_rows = self._tokens(texts)
        none = np.zeros(len(texts), dtype=np.int64)
        return Encoded(tokens, offsets, none, np.ones(len(texts)), cut_tokens, cut_rows)

    def batch(self, encoded: Encoded, rows: NDArray[np.int64]) -> Batch:
        own = {} if self.heads is None else {"own": self.own_columns(encoded, rows)}
        return self.inputs(encoded, rows) | {"labels": torch.from_numpy(encoded.labels[rows])} | own

    def own_columns(self, encoded: Encoded, rows: NDArray[np.int64]) -> torch.Tensor:
        """(rows, labels) bool: which of the head's outputs are of each row's part."""
        assert self.heads is not None and encoded.parts is not None
        return torch.from_numpy(self.heads.own[encoded.parts[rows]])

    def _targets(self, frame: pl.DataFrame) -> pl.Series:
        """The rows' targets as the head's outputs are named."""
        return frame["target"] if self.heads is None else named_targets(frame["target"], frame["part"], self.name)

    def _parts(self, frame: pl.DataFrame) -> NDArray[np.int64] | None:
        """(rows,) the number of each row's part, where there is a head for each."""
        if self.heads is None:
            return None
        return np.array([self.heads.number[part] for part in frame["part"]], dtype=np.int64)

    def inputs(self, encoded: Encoded, rows: NDArray[np.int64]) -> Batch:
        """The padded tokens of some rows, without labels."""
        side = self._tokenizer.padding_side  # XLNet's head reads the last position, so it is padded on the left
        return {
            "input_ids": pad(encoded.tokens, encoded, rows, self._tokenizer.pad_token_id or 0, side),
            "attention_mask": attention_mask(encoded, rows, side),
        }

    @torch.inference_mode()
    def text_logits(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> torch.Tensor:
        """(rows, labels) fp32 logits of every row, in the rows' order, of a head that reads a text as one."""
        training = model.training
        model.eval()
        device = next(model.parameters()).device
        logits = torch.empty(len(encoded), len(self.labels))
        for rows in sorted_batches(encoded.lengths, batch_tokens):
            batch = {name: tensor.to(device) for name, tensor in self.inputs(encoded, rows).items()}
            logits[torch.from_numpy(rows)] = model(**batch).logits.float().cpu()
        model.train(training)
        return logits

    def untuned(self) -> Predictor:
        """The model without any tuning, as a predictor; with several heads one for each part's labels."""
        encoder = load_encoder(self.model.path)
        if self.heads is None:
            return self.similar(encoder)
        tasks = zip(self.heads.parts, self.heads.labels, strict=True)
        return ByPart(
            "untuned", {part: replace(self, labels=labels, heads=None).similar(encoder) for part, labels in tasks}
        )

    def similar(self, encoder: torch.nn.Module) -> Predictor:
        """An answer by the names of labels alone, from an encoder without a head, where the task has one."""
        raise NotImplementedError("this task's labels are not told by their names")

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        whole = model if self.lora is None else cast(Any, deepcopy(model)).merge_and_unload()
        with quiet_transformers():
            cast(Any, whole).save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        (folder / TASK_FILE).write_text(json.dumps(self.describe(), indent=1))

    def load(self, folder: Path) -> torch.nn.Module:
        return self._open(folder)

    def _open(self, folder: Path) -> torch.nn.Module:
        """The model without the arithmetic that its head throws away, and with cheap random numbers."""
        model = load_encoder_classifier(folder, list(self.labels), self.dropout, self.head)
        if self.head != "token":
            read_first_token_only(model)
        make_dropout_quick(model)
        return model

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
        } | ({} if self.heads is None else {"heads": self.heads.as_json()})


def fresh_modules(model: torch.nn.Module) -> list[str]:
    """The names of the modules that no pre-training has trained for this: the head, and the pooler under it."""
    names = [name for name, part in head_modules(model).items() if any(True for _ in part.parameters())]
    return names + (["pooler"] if isinstance(getattr(body_of(model), "pooler", None), torch.nn.Module) else [])


def exact(logits: torch.Tensor) -> torch.Tensor:
    """Logits in fp32 at least, as a loss needs them."""
    return logits if logits.dtype == torch.float64 else logits.float()
