"""A study with several workers: looks side by side under one cap, the machine's time charged while they are made."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import Protocol

from thriftune.context import Context
from thriftune.errors import Interrupted, OutOfBudget
from thriftune.search.crew import Answer, crew_of
from thriftune.search.study import OUT_OF_MONEY, Study
from thriftune.search.trials import Trials
from thriftune.search.types import Means, Sought
from thriftune.search.worker import Order

SLICE_SECONDS = 1.0  # the machine's time is reserved and charged in slices of this length while workers are at work
SLACK_SECONDS = 0.5  # a slice may take so much longer on a busy machine
MOST_LOSSES = 2  # workers that a trial may lose before it is closed


class Crew(Protocol):
    """Workers, each at one order at a time: in processes of this machine, or on the nodes of a cluster."""

    @property
    def orders(self) -> list[Order]:
        """What is being worked on."""
        ...

    @property
    def free(self) -> int:
        """How many more orders may be given out."""
        ...

    def begin(self, order: Order) -> None:
        """Hand out an order.

        Raises:
            OutOfBudget: the money does not hold the node that it would need.
        """
        ...

    def answers(self, seconds: float) -> list[Answer]:
        """What was answered within so many seconds, as soon as something is.

        Raises:
            OutOfBudget: the money does not hold the nodes any longer.
        """
        ...


def look_together(sought: Sought, means: Means, context: Context, study: Study, trials: Trials) -> str:
    """Looks side by side, by workers of this machine or on the nodes of a cluster, until none is left to make; why.

    Raises:
        Interrupted: the user stopped it; paused trials are kept as they were after their latest look.
    """
    from thriftune.search.on_nodes import STARTING_SECONDS, nodes_crew

    workers, nodes = sought.options.workers, sought.nodes
    with ExitStack() as kept:
        if nodes is None:
            crew: Crew = kept.enter_context(crew_of(study.brief(trials), workers))
        else:
            try:
                with context.meter.unit("training", "search: the cluster is reached", STARTING_SECONDS):
                    crew = kept.enter_context(nodes_crew(study.brief(trials), workers, nodes, context))
            except OutOfBudget:
                return OUT_OF_MONEY
        return _look_together(study, crew, trials, means, context)


def _look_together(study: Study, crew: Crew, trials: Trials, means: Means, context: Context) -> str:
    """The same with a crew that is there.

    A look whose worker was lost is not recorded, so that the study asks for it again; a trial that has lost
    `MOST_LOSSES` workers is closed. The seconds of a look are those of the machine since the look before was recorded,
    lost ones included.

    Raises:
        Interrupted: the user stopped it; paused trials are kept as they were after their latest look.
    """
    losses: Counter[int] = Counter()
    charged = time.monotonic()
    while True:
        study.take_up_requests()
        try:
            because = _hand_out(study, crew, trials)
            if not crew.orders or study.ended:
                return because
            with context.meter.unit("training", "search: workers at work", SLICE_SECONDS + SLACK_SECONDS):
                answers = crew.answers(SLICE_SECONDS)
        except OutOfBudget:
            return OUT_OF_MONEY
        if means.interrupted():
            raise Interrupted("interrupted", way_out="the same command goes on from here")
        for answer in answers:
            if answer.score is None and not answer.failed:
                _lost(study, answer, losses, context)
                continue
            now = time.monotonic()
            busy = {order.proposal.configuration for order in crew.orders}
            study.record(answer.order.proposal, answer.score, now - charged, trials, answer.failed, busy)
            charged = now


def _hand_out(study: Study, crew: Crew, trials: Trials) -> str:
    """Give every free worker a look to make; why there was none for the last."""
    because = ""
    while crew.free and not because:
        busy = {order.proposal.configuration for order in crew.orders}
        proposal, because = study.next_look(trials.costs, busy)
        if proposal is not None:
            one = study.space.configurations[proposal.configuration]
            crew.begin(Order(proposal, one.rungs, dict(one.values)))
    return because


def _lost(study: Study, answer: Answer, losses: Counter[int], context: Context) -> None:
    look = answer.order.proposal
    losses[look.configuration] += 1
    closed = losses[look.configuration] >= MOST_LOSSES
    context.events.emit(
        "search.worker_lost",
        configuration=look.configuration,
        fold=look.fold,
        rung=look.rung,
        status=answer.status,
        closed=closed,
    )
    if closed:
        study.close(look.configuration)
