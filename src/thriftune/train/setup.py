"""From options and splits to the work: the task with every "auto" resolved, and the rows as its model reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from thriftune.errors import BadInput
from thriftune.models.adapters import LoraShape
from thriftune.models.quantised import require_quantisation
from thriftune.models.reference import ModelFolder, resolve
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.chat import ChatTask
from thriftune.tasks.classify import ClassifyTask
from thriftune.tasks.kinds import Method, kind_of
from thriftune.train.options import TrainOptions
from thriftune.train.recipe import Phase
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
    if method == "qlora":
        require_quantisation()
    phases = _phases(model, options, method)
    task, encoded = MAKERS[task_name](model, options, seed, train)
    if "id" in train.columns:
        encoded = replace(encoded, ids=tuple(train["id"]))
    chosen = watch if watch in kind.watched else kind.watched[0]
    recipe = recipe_of(options, task, len(train), seed, chosen, model.parameters, phases)
    return Work(task, encoded, task.encode(validation), recipe, data_hash, model.hidden_size)


def _phases(model: ModelFolder, options: TrainOptions, method: Method) -> tuple[Phase, ...]:
    """The phases of gradual unfreezing, checked against the model."""
    phases = options.phases_for(model.layers)
    if phases and (method == "head" or phases[0].frozen >= model.layers):
        raise BadInput(
            "there is nothing to unfreeze gradually",
            where="train.unfreeze",
            found=f"method {method}, {phases[0].frozen} of {model.layers} layers frozen at first",
            expected=f"at most {model.layers - 1} frozen layers, and a method that trains them",
            way_out="freeze fewer layers, name another method, or leave train.unfreeze out",
        )
    return phases


def _frozen_to_the_end(model: ModelFolder, options: TrainOptions) -> int:
    phases = options.phases_for(model.layers)
    return phases[-1].frozen if phases else options.freeze_layers


def _adapters(options: TrainOptions, task_name: str) -> LoraShape | None:
    """The adapters of the method; None where it has none."""
    method, lora = options.method_for(task_name), options.lora
    if method not in {"lora", "dora", "qlora"}:
        return None
    return LoraShape(lora.rank, lora.alpha, lora.dropout, dora=method == "dora", quantised=method == "qlora")


def _class_weights(options: TrainOptions, labels: tuple[str, ...], train: pl.DataFrame) -> tuple[float, ...] | None:
    """What a row of each label counts: as stated, or inversely to the label's share (King and Zeng, 2001)."""
    stated = options.class_weights
    if isinstance(stated, dict):
        if sorted(stated) != sorted(labels) or min(stated.values()) <= 0:
            raise BadInput(
                "every label needs a weight above 0",
                where="train.class_weights",
                found=", ".join(f"{label}: {weight:g}" for label, weight in stated.items()) or "nothing",
                expected=f"a number for each of {', '.join(labels)}",
                way_out="name each label of the training data once, or say balanced",
            )
        return tuple(stated[label] for label in labels)
    if stated == "none":
        return None
    counts = dict(train["target"].value_counts().iter_rows())
    return tuple(len(train) / (len(labels) * counts[label]) for label in labels)


def _limit(model: ModelFolder, options: TrainOptions, task_name: str) -> int:
    longest = kind_of(task_name).longest
    return min(options.max_tokens or longest, model.max_positions or longest)


def _classify(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
    labels = tuple(sorted(train["target"].unique()))
    task = ClassifyTask(
        model=model,
        labels=labels,
        seed=seed,
        max_tokens=_limit(model, options, "classify"),
        dropout=options.dropout_rate,
        label_smoothing=options.label_smoothing,
        frozen_layers=_frozen_to_the_end(model, options),
        head_only=options.method_for("classify") == "head",
        lora=_adapters(options, "classify"),
        class_weights=_class_weights(options, labels, train),
    )
    return task, task.encode(train)


def _chat(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
    task = ChatTask(
        model=model,
        seed=seed,
        max_tokens=_limit(model, options, "chat"),
        lora=_adapters(options, "chat"),
        frozen_layers=_frozen_to_the_end(model, options),
    )
    encoded = task.encode(train)
    longest = int(np.ceil(np.quantile(encoded.weights, ANSWER_QUANTILE))) + 1
    return replace(task, max_new_tokens=min(longest, MOST_NEW_TOKENS)), encoded


MAKERS = {"classify": _classify, "chat": _chat}
