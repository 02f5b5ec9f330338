"""The two cuts that keep twins away: a `Task` is all that differs between kinds of fine-tuning, and a `Predictor`
is anything that answers a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch
    from numpy.typing import NDArray


class Message(TypedDict):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


Content = str | list[str] | list[Message]


@dataclass(frozen=True)
class OfPart:
    """A request to a model with a head for each part of its data, with the part whose labels shall answer it."""

    part: str
    content: Content


Request = Content | OfPart
"""What a predictor is asked: a text to classify, the words of a sentence, or the turns of a conversation to answer."""


@dataclass(frozen=True)
class Prediction:
    """An answer in the form of a target: a label, a list of them (`tasks/targets.py`) or a text; and for a classifier
    of texts the probability of each label."""

    output: str
    scores: dict[str, float] = field(default_factory=dict)
    tokens: int = 0  # generated tokens, for a decoder


class Predictor(Protocol):
    """Anything that answers: majority, TF-IDF, an untuned model, a tuned one, a managed endpoint."""

    @property
    def name(self) -> str:
        """Short name, as shown in reports: `tfidf`, `majority`, `untuned`, `tuned`."""
        ...

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One prediction a request, in order."""
        ...


@runtime_checkable
class PartPredictor(Protocol):
    """A predictor that may have a head for each part of its data; it is then asked with `OfPart`."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts; none where it has one head."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Rows as a model reads them, ragged, in three flat arrays.

    Args:
        tokens: (total tokens,) int32 token ids, row after row.
        offsets: (rows + 1,) int64; row i is `tokens[offsets[i]:offsets[i + 1]]`.
        labels: classification: (rows,) int64 class indices, or with any number of labels a text (rows, labels) of 0 and
            1. Generation and tagging: (total tokens,) int64, the token's or the tag's id at positions that count
            towards the loss and -100 elsewhere.
        weights: (rows,) float64, what each row counts in the loss's denominator (1 a row, or its counted tokens).
        cut_tokens: how many tokens were cut because a row was longer than the model reads.
        cut_rows: how many rows were cut.
        parts: (rows,) int64, the number of the part that each row is of, where the data has several.
        cut_words: how many words were cut with them, of rows that are given as words.
        targets: the rows' targets, where a task's metrics need more of them than `labels` holds.
        facts: what else the task knows of each row, by name: (rows, …); `SOURCE_ROW` where several rows come of one.
        ids: the rows' names in the corpus, where known.
        packed: whether a batch has its rows one behind the other, so that hardly anything in it is padding.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    cut_tokens: int = 0
    cut_rows: int = 0
    cut_words: int = 0
    targets: tuple[str, ...] = ()
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    parts: NDArray[np.int64] | None = None
    ids: tuple[str, ...] | None = None
    packed: bool = False

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(rows,) tokens a row."""
        return self.offsets[1:] - self.offsets[:-1]

    def __len__(self) -> int:
        return len(self.offsets) - 1


Batch = dict[str, "torch.Tensor"]

SOURCE_ROW = "source row"  # the fact which of the encoded frame's rows a row comes of
TASK_FILE = "thriftune-task.json"  # in a saved model's folder: what `Task.describe` says


class Answerer(Protocol):
    """What of a task is left where its model is trained: the model as it came and as it was tuned, as predictors."""

    def untuned(self) -> Predictor:
        """The model without any tuning, as a predictor."""
        ...

    def load(self, folder: Path) -> Any:
        """The tuned model that a folder holds, ready to answer."""
        ...

    def predictor(self, model: Any, name: str) -> Predictor:
        """A model that `load` made, as a predictor."""
        ...

    def describe(self) -> dict[str, Any]:
        """What determines its answers, beside the tuning: plain JSON values."""
        ...


class Task(Protocol):
    """All that differs between classification, chat and what follows: encode, batch, loss, decode, metrics."""

    @property
    def name(self) -> str:
        """The task's name in the project file: `classify`, `chat`."""
        ...

    def build(self) -> torch.nn.Module:
        """The model to train, in fp32 on the CPU, with what is frozen marked `requires_grad=False`."""
        ...

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """Token ids and labels of the frame's rows."""
        ...

    def batch(self, encoded: Encoded, rows: NDArray[np.int64]) -> Batch:
        """The padded tensors of some rows."""
        ...

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The loss summed (not averaged) over what counts: rows, or answer tokens; a scalar with gradient."""
        ...

    def validate(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> dict[str, float]:
        """`loss` (mean over what counts) and the task's metrics that need no generation, on held-out rows."""
        ...

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Write all that answering needs (weights as safetensors, tokenizer, task) into an empty folder."""
        ...

    def load(self, folder: Path) -> torch.nn.Module:
        """The tuned model that `save` wrote, ready to answer."""
        ...

    def untuned(self) -> Predictor:
        """The model without any tuning, as a predictor."""
        ...

    def predictor(self, model: torch.nn.Module, name: str) -> Predictor:
        """The model as a predictor."""
        ...

    def describe(self) -> dict[str, Any]:
        """What determines this task's encoding and model, for recipe keys: plain JSON values."""
        ...
