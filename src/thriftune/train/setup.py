"""From options and splits to the work: the task with every "auto" resolved, and the rows as its model reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from thriftune.errors import BadInput
from thriftune.models.reference import ModelFolder, resolve
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.chat import ChatTask, LoraShape
from thriftune.tasks.classify import ClassifyTask
from thriftune.train.options import TrainOptions
from thriftune.train.train import Work, recipe_of

KIND = {"classify": "encoder", "chat": "decoder"}
METHODS = {"classify": ("full", "head"), "chat": ("lora", "full")}
LONGEST = {"classify": 512, "chat": 1024}  # tokens a row where the model would read more: memory grows with them
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
) -> Work:
    """The work of one model on one task.

    Args:
        task_name: `classify` or `chat`.
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
    if model.kind != KIND[task_name]:
        raise BadInput(
            f"task {task_name} needs another kind of model",
            where=f"models: {reference}",
            found=f"{model.architecture}, {'an' if model.kind == 'encoder' else 'a'} {model.kind}",
            expected=f"{'an' if task_name == 'classify' else 'a'} {KIND[task_name]}",
            way_out="name another model, or change objective.task",
        )
    method = options.method_for(task_name)
    if method not in METHODS[task_name]:
        raise BadInput(
            f"this method is not there for task {task_name} yet",
            where="train.method",
            found=method,
            expected=" or ".join(METHODS[task_name]),
            way_out="name one of these, or leave it out",
        )
    make = _classify if task_name == "classify" else _chat
    task, encoded = make(model, options, seed, train)
    figures = {"accuracy", "f1_macro", "f1_micro", "precision_macro", "recall_macro"} if task_name == "classify" else ()
    usual = task.primary_metric if figures else "loss"
    chosen = watch if watch is not None and watch in figures else usual
    recipe = recipe_of(options, task, len(train), seed, chosen, model.parameters)
    return Work(task, encoded, task.encode(validation), recipe, data_hash, model.hidden_size)


def _limit(model: ModelFolder, options: TrainOptions, task_name: str) -> int:
    return min(options.max_tokens or LONGEST[task_name], model.max_positions or LONGEST[task_name])


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
