"""What every stage may need and a test may replace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thriftune.artifacts import ArtifactStore
from thriftune.clock import Clock
from thriftune.events import EventLog
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter
from thriftune.store import Store


@dataclass(frozen=True)
class Context:
    """A run's surroundings.

    Args:
        root: the project's state folder (`.thriftune`).
        project: the project's name.
        attempt: the number of the attempt.
        seed: the source of everything random.
        clock: the one source of time.
        store: the database.
        events: the attempt's record.
        artifacts: the stages' outputs.
        ledger: the project's money.
        meter: this process's machine time.
    """

    root: Path
    project: str
    attempt: int
    seed: int
    clock: Clock
    store: Store
    events: EventLog
    artifacts: ArtifactStore
    ledger: Ledger
    meter: Meter
