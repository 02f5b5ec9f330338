"""Continued pre-training of a decoder on raw text: every token of every document is to be foretold.

Source: Gururangan et al., "Don't Stop Pretraining: Adapt Language Models to Domains and Tasks", ACL 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from thriftune.models.load import load_decoder
from thriftune.models.quiet import quiet_transformers
from thriftune.tasks.base import SOURCE_ROW, Encoded
from thriftune.tasks.batches import ragged
from thriftune.tasks.chat import IGNORED, ChatTask, DecoderPredictor

SEPARATOR = "<|endoftext|>"  # between the documents that GPT-2's heirs were pre-trained on, Qwen and SmolLM among them


@dataclass(frozen=True)
class PretrainTask(ChatTask):
    """Documents in, a decoder that foretells such documents out.

    A document is read behind what stands before a document in the model's family, and ends with what ends one. Where it
    is longer than `max_tokens` it becomes several rows; each but the first begins with the last token of the one
    before, which it need not foretell, so that every token of a document counts exactly once and none is lost. Rows
    are never packed together: most are as long as the model reads, and no document reads another.
    """

    name = "pretrain"
    packed = False

    def encode(self, frame: pl.DataFrame) -> Encoded:
        encoded, document = self.encode_documents(frame["text"].to_list())
        return replace(encoded, facts={SOURCE_ROW: document})

    def encode_documents(self, texts: Sequence[str]) -> tuple[Encoded, NDArray[np.int64]]:
        """The rows of some documents, and (rows,) which document each belongs to."""
        start, end = self._frame
        read = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        whole = [[start, *tokens, end] for tokens in read]
        step = self.max_tokens - 1
        cut = [
            (document, tokens[at : at + self.max_tokens])
            for document, tokens in enumerate(whole)
            for at in range(0, len(tokens) - 1, step)
        ]
        tokens, offsets, _, _ = ragged([row for _, row in cut], self.max_tokens)
        labels = tokens.astype(np.int64)
        labels[offsets[:-1]] = IGNORED
        weights = (offsets[1:] - offsets[:-1] - 1).astype(np.float64)
        return Encoded(tokens, offsets, labels, weights), np.array([document for document, _ in cut], dtype=np.int64)

    @cached_property
    def _frame(self) -> tuple[int, int]:
        """The tokens before and after a document: the family's separator, or else its first and last token."""
        tokenizer = self._tokenizer
        if SEPARATOR in tokenizer.get_vocab():
            separator = int(tokenizer.convert_tokens_to_ids(SEPARATOR))
            return separator, separator
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return int(start), int(tokenizer.eos_token_id)

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """A whole model, adapters merged into it: a base that other projects name and tune further."""
        if self.lora is None:
            super().save(model, folder)
            return
        causal = cast(Any, model)
        causal.merge_adapter()
        weights = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in causal.get_base_model().state_dict().items()
            if ".lora_" not in name
        }
        with quiet_transformers():
            causal.get_base_model().save_pretrained(folder, state_dict=weights)
        causal.unmerge_adapter()
        self._save_reading(folder)

    def load(self, folder: Path) -> torch.nn.Module:
        return load_decoder(folder, torch.float32)

    def predictor(self, model: torch.nn.Module, name: str) -> ReadingPredictor:
        return ReadingPredictor(name, self, model)


@dataclass(frozen=True)
class ReadingPredictor(DecoderPredictor):
    """A decoder that says how likely it finds a text."""

    def text_losses(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(rows,) negative log-likelihood summed over each text's tokens and its end, and (rows,) their number."""
        encoded, document = cast(PretrainTask, self.task).encode_documents(texts)
        losses, tokens = np.zeros(len(texts)), np.zeros(len(texts))
        np.add.at(losses, document, self.task.row_losses(self.model, encoded, self.batch_tokens))
        np.add.at(tokens, document, encoded.weights)
        return losses, tokens
