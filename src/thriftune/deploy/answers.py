"""What `/predict` is asked and what it answers, by what a task's targets are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from thriftune.deploy.bodies import sentences_of, texts_of
from thriftune.tasks.base import Prediction, Request
from thriftune.tasks.kinds import Target
from thriftune.tasks.targets import read_list


@dataclass(frozen=True)
class Form:
    """A task's requests and answers.

    Args:
        read: what is asked in a body: texts, or sentences as lists of words.
        write: an answer as JSON values.
    """

    read: Callable[[dict[str, Any]], Sequence[str | list[str]]]
    write: Callable[[Request, Prediction], dict[str, Any]]


def _label(_: Request, answer: Prediction) -> dict[str, Any]:
    return {"label": answer.output, "scores": answer.scores}


def _labels(_: Request, answer: Prediction) -> dict[str, Any]:
    return {"labels": read_list(answer.output), "scores": answer.scores}


def _tags(asked: Request, answer: Prediction) -> dict[str, Any]:
    return {"tokens": asked, "tags": read_list(answer.output)}


FORMS: dict[Target, Form] = {
    "whole": Form(texts_of, _label),
    "labels": Form(texts_of, _labels),
    "tags": Form(sentences_of, _tags),
}
