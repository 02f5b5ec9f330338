"""What a predictor may offer beyond `predict`, so that a chat service can stream, count and limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from thriftune.tasks.base import Prediction, Request


@runtime_checkable
class StreamingPredictor(Protocol):
    """A predictor that answers token by token.

    All methods are called on the one thread that owns the model. Between two pieces of a stream that thread may
    call `predict` or advance another stream, so a stream keeps its state (cache, random generator) to itself.
    """

    @property
    def name(self) -> str:
        """Short name, as shown in reports."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """The longest answer, in tokens, when a request names no limit."""
        ...

    @property
    def context_tokens(self) -> int:
        """The most tokens, prompt and answer together, that the model reads."""
        ...

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One greedy answer a request, in order."""
        ...

    def count_tokens(self, request: Request) -> int:
        """Tokens of the prompt as the model reads it, chat template included."""
        ...

    def stream(self, request: Request, max_tokens: int, temperature: float, seed: int | None) -> Iterator[str]:
        """The answer, one piece of text for each generated token (the end token excepted).

        Args:
            request: the conversation.
            max_tokens: at most so many pieces.
            temperature: 0 is greedy; above it, sampling.
            seed: makes sampling repeatable; None draws anew.

        Returns:
            Pieces that, joined, are the answer. A piece is empty where a token does not yet complete a character.
            Closing the iterator early ends the generation.
        """
        ...
