"""Loops on small models for the tests of training's parts."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from thriftune.budget.decisions import Decisions
from thriftune.clock import SystemClock
from thriftune.events import EventLog, open_attempt
from thriftune.models.reference import resolve
from thriftune.store import open_store
from thriftune.tasks.base import Encoded
from thriftune.tasks.classify import ClassifyTask
from thriftune.train.costs import Costs
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.recipe import Recipe
from thriftune.train.supervision import Supervision

COSTS = Costs(seconds_per_token=1e-5, validation=0.05, checkpoint=0.1, peak_bytes=0.0)
ONLY_AT_THE_END = 1_000_000  # steps from one validation to the next


def frame(rows: int = 48) -> pl.DataFrame:
    drawn = np.random.default_rng(3)
    texts = [" ".join(drawn.choice(["good", "bad", "film", "the", "was"], drawn.integers(2, 20))) for _ in range(rows)]
    return pl.DataFrame({"text": texts, "target": ["yes" if "good" in text else "no" for text in texts]})


def classifier(model: Path, **settings: Any) -> ClassifyTask:
    return ClassifyTask(resolve(str(model)), ("no", "yes"), **{"max_tokens": 60} | settings)


class Record:
    """Events of one attempt in a database of their own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        store, clock = open_store(f"sqlite:///{folder}/events.db"), SystemClock()
        self.events = EventLog(store, clock, "test", open_attempt(store, clock, "test", "recipe").attempt)

    def watch(self, **settings: Any) -> Supervision:
        """Who watches one process's loop: its journal holds what was recorded before."""
        decisions = Decisions(self.events, self.events.read())
        return Supervision(decisions, self.events, None, None, self.folder / "checkpoints", **settings)

    def of(self, kind: str) -> list[dict[str, Any]]:
        self.events.flush()
        return [event.data for event in self.events.read(kinds=[kind])]


def loop_of(
    task: Any,
    recipe: Recipe,
    record: Record,
    machine: Machine | None = None,
    encoded: Encoded | None = None,
    **watch: Any,
) -> Loop:
    """A loop over these rows, by default `frame`'s, which it also validates on."""
    encoded = task.encode(frame()) if encoded is None else encoded
    machine = machine or Machine()
    return Loop(task, task.build(), encoded, encoded, recipe, machine, record.watch(**watch))


def weights(loop: Loop) -> torch.Tensor:
    return torch.cat([p.detach().flatten().float() for p in loop.model.parameters()])
