"""What a provider of managed tuning is asked and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

MARKS = 8  # tokens that stand around a turn; Gemma's open template, of the same makers, has 5
State = Literal["waiting", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """A tuning job as its provider tells of it.

    Args:
        name: the provider's own, by which it is found again.
        state: what it does.
        told: its state in the provider's words.
        message: why it failed, in the provider's words.
        endpoint: of the tuned model, once there is one.
        billable_tokens: of the training rows, once; None before the provider has counted.
        epochs_done: passes that are complete, where the provider tells.
        started: whether training has begun at any time.
    """

    name: str
    state: State
    told: str
    message: str = ""
    endpoint: str = ""
    billable_tokens: int | None = None
    epochs_done: int | None = None
    started: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Order:
    """A tuning job to create.

    Args:
        display_name: found again by it where the job's own name could not be recorded.
        description: for people who look at the provider's list of jobs.
        model: the base model.
        data: what `Backend.upload` answered.
        epochs: passes over the rows.
        adapter_rank: of the adapters; None for the provider's choice.
    """

    display_name: str
    description: str
    model: str
    data: str
    epochs: int
    adapter_rank: int | None


@dataclass(frozen=True)
class Question:
    """A request as a provider is asked.

    Args:
        system: the system prompt, or an empty text.
        turns: role (`user` or `model`) and text of each turn; the last is the user's.
        max_tokens: of the answer.
        choices: where the answer must be one of a few texts, these.
        temperature: 0 is greedy.
        seed: for sampling.
        thinking: tokens that the model may think before it answers; None where it is not told.
    """

    system: str
    turns: tuple[tuple[str, str], ...]
    max_tokens: int
    choices: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int | None = None
    thinking: int | None = None

    @property
    def most_output_tokens(self) -> int:
        """The most tokens of the answer, thoughts included."""
        return self.max_tokens + (self.thinking or 0)

    @property
    def most_input_tokens(self) -> int:
        """An upper bound of its tokens: a token has at least one byte, a turn's marks are at most `MARKS` tokens."""
        texts = (self.system, *(text for _, text in self.turns), *self.choices)
        return sum(len(text.encode()) + MARKS for text in texts)


@dataclass(frozen=True)
class Answer:
    """An answer, or a piece of one, and the tokens that are billed for all of it so far."""

    text: str
    input_tokens: int
    output_tokens: int


class Unavailable(Exception):
    """The provider did not answer, or asks to come back later.

    Args:
        told: what it said.
        after_seconds: when it asks to come back; None where it does not say.
    """

    def __init__(self, told: str, after_seconds: float | None = None) -> None:
        super().__init__(told)
        self.told = told
        self.after_seconds = after_seconds


class Backend(Protocol):
    """A provider. Every method raises `BadInput` for what waiting does not mend, and `Unavailable` for the rest."""

    def upload(self, content: bytes) -> str:
        """Put training rows (JSON lines) where a job reads them, once for each content; what a job calls the place."""
        ...

    def count(self, model: str, questions: Sequence[Question]) -> int:
        """Tokens of some questions, together."""
        ...

    def find(self, display_name: str) -> Job | None:
        """The job with a display name; None where there is none."""
        ...

    def create(self, order: Order) -> Job:
        """Begin a tuning job; never sent a second time by itself."""
        ...

    def get(self, name: str) -> Job:
        """A job, as it stands."""
        ...

    def cancel(self, name: str) -> None:
        """Ask to end a job; whether it does is seen by `get`."""
        ...

    def answer(self, model: str, question: Question) -> Answer:
        """A base model's or an endpoint's answer."""
        ...

    def stream(self, model: str, question: Question) -> Iterator[Answer]:
        """The same, piece by piece."""
        ...
