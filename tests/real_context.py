"""A run's surroundings for tests of stages: a real database, event log, artifact store, ledger and meter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from thriftune.artifacts import ArtifactStore
from thriftune.clock import SystemClock
from thriftune.context import Context
from thriftune.events import EventLog, open_attempt
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter
from thriftune.store import open_store


@contextmanager
def open_context(root: Path, phase: str, budget: str = "1000000") -> Iterator[Context]:
    """The first attempt of a project that has a budget for one phase, on a machine that costs 3,600 an hour.

    The machine is paid from the process's start, and the tests before this one were long.
    """
    clock = SystemClock()
    store = open_store(f"sqlite:///{root}/thriftune.db")
    attempt = open_attempt(store, clock, "test", "recipe").attempt
    events = EventLog(store, clock, "test", attempt)
    ledger = Ledger(store, clock, "test", events)
    ledger.open_budget(Decimal(budget), "USD", {phase: Decimal(budget)})
    meter = Meter.start(store, clock, ledger, Decimal(3600), None, f"machine-{root.name}")
    artifacts = ArtifactStore(root, store, clock, "test")
    try:
        yield Context(root, "test", attempt, 0, clock, store, events, artifacts, ledger, meter)
    finally:
        meter.close(phase)
        store.close()
