"""A run in its turn: it waits for a machine that others use, makes room for who is more urgent, and goes on after.

While it waits nothing is metered, but time goes on: the deadline is an instant from the first `run` on. A project that
cannot end in time any more, whoever goes first, is refused while it waits, with the minimum that would have worked.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from thriftune.clock import Clock, SystemClock
from thriftune.cluster.options import LOCAL, ClusterOptions
from thriftune.errors import Interrupted, LeaseHeld
from thriftune.forecasting import expect_all
from thriftune.money.leases import holder
from thriftune.money.queue import Turn, joined, queue_url, refuse
from thriftune.plan.plan import Limits, Plan
from thriftune.project.project import Project
from thriftune.session import DATABASE_VARIABLE, Listener, Session, waiting_session
from thriftune.store import open_store

POLL_SECONDS = 0.5

Work = Callable[[Turn, Callable[[], bool]], Path | None]


def in_turn(
    project: Project,
    work: Work,
    listeners: Sequence[Listener] = (),
    interrupted: Callable[[], bool] = lambda: False,
    waits: bool = True,
    afresh: Callable[[], None] | None = None,
) -> Path | None:
    """Do a project's work when it is its turn on this machine and on its cluster, as often as it has to make room.

    Args:
        project: whose turn it is to be.
        work: what is done with the machine in hand: given the turn, and what says that the work is to stop at the
            next safe moment (`pipeline.run`); it raises `Interrupted` when it has.
        listeners: called with each event.
        interrupted: whether the user has asked to stop.
        waits: False to be refused at once where the machine is taken, and to end when room is made for another.
        afresh: begins this process anew (`exec`), so that nothing of it is left in memory while it waits; without it,
            this process itself goes on.

    Returns:
        what the work returned.

    Raises:
        LeaseHeld: the machine is taken, and this does not wait.
        CannotLand: it waited until its deadline can be met no more; names the minimum.
        Interrupted: the user stopped it.
    """
    clock = SystemClock()
    store = open_store(queue_url(os.environ.get(DATABASE_VARIABLE)))
    try:
        file = project.file
        with joined(
            store, clock, file.name, project.root, file.compute.priority, cluster=_cluster(file.compute.cluster)
        ) as turn:
            mine = turn.take()
            while not mine and not waits:
                refuse(turn)
                mine = turn.take()
            while True:
                if not mine:
                    gc.collect()
                    _wait(project, turn, listeners, interrupted, clock)
                mine = False
                try:
                    return work(turn, lambda: interrupted() or turn.must_yield())
                except LeaseHeld:  # by a process that is not in this queue
                    if not waits:
                        raise
                    turn.step_back()
                except Interrupted:
                    if interrupted() or turn.yields_to is None or not waits:
                        raise
                    turn.step_back()
                    if afresh is not None:
                        afresh()
    finally:
        store.close()


def _cluster(options: ClusterOptions | None) -> str | None:
    """The cluster that a project shares with others: not one that is made for its own run."""
    return None if options is None or options.address == LOCAL else options.address


def _wait(
    project: Project,
    turn: Turn,
    listeners: Sequence[Listener],
    interrupted: Callable[[], bool],
    clock: Clock,
) -> None:
    """Wait until the machine is taken in this turn."""
    began = clock.now()
    with waiting_session(project, turn, listeners, interrupted, clock) as session:
        expect_all(session)
        deadline_at = session.context.ledger.balance().deadline_at
        again = turn.ticket.needs_s > 0.0  # it has worked before, and knows what was left
        needs = turn.ticket.needs_s if again else _plan(session, deadline_at).full.p50
        turn.expect(needs, deadline_at)
        told: list[str] = []
        while not _taken(session, turn):
            names = _before(session, turn)
            if names != told:
                told = names
                _tell(session, turn, names)
            plan = _plan(session, deadline_at)
            if not again or needs > plan.limits.seconds:
                plan.require()
            if interrupted():
                raise Interrupted("interrupted while it waited", way_out="the same command takes its place again")
            clock.sleep(POLL_SECONDS)
        session.context.events.emit("queue.taken", waited_s=(turn.since or clock.now()) - began)


def _taken(session: Session, turn: Turn) -> bool:
    """Take the machine if it is this one's turn, and no process without a place in the queue has it."""
    if not turn.take():
        return False
    if _outsider(session) is None:
        return True
    turn.step_back()
    return False


def _outsider(session: Session) -> LeaseHeld | None:
    return holder(session.context.store, session.context.clock, session.project.file.name)


def _before(session: Session, turn: Turn) -> list[str]:
    """Who comes before, the one at work first."""
    before = turn.before()
    if not any(one.working for one in before) and (held := _outsider(session)) is not None:
        return [held.found, *(one.project for one in before)]
    return [f"{one.project} (at work)" if one.working else one.project for one in before]


def _tell(session: Session, turn: Turn, names: Sequence[str]) -> None:
    now, ticket = session.context.clock.now(), turn.ticket
    slack = ticket.slack(now)
    session.context.events.emit(
        "queue.waiting",
        machine=ticket.machine,
        cluster=ticket.cluster,
        place=1 + sum(not one.working for one in turn.before()),
        of=sum(not one.working for one in turn.there()),
        before=list(names),
        priority=ticket.priority,
        deadline_at=ticket.deadline_at,
        needs_s=ticket.needs_s,
        slack_s=None if math.isinf(slack) else slack,
        process=[ticket.owner.pid, ticket.owner.started, ticket.owner.place],
    )


def _plan(session: Session, deadline_at: float | None) -> Plan:
    """What is still to come, held against what would be left if the machine were free now."""
    now, file = session.context.clock.now(), session.project.file
    price = session.project.price_per_hour
    left = session.context.ledger.balance().left
    first = session.first_run_at
    if deadline_at is not None and isinstance(file.deadline, timedelta):
        first = deadline_at - file.deadline.total_seconds()
    return session.outlook.plan(
        Limits(
            seconds_used=0.0,
            money_seconds=float(left / price * 3600) if price else math.inf,
            time_seconds=math.inf if deadline_at is None else max(0.0, deadline_at - now),
            price_per_hour=price,
            currency=file.budget.currency,
            spent_before=session.spent_before,
            elapsed_before=now - first,
            money_left=left,
        )
    )
