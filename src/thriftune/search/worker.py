"""A worker of a search: a process that makes the looks which the search's own process asks for.

It meters nothing and decides nothing: the machine's time is the search's process's, which reserves and charges it
while workers are at work. A worker ends when that process does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
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


def work(brief: Brief, orders: Connection) -> None:
    """Make one look after the other, and answer each with its score or what went wrong, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the search's process says when to end
    parent = os.getppid()
    store = open_store(brief.database)
    events = EventLog(store, SystemClock(), brief.project, brief.attempt)
    events.emit("search.worker", pid=os.getpid())
    trainings = brief.trainings

    def recorded() -> Sequence[Event]:
        return events.read(attempt=brief.attempt, kinds=TRIAL_KINDS)

    most = trainings.train.prefix_cache_bytes
    states = SharedStates(brief.root, most, brief.costs, _unmetered, events)
    trials = Trials(
        trainings.work_of,
        brief.machine,
        brief.costs,
        None,
        events,
        recorded,
        brief.folder,
        lambda: os.getppid() != parent,
        brief.study,
        partial(trainings.give_states, states),
    )
    with quiet_transformers():
        _make_looks(brief.trainings, trials, orders, events)


def _make_looks(trainings: Trainings, trials: Trials, orders: Connection, events: EventLog) -> None:
    while True:
        try:
            order: Order = orders.recv()
        except EOFError:
            return
        number = order.proposal.configuration
        one = checked(trainings.train, order.values)
        while number >= len(trainings.candidates):  # cloned by hand since this process began
            trainings.candidates.append(one)
        trainings.candidates[number] = one
        try:
            orders.send(trials.look(order.proposal, order.rungs))
        except Failed as failure:
            orders.send(str(failure))
        events.flush()


def _unmetered(_what: str, _upper_seconds: float) -> AbstractContextManager[object]:
    return nullcontext()
