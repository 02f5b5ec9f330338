"""Tagging: one tag for each word of a sentence, with an encoder and a fresh head over its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from thriftune.metrics import tagging
from thriftune.models.load import load_word_tokenizer
from thriftune.tasks.base import Batch, Encoded, Prediction, Predictor, Request
from thriftune.tasks.batches import READ_BATCH_TOKENS, pad, ragged, sorted_batches
from thriftune.tasks.encoder import EncoderTask, exact
from thriftune.tasks.targets import read_list, write_tags

IGNORED = -100
UNKNOWN = -1  # at a word whose tag is not given, or is none of the task's
NO_UNKNOWN_TOKEN = "?"  # stands for a word that a tokenizer without an unknown token reads nothing of


@dataclass(frozen=True)
class TagTask(EncoderTask):
    """Sentences as lists of words in, one of `labels` for each word out.

    A word's tag is learned and read at its first token; its other tokens do not count (Devlin et al., "BERT", 2019,
    section 5.3). The loss is the cross-entropy summed over the words that count; what it is divided by is their
    number. A word of which the tokenizer reads nothing, such as a lone control character, is read as unknown, so that
    every word has a first token. Words beyond `max_tokens` are counted in `Encoded.cut_words`; in answers and in
    metrics they are `O`.
    """

    name = "tag"
    head = "token"

    @cached_property
    def _tokenizer(self) -> Any:
        return load_word_tokenizer(self.model.path)

    def encode(self, frame: pl.DataFrame) -> Encoded:
        targets = tuple(frame["target"])
        tags = [[self._index.get(tag, UNKNOWN) for tag in read_list(target)] for target in targets]
        return self.encode_words(frame["tokens"].to_list(), tags, targets)

    def encode_words(
        self, sentences: Sequence[list[str]], tags: Sequence[list[int]] | None = None, targets: tuple[str, ...] = ()
    ) -> Encoded:
        """Sentences as the model reads them, with the tag of each word at its first token."""
        whole, kept = self._read(sentences, is_split_into_words=True)
        readable = self._readable(sentences, whole)
        if readable is not None:
            whole, kept = self._read(readable, is_split_into_words=True)
        tokens, offsets, _, _ = ragged([one.ids for one in kept], self.max_tokens)
        labels = np.full(len(tokens), IGNORED, dtype=np.int64)
        counted, cut_words = np.zeros(len(kept)), 0
        for row, (one, words) in enumerate(zip(kept, sentences, strict=True)):
            firsts = _first_tokens(one.word_ids)
            known = (
                np.full(len(firsts), UNKNOWN) if tags is None else np.array(tags[row][: len(firsts)], dtype=np.int64)
            )
            labels[offsets[row] + firsts] = known
            counted[row] = (known >= 0).sum()
            cut_words += len(words) - len(firsts)
        cut = [len(all_) - len(some) for all_, some in zip(whole, kept, strict=True)]
        return Encoded(
            tokens, offsets, labels, counted, sum(cut), sum(one > 0 for one in cut), cut_words, targets=targets
        )

    def _readable(self, sentences: Sequence[list[str]], whole: Sequence[Any]) -> list[list[str]] | None:
        """The sentences with an unknown word for each of which the tokenizer reads nothing; None if there is none."""
        readable: list[list[str]] | None = None
        for row, (words, one) in enumerate(zip(sentences, whole, strict=True)):
            silent = set(range(len(words))).difference(one.word_ids)
            if silent:
                unknown = self._tokenizer.unk_token or NO_UNKNOWN_TOKEN
                readable = list(sentences) if readable is None else readable
                readable[row] = [unknown if place in silent else word for place, word in enumerate(words)]
        return readable

    def batch(self, encoded: Encoded, rows: NDArray[np.int64]) -> Batch:
        return self.inputs(encoded, rows) | {"labels": self._padded_labels(encoded, rows)}

    def _padded_labels(self, encoded: Encoded, rows: NDArray[np.int64]) -> torch.Tensor:
        return pad(encoded.labels, encoded, rows, IGNORED, self._tokenizer.padding_side)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits = exact(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits)
        counted = batch["labels"] >= 0
        return functional.cross_entropy(
            logits[counted], batch["labels"][counted], reduction="sum", label_smoothing=self.label_smoothing
        )

    @torch.inference_mode()
    def word_logits(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> list[torch.Tensor]:
        """(rows,) tensors of (words that were read, labels) in fp32."""
        training = model.training
        model.eval()
        device = next(model.parameters()).device
        found: list[torch.Tensor | None] = [None] * len(encoded)
        for rows in sorted_batches(encoded.lengths, batch_tokens):
            batch = {name: tensor.to(device) for name, tensor in self.inputs(encoded, rows).items()}
            logits = model(**batch).logits.float().cpu()
            firsts = self._padded_labels(encoded, rows) != IGNORED
            for row, one, places in zip(rows, logits, firsts, strict=True):
                found[row] = one[places]
        model.train(training)
        return cast(list[torch.Tensor], found)

    def tags(self, logits: torch.Tensor, words: int) -> list[str]:
        """The likeliest tag of each word that was read, `O` for the others."""
        read = [self.labels[place] for place in logits.argmax(dim=1).tolist()]
        return read + [tagging.OUTSIDE] * (words - len(read))

    def validate(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> dict[str, float]:
        logits = self.word_logits(model, encoded, batch_tokens)
        given = torch.from_numpy(encoded.labels[encoded.labels != IGNORED])
        known = given >= 0
        loss = functional.cross_entropy(torch.cat(logits)[known], given[known]).item()
        targets = [read_list(target) for target in encoded.targets]
        outputs = [self.tags(one, len(target)) for one, target in zip(logits, targets, strict=True)]
        return {"loss": loss} | tagging.scores(targets, outputs)

    def predictor(self, model: torch.nn.Module, name: str) -> TagPredictor:
        return TagPredictor(name, self, model)

    def untuned(self) -> Predictor:
        """There is none: an encoder's embeddings say nothing of tags, and a head at random would be a straw man."""
        raise NotImplementedError("no untuned encoder tags words; `tasks/kinds.py` names the baselines that there are")


@dataclass(frozen=True)
class TagPredictor:
    """An encoder with its head."""

    name: str
    task: TagTask
    model: torch.nn.Module
    batch_tokens: int = READ_BATCH_TOKENS

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """The tags of each sentence's words."""
        sentences = [cast(list[str], request) for request in requests]
        encoded = self.task.encode_words(sentences)
        logits = self.task.word_logits(self.model, encoded, self.batch_tokens)
        answers = zip(logits, sentences, strict=True)
        return [Prediction(write_tags(self.task.tags(one, len(words)))) for one, words in answers]


def _first_tokens(word_ids: list[int | None]) -> NDArray[np.int64]:
    """The places of the first token of each word."""
    words = np.array([-1 if word is None else word for word in word_ids])
    return np.flatnonzero((words >= 0) & (words != np.concatenate([[-1], words[:-1]])))
