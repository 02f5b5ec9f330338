"""Opening a saved model: the task it was tuned for, and the weights."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from thriftune.errors import BadInput
from thriftune.models.reference import resolve
from thriftune.tasks.base import TASK_FILE, Task
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    import torch

ADAPTER_FILE = "adapter_config.json"  # PEFT's; without it a folder holds a whole model


def open_saved(folder: Path) -> tuple[Task, torch.nn.Module]:
    """The task and the model in a folder that `Task.save` wrote.

    Raises:
        BadInput: the folder holds no tuned model of ours, or its base model is not the one it was tuned from.
    """
    path = folder / TASK_FILE
    if not path.is_file():
        raise BadInput(
            "no tuned model is here",
            where=str(folder),
            found=f"no {TASK_FILE}",
            expected="the folder of a model that `thriftune run` tuned",
            way_out="run `thriftune run` first, or name its model folder",
        )
    about = json.loads(path.read_text())
    task = _encoder(folder, about) if kind_of(about["task"]).model == "encoder" else _decoder(folder, about)
    return task, task.load(folder)


def _encoder(folder: Path, about: dict[str, Any]) -> Task:
    from thriftune.tasks.classify import ClassifyTask
    from thriftune.tasks.heads import Heads
    from thriftune.tasks.multilabel import MultilabelTask
    from thriftune.tasks.tag import TagTask

    makers = {made.name: made for made in (ClassifyTask, MultilabelTask, TagTask)}
    heads = Heads.from_json(about.get("heads"))
    labels, seed, limit = tuple(about["labels"]), about["seed"], about["max_tokens"]
    return cast(Task, makers[about["task"]](resolve(str(folder)), labels, seed, limit, heads=heads))


def _decoder(folder: Path, about: dict[str, Any]) -> Task:
    from thriftune.models.adapters import LoraShape
    from thriftune.tasks.chat import ChatTask
    from thriftune.tasks.prefer import PreferTask
    from thriftune.tasks.pretrain import PretrainTask

    kinds: dict[str, type[ChatTask]] = {kind.name: kind for kind in (ChatTask, PreferTask, PretrainTask)}
    kind = kinds[about["task"]]
    settings = {field.name: about[field.name] for field in fields(kind) if field.name not in ("model", "lora")}
    if about["lora"] is None or not (folder / ADAPTER_FILE).is_file():
        return kind(resolve(str(folder)), lora=None, **settings)
    base = resolve(about["reference"])
    if base.content_hash != about["model"]:
        raise BadInput(
            "the base model is not the one that this adapter was tuned on",
            where=about["reference"],
            found=f"weights {base.content_hash[:16]}",
            expected=f"weights {about['model'][:16]}",
            way_out="restore that version of the base model, or run `thriftune run` again on this one",
        )
    return kind(base, lora=LoraShape(**about["lora"]), **settings)
