"""Who watches a training loop, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from thriftune.budget.decisions import Decisions
from thriftune.budget.governor import Governor
from thriftune.events import EventLog
from thriftune.train.stopping import Stopping


class UnitMeter(Protocol):
    """What the loop needs of the meter."""

    def unit(self, phase: str, what: str, upper_seconds: float) -> AbstractContextManager[object]:
        """Reserve, do, post."""
        ...


@dataclass(frozen=True)
class Supervision:
    """Who watches the loop: the governor and the meter (None to replay a recorded run), journal and events.

    Args:
        stopping: weighs what the rest can bring against what it costs; None to train on as long as patience lasts.
    """

    decisions: Decisions
    events: EventLog
    meter: UnitMeter | None
    governor: Governor | None
    checkpoints: Path
    reached: int = 0  # the last step that an earlier, killed process recorded
    checkpoint_seconds: float = 30.0
    interrupted: Callable[[], bool] = lambda: False
    stopping: Stopping | None = None

    def unit(self, what: str, upper_seconds: float) -> AbstractContextManager[object]:
        """A metered unit of the training phase; nothing is metered in a replay."""
        return nullcontext() if self.meter is None else self.meter.unit("training", what, upper_seconds)


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    steps: int
    epochs: float
    stopped: str  # "planned", "patience", "gain", "budget", "breach"
    best_step: int
    best: dict[str, float]
    final_loss: float
    padding_share: float
