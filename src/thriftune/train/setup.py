"""From options and splits to the work: the task with every "auto" resolved, and the rows as its model reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thriftune.errors import BadInput
from thriftune.models.reference import ModelFolder, resolve
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.chat import IGNORED, ChatTask, LoraShape
from thriftune.tasks.classify import ClassifyTask
from thriftune.tasks.kinds import kind_of
from thriftune.tasks.prefer import PreferTask, sides_of
from thriftune.tasks.pretrain import PretrainTask
from thriftune.train.options import TrainOptions
from thriftune.train.train import Work, recipe_of

ANSWER_QUANTILE = 0.98  # of the training answers' tokens: how long a generated answer may be
MOST_NEW_TOKENS = 256

Decoder = TypeVar("Decoder", bound=ChatTask)


def work_of(
    task_name: str,
    reference: str,
    folder: Path,
    options: TrainOptions,
    seed: int,
    data_hash: str,
    train: pl.DataFrame,
    validation: pl.DataFrame,
    watch: str | None = None,
) -> Work:
    """The work of one model on one task.

    Args:
        task_name: a name in `tasks/kinds.py`.
        reference: the model.
        folder: what a relative model path is relative to.
        options: training's part of the project file.
        seed: the run's.
        data_hash: content hash of the splits.
        train: the training rows.
        validation: the validation rows.
        watch: the validation figure that chooses the best checkpoint; the loss where validation does not have it.

    Raises:
        BadInput: the model cannot be used, or is of the wrong kind.
    """
    model = resolve(reference, base=folder)
    kind = kind_of(task_name)
    if model.kind != kind.model:
        raise BadInput(
            f"task {task_name} needs another kind of model",
            where=f"models: {reference}",
            found=f"{model.architecture}, {'an' if model.kind == 'encoder' else 'a'} {model.kind}",
            expected=f"{'an' if kind.model == 'encoder' else 'a'} {kind.model}",
            way_out="name another model, or change objective.task",
        )
    method = options.method_for(task_name)
    if method not in kind.methods:
        raise BadInput(
            f"this method is not there for task {task_name} yet",
            where="train.method",
            found=method,
            expected=" or ".join(kind.methods),
            way_out="name one of these, or leave it out",
        )
    task, encoded = MAKERS[task_name](model, options, seed, train)
    chosen = watch if watch in kind.watched else kind.watched[0]
    recipe = recipe_of(options, task, len(encoded), seed, chosen, model.parameters)
    return Work(task, encoded, task.encode(validation), recipe, data_hash, model.hidden_size)


def _limit(model: ModelFolder, options: TrainOptions, task_name: str) -> int:
    longest = kind_of(task_name).longest
    return min(options.max_tokens or longest, model.max_positions or longest)


def _classify(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
    task = ClassifyTask(
        model=model,
        labels=tuple(sorted(train["target"].unique())),
        seed=seed,
        max_tokens=_limit(model, options, "classify"),
        dropout=options.dropout,
        label_smoothing=options.label_smoothing,
        frozen_layers=options.freeze_layers,
        head_only=options.method_for("classify") == "head",
    )
    return task, task.encode(train)


def _chat(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
    task = _decoder(ChatTask, model, options, seed)
    encoded = task.encode(train)
    return replace(task, max_new_tokens=_longest_answer(encoded.weights)), encoded


def _prefer(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
    if options.label_smoothing >= 0.5:
        raise BadInput(
            "half of the preferences or more would be taken to be wrong",
            where="train.label_smoothing",
            found=f"{options.label_smoothing:g}",
            expected="less than 0.5: the share of pairs that are labelled the wrong way round",
            way_out="lower it, or leave it out for 0",
        )
    task = _decoder(PreferTask, model, options, seed, beta=options.beta, label_smoothing=options.label_smoothing)
    encoded = task.encode(train)
    sides = sides_of(encoded)
    chosen = np.add.reduceat(sides.labels != IGNORED, sides.offsets[:-1])[::2]
    return replace(task, max_new_tokens=_longest_answer(chosen)), encoded


def _pretrain(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
    task = _decoder(PretrainTask, model, options, seed)
    return task, task.encode(train)


def _decoder(kind: type[Decoder], model: ModelFolder, options: TrainOptions, seed: int, **more: Any) -> Decoder:
    shape = LoraShape(options.lora.rank, options.lora.alpha, options.lora.dropout)
    return kind(
        model=model,
        seed=seed,
        max_tokens=_limit(model, options, kind.name),
        lora=shape if options.method_for(kind.name) == "lora" else None,
        frozen_layers=options.freeze_layers,
        **more,
    )


def _longest_answer(tokens: NDArray[Any]) -> int:
    """How long a generated answer may be, by the training answers' tokens."""
    return min(int(np.ceil(np.quantile(tokens, ANSWER_QUANTILE))) + 1, MOST_NEW_TOKENS)


MAKERS = {"classify": _classify, "chat": _chat, "prefer": _prefer, "pretrain": _pretrain}
