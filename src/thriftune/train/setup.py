"""From options and splits to the work: the task with every "auto" resolved, and the rows as its model reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thriftune.errors import BadInput
from thriftune.models.adapters import LoraShape
from thriftune.models.quantised import require_quantisation
from thriftune.models.reference import ModelFolder, resolve
from thriftune.tasks.base import SOURCE_ROW, Encoded, Task
from thriftune.tasks.chat import IGNORED, ChatTask
from thriftune.tasks.classify import ClassifyTask
from thriftune.tasks.encoder import EncoderTask
from thriftune.tasks.heads import Heads
from thriftune.tasks.kinds import Method, kind_of
from thriftune.tasks.multilabel import MultilabelTask
from thriftune.tasks.prefer import PreferTask, sides_of
from thriftune.tasks.pretrain import PretrainTask
from thriftune.tasks.tag import TagTask
from thriftune.tasks.targets import classes_of
from thriftune.train.options import TrainOptions
from thriftune.train.recipe import Phase
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
    parts: tuple[str, ...] = (),
    by_part: bool = False,
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
        by_part: whether each part has a head of its own.

    Raises:
        BadInput: the model cannot be used or is of the wrong kind, or a part has too few labels for a head.
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
    if by_part:
        heads = Heads.of(train, parts, task_name)
        task, encoded = _encoder(ENCODERS[task_name], heads)(model, options, seed, train)
    else:
        task, encoded = MAKERS[task_name](model, options, seed, train)
    if "id" in train.columns:
        names = train["id"].to_numpy()
        encoded = replace(encoded, ids=tuple(names[encoded.facts.get(SOURCE_ROW, np.arange(len(names)))]))
    chosen = watch if watch in kind.watched else kind.watched[0]
    fresh = len(task.labels) if isinstance(task, EncoderTask) and task.fresh_head else 0
    recipe = recipe_of(options, task, len(encoded), seed, chosen, model, parts, phases, fresh)
    encoded, held_out = (
        replace(rows, parts=numbers_of_parts(rows, frame, parts))
        for rows, frame in ((encoded, train), (task.encode(validation), validation))
    )
    return Work(task, encoded, held_out, recipe, data_hash, model.hidden_size, model.layers)


def numbers_of_parts(encoded: Encoded, frame: pl.DataFrame, parts: tuple[str, ...]) -> NDArray[np.int64] | None:
    """(encoded rows,) the number of each row's part; None where the data is one.

    Raises:
        BadInput: a part has no rows here.
    """
    if not parts:
        return None
    numbers = frame["part"].replace_strict({name: number for number, name in enumerate(parts)}, return_dtype=pl.Int64)
    there = set(numbers.unique())
    missing = [name for number, name in enumerate(parts) if number not in there]
    if missing:
        raise BadInput(
            "a part of the data has no rows on one side of the split",
            where=f"data, part: {missing[0]}",
            found=f"none of {len(frame)} rows",
            expected="rows to train on and rows to validate by",
            way_out="give it more rows, or leave the part out",
        )
    found = numbers.to_numpy()
    return found[encoded.facts[SOURCE_ROW]] if SOURCE_ROW in encoded.facts else found


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


def _class_weights(
    options: TrainOptions,
    labels: tuple[str, ...],
    train: pl.DataFrame,
    make: type[EncoderTask],
    heads: Heads | None = None,
) -> tuple[float, ...] | None:
    """What a row of each label counts: as stated, or inversely to the label's share (King and Zeng, 2001), with several
    heads its share of its own part's rows."""
    stated = options.class_weights
    if stated != "none" and make is not ClassifyTask:
        raise BadInput(
            "weights of classes are for one label a text",
            where="train.class_weights",
            found=f"task {make.name}",
            expected="task classify",
            way_out="leave train.class_weights out",
        )
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
    if heads is not None:
        parts = zip(heads.parts, heads.labels, strict=True)
        return tuple(weight for part, own in parts for weight in _balanced(train.filter(train["part"] == part), own))
    return _balanced(train, labels)


def _balanced(train: pl.DataFrame, labels: tuple[str, ...]) -> tuple[float, ...]:
    counts = dict(train["target"].value_counts().iter_rows())
    return tuple(len(train) / (len(labels) * counts[label]) for label in labels)


def _limit(model: ModelFolder, options: TrainOptions, task_name: str) -> int:
    longest = kind_of(task_name).longest
    return min(options.max_tokens or longest, model.max_positions or longest)


def _encoder(
    make: type[EncoderTask], heads: Heads | None = None
) -> Callable[[ModelFolder, TrainOptions, int, pl.DataFrame], tuple[Task, Encoded]]:
    """The maker of an encoder's task, with one head or with several."""

    def made(model: ModelFolder, options: TrainOptions, seed: int, train: pl.DataFrame) -> tuple[Task, Encoded]:
        labels = tuple(sorted(classes_of(train["target"], make.name).explode().drop_nulls().unique()))
        if heads is not None:
            labels = heads.columns
        weights = _class_weights(options, labels, train, make, heads)
        task = make(
            model=model,
            labels=labels,
            seed=seed,
            max_tokens=_limit(model, options, make.name),
            dropout=options.dropout_rate,
            label_smoothing=options.label_smoothing,
            frozen_layers=_frozen_to_the_end(model, options),
            head_only=options.method_for(make.name) == "head",
            lora=_adapters(options, make.name),
            heads=heads,
            **({"class_weights": weights} if weights else {}),
        )
        return cast(Task, task), cast(Task, task).encode(train)

    return made


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
    return kind(
        model=model,
        seed=seed,
        max_tokens=_limit(model, options, kind.name),
        lora=_adapters(options, kind.name),
        frozen_layers=_frozen_to_the_end(model, options),
        **more,
    )


def _longest_answer(tokens: NDArray[Any]) -> int:
    """How long a generated answer may be, by the training answers' tokens."""
    longest = int(np.ceil(np.quantile(tokens, ANSWER_QUANTILE))) + 1
    return min(longest, MOST_NEW_TOKENS)


ENCODERS: dict[str, type[EncoderTask]] = {task.name: task for task in (ClassifyTask, MultilabelTask, TagTask)}
MAKERS = {name: _encoder(task) for name, task in ENCODERS.items()} | {
    "chat": _chat,
    "prefer": _prefer,
    "pretrain": _pretrain,
}
