"""A task as a managed model does it: what it is taught, what it is asked, and what its answers mean."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from thriftune.managed.backends import Opened, open_backend, opened_again, thinking_of
from thriftune.managed.predictor import ManagedPredictor
from thriftune.managed.types import Question
from thriftune.money.tokens import TokenMeter
from thriftune.tasks.base import Message, Request
from thriftune.tasks.kinds import kind_of

FILE = "thriftune-managed.json"  # in an artifact's folder: the endpoint, and all that asking it needs
ROLES = {"user": "user", "assistant": "model"}
LABELS_FIRST = "Answer with exactly one of these labels: "
ANSWER_QUANTILE = 0.98  # of the training answers: how long a generated answer may be
MOST_NEW_TOKENS = 1024


@dataclass(frozen=True)
class ManagedTask:
    """What differs between the tasks that a managed model can be tuned for.

    Args:
        task: its name.
        reference: the base model, as the project file names it.
        max_new_tokens: the longest answer.
        labels: of a classifier, in order; none where answers are free.
        meter: buys the tokens of answers; None where they are on the caller's account, as in a service.
    """

    task: str
    reference: str
    max_new_tokens: int
    labels: tuple[str, ...] = ()
    meter: TokenMeter | None = None

    def question(self, request: Request, limit: int | None = None, **more: Any) -> Question:
        """A request as the model is asked it."""
        messages: Sequence[Message] = (
            [{"role": "user", "content": request}] if isinstance(request, str) else cast("list[Message]", request)
        )
        said = [message["content"] for message in messages if message["role"] == "system"]
        if self.labels:
            said.append(LABELS_FIRST + ", ".join(self.labels))
        turns = tuple(
            (ROLES[message["role"]], message["content"]) for message in messages if message["role"] != "system"
        )
        return Question(
            "\n\n".join(said),
            turns,
            limit or self.max_new_tokens,
            self.labels,
            thinking=thinking_of(self.reference),
            **more,
        )

    def lines(self, requests: Sequence[Request], targets: Sequence[str]) -> bytes:
        """Training rows as JSON lines, in the format of Vertex AI's supervised tuning."""
        rows = [example(self.question(asked), target) for asked, target in zip(requests, targets, strict=True)]
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()

    def describe(self) -> dict[str, Any]:
        """What determines what is taught and asked, for recipe keys."""
        return {
            "task": self.task,
            "reference": self.reference,
            "max_new_tokens": self.max_new_tokens,
            "labels": list(self.labels),
        }

    def untuned(self) -> ManagedPredictor:
        """The base model, asked in the same way."""
        return self.predictor(open_backend(self.reference), "untuned")

    def load(self, folder: Path) -> Opened:
        """The tuned model's endpoint."""
        about = json.loads((folder / FILE).read_text())
        return opened_again(about["reference"], about["endpoint"], about["place"])

    def predictor(self, model: Opened, name: str) -> ManagedPredictor:
        """A model that answers."""
        return ManagedPredictor(name, model, self.question, self.max_new_tokens, self.meter)


def example(question: Question, target: str) -> dict[str, Any]:
    """A training row: a question with its answer."""
    turns = [*question.turns, ("model", target)]
    row: dict[str, Any] = {"contents": [{"role": role, "parts": [{"text": text}]} for role, text in turns]}
    if question.system:
        row = {"systemInstruction": {"role": "system", "parts": [{"text": question.system}]}} | row
    return row


def task_of(name: str, reference: str, targets: Sequence[str], meter: TokenMeter | None) -> ManagedTask:
    """The task with what its training rows tell: the labels, or how long answers are.

    Args:
        name: the task's name.
        reference: the base model.
        targets: of the training rows.
        meter: buys answers.
    """
    if kind_of(name).classes:
        labels = tuple(sorted(set(targets)))
        return ManagedTask(name, reference, max(len(label.encode()) for label in labels) + 1, labels, meter)
    # Bytes stand in for tokens, of which there are fewer: an answer is never cut that a training answer's length fits.
    sizes = sorted(len(target.encode()) for target in targets)
    longest = sizes[min(len(sizes) - 1, math.ceil(ANSWER_QUANTILE * len(sizes)))]
    return ManagedTask(name, reference, min(longest + 1, MOST_NEW_TOKENS), (), meter)


def save(task: ManagedTask, endpoint: str, place: dict[str, str], job: str, steps: Sequence[str], folder: Path) -> None:
    """Write what `open_predictor` reads into an empty folder.

    Args:
        task: what the model was tuned for.
        endpoint: of the tuned model.
        place: where its provider has it: no secret.
        job: the tuning job's name.
        steps: the preparation steps that a service repeats.
        folder: the artifact's.
    """
    about = task.describe() | {"endpoint": endpoint, "place": place, "job": job, "serving_steps": list(steps)}
    (folder / FILE).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def is_managed_folder(folder: Path) -> bool:
    """Whether `save` wrote a folder."""
    return (folder / FILE).is_file()


def open_predictor(folder: Path) -> tuple[str, ManagedPredictor, list[str]]:
    """The task's name, the tuned model as a predictor, and the preparation steps that a service repeats.

    Raises:
        BadInput: the provider's client is not installed, or there are no credentials.
    """
    about = json.loads((folder / FILE).read_text(encoding="utf-8"))
    task = ManagedTask(about["task"], about["reference"], about["max_new_tokens"], tuple(about["labels"]))
    return task.task, task.predictor(task.load(folder), "tuned"), about["serving_steps"]
