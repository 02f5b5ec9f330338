"""A worker of a search: a process that makes the looks which the search's own process asks for.

It meters nothing and decides nothing: the machine's time is the search's process's, which reserves and charges it
while workers are at work. A worker ends when that process does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from thriftune.clock import SystemClock
from thriftune.events import Event, EventLog
from thriftune.models.quiet import quiet_transformers
from thriftune.search.policies import Proposal
from thriftune.search.states import SharedStates
from thriftune.search.trainings import Trainings, checked
from thriftune.search.trials import TRIAL_KINDS, Failed, Trials
from thriftune.store import open_store
from thriftune.train.costs import Costs
from thriftune.train.machine import Machine


@dataclass(frozen=True)
class Brief:
    """What a worker must know.

    Args:
        database: the URL of the attempt's database.
        project: its name.
        attempt: the number of the attempt.
        root: the project's state folder.
        folder: where paused trials are kept.
        study: the name of the study.
        trainings: what may be trained.
        machine: how to compute.
        costs: of the parts of training, by the probe.
    """

    database: str
    project: str
    attempt: int
    root: Path
    folder: Path
    study: str
    trainings: Trainings
    machine: Machine
    costs: Costs


@dataclass(frozen=True)
class Order:
    """A look to make.

    Args:
        proposal: which.
        rungs: looks at the whole training.
        values: the configuration's, option by name.
    """

    proposal: Proposal
    rungs: int
    values: Mapping[str, Any]


class Looker:
    """Makes the looks of one study in this process, one at a time; what it has read and built is kept for the next.

    Args:
        brief: what it must know.
        stopped: whether to leave a look in the middle.
    """

    def __init__(self, brief: Brief, stopped: Callable[[], bool]) -> None:
        store = open_store(brief.database)
        self._events = EventLog(store, SystemClock(), brief.project, brief.attempt)
        self._events.emit("search.worker", pid=os.getpid())
        self._trainings = brief.trainings

        def recorded() -> Sequence[Event]:
            return self._events.read(attempt=brief.attempt, kinds=TRIAL_KINDS)

        most = brief.trainings.train.prefix_cache_bytes
        states = SharedStates(brief.root, most, brief.costs, _unmetered, self._events)
        self._trials = Trials(
            brief.trainings.work_of,
            brief.machine,
            brief.costs,
            None,
            self._events,
            recorded,
            brief.folder,
            stopped,
            brief.study,
            partial(brief.trainings.give_states, states),
        )

    def look(self, order: Order) -> float | str:
        """Make a look; its score, or why its training broke down."""
        number, candidates = order.proposal.configuration, self._trainings.candidates
        one = checked(self._trainings.train, order.values)
        while number >= len(candidates):  # cloned by hand since this process began
            candidates.append(one)
        candidates[number] = one
        try:
            with quiet_transformers():
                return self._trials.look(order.proposal, order.rungs)
        except Failed as failure:
            return str(failure)
        finally:
            self._events.flush()


def work(brief: Brief, orders: Connection) -> None:
    """Make one look after the other, and answer each, until there are no more orders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the search's process says when to end
    parent = os.getppid()
    looker = Looker(brief, lambda: os.getppid() != parent)
    while True:
        try:
            order: Order = orders.recv()
        except EOFError:
            return
        orders.send(looker.look(order))


def _unmetered(_what: str, _upper_seconds: float) -> AbstractContextManager[object]:
    return nullcontext()
