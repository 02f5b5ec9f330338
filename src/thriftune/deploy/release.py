"""A release: a tuned model opened for serving, with the preparation it was trained behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thriftune.errors import BadInput
from thriftune.prepare.serving import serving_pipeline
from thriftune.tasks.base import TASK_FILE
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    from thriftune.artifacts import Artifact, ArtifactStore
    from thriftune.events import EventLog
    from thriftune.tasks.base import Predictor

ID_CHARACTERS = 12  # of the content hash: enough that no two releases of a project share them


@dataclass(frozen=True)
class Release:
    """What a service answers with.

    Args:
        name: identifies it in each answer.
        task: `classify` or `chat`.
        predictor: the tuned model.
        clean: the preparation steps marked `also_at_serving`, for one text.
    """

    name: str
    task: str
    predictor: Predictor
    clean: Callable[[str], str]


def latest_tuned(events: EventLog, artifacts: ArtifactStore) -> Artifact:
    """The tuned model of the project's latest training.

    Raises:
        BadInput: no run has trained one yet, or it is not there any more.
    """
    trained = [e.data["key"] for e in events.read(kinds=["stage.finished"]) if e.data["stage"] == "train"]
    keys = [key for key in trained if key]
    found = artifacts.find("train", keys[-1]) if keys else None
    if found is None:
        raise BadInput(
            "there is no tuned model to serve",
            where=f"project {events.project}",
            found="the latest one is damaged or was removed" if keys else "no run has trained one yet",
            expected="a model that `thriftune run` tuned",
            way_out="run `thriftune run` first",
        )
    return found


def open_release(artifact: Artifact) -> Release:
    """The model in an artifact of the training stage, in memory.

    Raises:
        BadInput: its base model is not the one it was tuned from, it needs a preparation step that is not here, or it
            was tuned on a task whose models answer no requests.
    """
    from thriftune.managed.task import is_managed_folder, open_predictor
    from thriftune.tasks.saved import open_saved

    name = f"tuned-{artifact.content_hash[:ID_CHARACTERS]}"
    if is_managed_folder(artifact.folder):
        task_name, predictor, steps = open_predictor(artifact.folder)
        return Release(name, task_name, predictor, serving_pipeline(steps))
    _check_serves(artifact.folder)
    clean = serving_pipeline(_serving_steps(artifact.folder))
    task, model = open_saved(artifact.folder)
    return Release(name, task.name, task.predictor(model, "tuned"), clean)


def _check_serves(folder: Path) -> None:
    path = folder / TASK_FILE
    task = json.loads(path.read_text())["task"] if path.is_file() else None
    if task is not None and not kind_of(task).serves:
        raise BadInput(
            "the model answers no requests: it is a base for further tuning",
            where=str(folder),
            found=f"a model of the task {task}",
            expected="a model tuned to answer",
            way_out=f"tune it further in a project that says `models: {folder}`",
        )


def _serving_steps(folder: Path) -> list[str]:
    from thriftune.train.train import ABOUT_FILE

    steps: list[str] = json.loads((folder / ABOUT_FILE).read_text())["serving_steps"]
    return steps
