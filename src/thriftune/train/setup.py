"""From options and splits to the work: the task with every "auto" resolved, and the rows as its model reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thriftune.errors import BadInput
from thriftune.models.reference import ModelFolder, resolve
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.chat import ChatTask, LoraShape
from thriftune.tasks.classify import ClassifyTask
from thriftune.tasks.encoder import EncoderTask
from thriftune.tasks.kinds import kind_of
from thriftune.tasks.multilabel import MultilabelTask
from thriftune.tasks.tag import TagTask
from thriftune.tasks.targets import classes_of
from thriftune.train.options import TrainOptions
from thriftune.train.train import Work, recipe_of

ANSWER_QUANTILE = 0.98  # of the training answers' tokens: how long a generated answer may be
MOST_NEW_TOKENS = 256


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
    parts: tuple[str, ...] = (),
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
        parts: the names of the data's parts, in their order; none where the data is one.

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
    recipe = recipe_of(options, task, len(train), seed, chosen, model.parameters, parts)
    encoded, held_out = (
        replace(rows, parts=numbers_of_parts(frame, parts))
        for rows, frame in ((encoded, train), (task.encode(validation), validation))
    )
    return Work(task, encoded, held_out, recipe, data_hash, model.hidden_size)


def numbers_of_parts(frame: pl.DataFrame, parts: tuple[str, ...]) -> NDArray[np.int64] | None:
    """(rows,) the number of each row's part; None where the data is one.

    Raises:
        BadInput: a part has no rows here.
    """
    if not parts:
        return None
    numbers = frame["part"].replace_strict({name: number for number, name in enumerate(parts)}, return_dtype=pl.Int64)
    missing = [name for number, name in enumerate(parts) if number not in set(numbers)]
    if missing:
        raise BadInput(
            "a part of the data has no rows on one side of the split",
            where=f"data, part: {missing[0]}",
            found=f"none of {len(frame)} rows",
            expected="rows to train on and rows to validate by",
            way_out="give it more rows, or leave the part out",
        )
    return numbers.to_numpy()


def _limit(model: ModelFolder, options: TrainOptions, task_name: str) -> int:
    longest = kind_of(task_name).longest
    return min(options.max_tokens or longest, model.max_positions or longest)


def _encoder(make: type[EncoderTask]) -> Callable[[ModelFolder, TrainOptions, int, pl.DataFrame], tuple[Task, Encoded]]:
    """The maker of an encoder's task."""

    def made(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
        task = cast(
            Task,
            make(
                model=model,
                labels=tuple(sorted(classes_of(train["target"], make.name).explode().drop_nulls().unique())),
                seed=seed,
                max_tokens=_limit(model, options, make.name),
                dropout=options.dropout,
                label_smoothing=options.label_smoothing,
                frozen_layers=options.freeze_layers,
                head_only=options.method_for(make.name) == "head",
            ),
        )
        return task, task.encode(train)

    return made


def _chat(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
    shape = LoraShape(options.lora.rank, options.lora.alpha, options.lora.dropout)
    task = ChatTask(
        model=model,
        seed=seed,
        max_tokens=_limit(model, options, "chat"),
        lora=shape if options.method_for("chat") == "lora" else None,
        frozen_layers=options.freeze_layers,
    )
    encoded = task.encode(train)
    longest = int(np.ceil(np.quantile(encoded.weights, ANSWER_QUANTILE))) + 1
    return replace(task, max_new_tokens=min(longest, MOST_NEW_TOKENS)), encoded


MAKERS = {task.name: _encoder(task) for task in (ClassifyTask, MultilabelTask, TagTask)} | {"chat": _chat}
