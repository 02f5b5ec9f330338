"""Opening a saved model: the task it was tuned for, and the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftune.errors import BadInput
from thriftune.models.reference import resolve
from thriftune.tasks.base import TASK_FILE, Task

if TYPE_CHECKING:
    import torch


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
    task = _classify(folder, about) if about["task"] == "classify" else _chat(folder, about)
    return task, task.load(folder)


def _classify(folder: Path, about: dict[str, Any]) -> Task:
    from thriftune.tasks.classify import ClassifyTask

    return ClassifyTask(resolve(str(folder)), tuple(about["labels"]), about["seed"], about["max_tokens"])


def _chat(folder: Path, about: dict[str, Any]) -> Task:
    from thriftune.models.adapters import LoraShape
    from thriftune.tasks.chat import ChatTask

    if about["lora"] is None:
        return ChatTask(resolve(str(folder)), lora=None, **_chat_settings(about))
    base = resolve(about["reference"])
    if base.content_hash != about["model"]:
        raise BadInput(
            "the base model is not the one that this adapter was tuned on",
            where=about["reference"],
            found=f"weights {base.content_hash[:16]}",
            expected=f"weights {about['model'][:16]}",
            way_out="restore that version of the base model, or run `thriftune run` again on this one",
        )
    return ChatTask(base, lora=LoraShape(**about["lora"]), **_chat_settings(about))


def _chat_settings(about: dict[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("seed", "max_tokens", "max_new_tokens")}
