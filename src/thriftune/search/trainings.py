"""What a study trains: configurations on folds of its rows. It can be handed to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import ValidationError

from thriftune.errors import BadInput
from thriftune.search.options import train_options
from thriftune.search.states import SharedStates
from thriftune.search.types import WorkOf
from thriftune.tasks.base import Encoded, Task
from thriftune.train.loop import Loop
from thriftune.train.options import TrainOptions
from thriftune.train.train import Work

Candidate = tuple[dict[str, Any], TrainOptions]


@dataclass
class Trainings:
    """The trainings of a study.

    Args:
        train: training's options, which the configurations change.
        reference: the model, unless a configuration names another.
        make: makes the work of a model and options on rows to train on and rows held out.
        rows: of the study.
        held_out: (folds, rows) whether a fold holds a row out.
        candidates: each configuration's values, and training's options with them.
    """

    train: TrainOptions
    reference: str
    make: WorkOf
    rows: pl.DataFrame
    held_out: NDArray[np.bool_]
    candidates: list[Candidate]
    _encoded: dict[str, Encoded] = field(default_factory=dict, init=False)  # all rows, by model

    def work_of(self, number: int, fold: int) -> Work:
        """What is to be trained for a configuration on a fold."""
        values, options = self.candidates[number]
        return self.work(values.get("model", self.reference), options, fold)

    def work(self, reference: str, options: TrainOptions, fold: int) -> Work:
        """What is to be trained of a model with these options on a fold."""
        held = pl.Series(self.held_out[fold])
        return self.make(reference, options, self.rows.filter(~held), self.rows.filter(held))

    def give_states(self, states: SharedStates, loop: Loop, _number: int, fold: int) -> None:
        """Let a loop take the states of its frozen layers from those of all rows."""
        states.give(loop, partial(self._everyone, loop.task), np.flatnonzero(~self.held_out[fold]))

    def _everyone(self, task: Task) -> Encoded:
        model = str(task.describe()["model"])
        if model not in self._encoded:
            self._encoded[model] = task.encode(self.rows)
        return self._encoded[model]


def checked(options: TrainOptions, values: Mapping[str, Any]) -> Candidate:
    """A configuration's values and the options that they make of training's.

    Raises:
        BadInput: they do not go together.
    """
    try:
        return dict(values), train_options(options, values)
    except ValidationError as refusal:
        said = ", ".join(f"{name} {value}" for name, value in values.items())
        raise BadInput(
            "a configuration of the search cannot be trained",
            where="search.space",
            found=said,
            expected=refusal.errors()[0]["msg"],
            way_out="leave a value out of the space, or change train",
        ) from refusal
