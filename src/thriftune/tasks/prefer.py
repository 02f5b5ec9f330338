"""Preference tuning of a decoder: of two answers to a prompt, the chosen one is to become likelier than the other.

Source: Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from thriftune.tasks.base import Batch, Encoded, Message, Request
from thriftune.tasks.chat import IGNORED, ChatTask, DecoderPredictor, answer_losses, as_messages


@dataclass(frozen=True)
class PreferTask(ChatTask):
    """Prompts with a chosen and a rejected answer in, a decoder that finds the chosen one likelier out.

    The reference is the model with its adapters off, in evaluation mode, so that there is no second model in memory:
    LoRA is the only method. Its log-likelihoods never change, but they are computed in each step, without gradients:
    that costs one forward pass a step, and a resumed run needs nothing but its checkpoint to go on to the same weights.

    A row of `Encoded` is a pair: the tokens of the prompt with the chosen answer, then those of the prompt with the
    rejected one; `facts["chosen_tokens"]` says where the second begins. In a batch they are two rows, one below the
    other, so a batch of n pairs has (2n, longest) tensors.

    Args:
        beta: how much a nat of the margin over the reference's weighs; a small one lets the model go further from it.
        label_smoothing: the share of pairs that are taken to be labelled the wrong way round (Mitchell, "A note on
            DPO with noisy preferences", 2023).
    """

    beta: float = 0.1
    label_smoothing: float = 0.0

    name = "prefer"
    packed = False

    def encode(self, frame: pl.DataFrame) -> Encoded:
        return self.encode_preferences(
            frame["messages"].to_list(), frame["target"].to_list(), frame["rejected"].to_list()
        )

    def encode_preferences(
        self, conversations: Sequence[list[Message]], chosen: Sequence[str], rejected: Sequence[str]
    ) -> Encoded:
        """Conversations with both answers; each side is cut at `max_tokens`, and a pair counts 1 in the loss."""
        twice = [messages for messages in conversations for _ in range(2)]
        answers = [answer for pair in zip(chosen, rejected, strict=True) for answer in pair]
        sides = self.encode_pairs(twice, answers)
        return Encoded(
            sides.tokens,
            sides.offsets[::2],
            sides.labels,
            np.ones(len(conversations)),
            sides.cut_tokens,
            sides.cut_rows,
            facts={"chosen_tokens": sides.lengths[::2]},
        )

    def batch(self, encoded: Encoded, rows: NDArray[np.int64]) -> Batch:
        sides = sides_of(encoded)
        return self.conversations(sides, np.stack([2 * rows, 2 * rows + 1], axis=1).reshape(-1))

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        rewards = self.beta * self._margins(model, batch)
        wrong = self.label_smoothing
        losses = -functional.logsigmoid(rewards) * (1 - wrong) - functional.logsigmoid(-rewards) * wrong
        return losses.sum()

    def _margins(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """(pairs,) how much more the model prefers the chosen answer than the reference does, in nats."""
        with torch.no_grad(), reference(model):
            before = log_likelihoods(model, batch)
        gained = log_likelihoods(model, batch) - before
        return gained[::2] - gained[1::2]

    def validate(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> dict[str, float]:
        sides = sides_of(encoded)
        losses_now = self.row_losses(model, sides, batch_tokens)
        with reference(model):
            gained = self.row_losses(model, sides, batch_tokens) - losses_now
        margins = gained[::2] - gained[1::2]
        rewards = self.beta * margins
        wrong = self.label_smoothing
        losses = (1 - wrong) * np.logaddexp(0, -rewards) + wrong * np.logaddexp(0, rewards)
        return {
            "loss": float(losses.mean()),
            "reward_accuracy": float((rewards > 0).mean()),
            "reward_margin": float(rewards.mean()),
        }

    def predictor(self, model: torch.nn.Module, name: str) -> JudgingPredictor:
        return JudgingPredictor(name, self, model)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"beta": self.beta, "label_smoothing": self.label_smoothing}


@dataclass(frozen=True)
class JudgingPredictor(DecoderPredictor):
    """A decoder that also says which of two answers it finds likelier."""

    def judge(
        self, requests: Sequence[Request], first: Sequence[str], second: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By how much it prefers each first answer.

        Returns:
            (rows,) the difference of the mean log-likelihoods a token, positive where it prefers the first: a sum
            over the tokens would mostly tell which answer is shorter; and (rows,) the difference of the sums.
        """
        conversations = [as_messages(request) for request in requests]
        sides = [self.task.encode_pairs(conversations, answers) for answers in (first, second)]
        ours, theirs = (-self.task.row_losses(self.model, side, self.batch_tokens) for side in sides)
        counted = [np.maximum(side.weights, 1.0) for side in sides]
        return ours / counted[0] - theirs / counted[1], ours - theirs


def sides_of(encoded: Encoded) -> Encoded:
    """The 2 × rows conversations of encoded pairs, chosen and rejected in turns."""
    ends = np.stack([encoded.offsets[:-1] + encoded.facts["chosen_tokens"], encoded.offsets[1:]], axis=1).reshape(-1)
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    return Encoded(encoded.tokens, offsets, encoded.labels, np.repeat(encoded.weights, 2))


def log_likelihoods(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """(rows,) log-likelihood of each row's counted tokens together."""
    losses = answer_losses(model, batch)
    row_of_loss = (batch["labels"][:, 1:] != IGNORED).nonzero()[:, 0]
    return torch.zeros(len(batch["labels"]), dtype=losses.dtype, device=losses.device).index_add(
        0, row_of_loss, -losses
    )


@contextmanager
def reference(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the model answers as it did before it was tuned: its adapters are off, and nothing is dropped."""
    training = model.training
    model.eval()
    try:
        with cast(Any, model).disable_adapter():
            yield
    finally:
        model.train(training)
