"""The ranks beside rank 0: they build the same work from the same files and do as they are ordered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from thriftune.errors import BadInput
from thriftune.tasks.base import Encoded
from thriftune.tasks.batches import take
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.options import TrainOptions
from thriftune.train.ranks import Group
from thriftune.train.schedule import Pace
from thriftune.train.setup import work_of
from thriftune.train.train import Work

Order = dict[str, Any]


def opening(work: Work, machine: Machine, task: str, reference: str, splits: Path, root: Path) -> Order:
    """What the other ranks must know to build the same work: plain JSON values.

    Args:
        work: rank 0's.
        machine: how it computes.
        task: the task's name.
        reference: the model.
        splits: the folder of the splits.
        root: the folder of the project's state, which every rank sees.
    """
    return {
        "task": task,
        "reference": reference,
        "splits": str(splits.absolute().relative_to(root.absolute())),
        "data_hash": work.data_hash,
        "key": work.key,
        "rows": fingerprint(work.train),
        "machine": asdict(machine),
        "by_part": "heads" in work.task.describe(),
    }


def check_together(work: Work, machine: Machine) -> None:
    """Refuse what one process alone can do.

    Raises:
        BadInput: the recipe changes what is trained on the way, or the precision needs all ranks to agree on a scale.
    """
    recipe = work.recipe
    alone = {
        "train.unfreeze": bool(recipe.phases),
        "train.ema": recipe.ema > 0,
        "train.order: sequence": recipe.mixing.order == "sequence",
        "train.precision: fp16": machine.precision == "fp16",
    }
    for key, stated in alone.items():
        if stated:
            raise BadInput(
                "several processes cannot do this together",
                where=key,
                found="a launch of several processes",
                expected="one process",
                way_out="run it without --launch, or leave it out",
            )


def fingerprint(encoded: Encoded) -> str:
    """A hash of rows as a model reads them."""
    digest = blake2b(digest_size=16)
    for array in (encoded.tokens, encoded.offsets, encoded.labels, encoded.weights):
        digest.update(array.tobytes())
    return digest.hexdigest()


def follow(group: Group, prepare: Callable[[Order], Callable[[], Loop]]) -> None:
    """Do as rank 0 orders until it dismisses this rank.

    Args:
        group: the ranks.
        prepare: reads and loads what the opening order asks for, and returns what makes the loop of it, which is
            where the ranks meet.

    Raises:
        Interrupted: rank 0 is gone.
    """
    loop: Any = None
    with group.lost():
        for order in group.orders():
            match order["what"]:
                case "begin":
                    make = prepare(order)
                    group.take_up(order["parallel"])
                    group.ready()
                    loop = make()
                case "update":
                    loop.micro_batch_tokens = order["micro_batch_tokens"]
                    loop.pace = Pace(*order["pace"])
                    loop.update(order["step"])
                case "validate":
                    sample = order["sample"]
                    rows = loop.validation if sample is None else take(loop.validation, np.array(sample))
                    with loop.machine.autocast():
                        group.validate(loop.task, loop.model, rows, loop.machine.read_batch_tokens, sample)
                case "gather_weights":
                    group.trained(loop.model)
                case "gather_moments":
                    group.moments(loop.model, loop.optimizer)
                case "restore":
                    group.restore_as_ordered(loop.model, loop.optimizer, order)


def prepared(
    group: Group,
    order: Order,
    root: Path,
    folder: Path,
    options: TrainOptions,
    seed: int,
    watch: str | None,
    parts: tuple[str, ...] = (),
) -> Callable[[], Loop]:
    """This rank's work on a project: the same task, model and rows as rank 0's.

    Args:
        group: the ranks.
        order: what `opening` said.
        root: the folder of the project's state.
        folder: what a relative model path is relative to.
        options: training's part of the project file.
        seed: the run's.
        watch: the validation figure that the project looks at.
        parts: the names of the data's parts.

    Raises:
        BadInput: this rank's files or libraries make another work of the same project.
    """
    splits = root / order["splits"]
    missing = [str(file) for side in ("train", "validation") if not (file := splits / f"{side}.parquet").is_file()]
    if missing:
        raise _another_work(group, f"no {missing[0]}")
    train, validation = (pl.read_parquet(splits / f"{side}.parquet") for side in ("train", "validation"))
    task, reference, data_hash, by_part = (order[name] for name in ("task", "reference", "data_hash", "by_part"))
    work = work_of(task, reference, folder, options, seed, data_hash, train, validation, watch, parts, by_part)
    if (work.key, fingerprint(work.train)) != (order["key"], order["rows"]):
        raise _another_work(group, "another recipe: other files, or other versions of torch, transformers or the like")
    machine = Machine(**order["machine"])
    torch.set_num_threads(machine.threads)
    model = work.task.build()
    nobody: Any = None  # this loop is asked for single updates only: nothing supervises it
    return lambda: Loop(work.task, model, work.train, work.validation, work.recipe, machine, nobody, ranks=group)


def _another_work(group: Group, found: str) -> BadInput:
    return BadInput(
        "this process would not train what process 0 trains",
        where=f"process {group.rank} of {group.size}",
        found=found,
        expected="the same project folder, model and packages on every machine",
        way_out="share the project's folder between the machines and install the same versions",
    )
