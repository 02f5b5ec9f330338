"""Where a project stands right now, from a few rows of the database: for `thriftune status`, which must be quick."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, select

from thriftune.events import Event
from thriftune.money.amounts import NANOSECONDS
from thriftune.processes import Life, ProcessName
from thriftune.report.build import ending
from thriftune.report.load import read_balance, reader
from thriftune.store import Store
from thriftune.store.tables import events as event_table
from thriftune.store.tables import leases

SIGN_SECONDS = 5.0  # an owner out of sight counts as alive if its last sign of life is no older
COURSE = ("attempt.started", "attempt.finished", "stage.started", "stage.finished", "queue.waiting", "queue.taken")
STATES = {"done": "finished"}


@dataclass(frozen=True)
class State:
    """Where a project stands; what is not known or does not apply is None.

    Args:
        state: not started, waiting (for the machine), running, finished, planned, refused, interrupted, failed, or
            died (ended without notice).
        pid: of the process at work.
        stage: the innermost stage at work, or the last that was.
        step, planned: of training.
        step_seconds: of the last training step.
        spent, budget: of the whole project.
        seconds_left: to the deadline; negative after it.
        last_event: kind of the newest event, `last_event_age_s` seconds old.
        message: how the attempt ended.
    """

    project: str
    state: str
    attempt: int | None = None
    pid: int | None = None
    stage: str | None = None
    step: int | None = None
    planned: int | None = None
    loss: float | None = None
    step_seconds: float | None = None
    spent: Decimal | None = None
    budget: Decimal | None = None
    currency: str = ""
    seconds_left: float | None = None
    last_event: str | None = None
    last_event_age_s: float | None = None
    message: str = ""


def read_state(store: Store, project: str, now: float) -> State:
    """Read where a project stands.

    Args:
        store: the database; nothing is written to it.
        project: the project's name.
        now: the instant to measure ages from, seconds since the epoch.
    """
    newest = newest_event(store, project)
    if newest is None:
        return State(project, "not started")
    log = reader(store, project)
    course = log.read(attempt=newest.attempt, kinds=COURSE)
    step = newest_event(store, project, "training.step", newest.attempt)
    owner = owner_of(store, project)
    alive = owner is not None and owner.attempt == newest.attempt and is_alive(owner, now)
    queued = course[-1] if course and course[-1].kind == "queue.waiting" and not alive else None
    waiting = None if queued is None else ProcessName(*queued.data["process"])
    waits = waiting is not None and waiting.life() is not Life.DEAD
    ended = ending(course)
    balance = read_balance(store, project)
    told = step.data if step is not None else {}
    return State(
        project=project,
        state="running" if alive else "waiting" if waits else _how_it_ended(ended),
        attempt=newest.attempt,
        pid=int(owner.owner_pid) if owner is not None and alive else waiting.pid if waiting and waits else None,
        stage=current_stage(course),
        step=told.get("step"),
        planned=told.get("planned"),
        loss=told.get("loss"),
        step_seconds=told.get("seconds"),
        spent=None if balance is None else balance.spent,
        budget=None if balance is None else balance.total,
        currency="" if balance is None else balance.currency,
        seconds_left=None if balance is None or balance.deadline_at is None else balance.deadline_at - now,
        last_event=newest.kind,
        last_event_age_s=max(0.0, now - newest.at),
        message="" if alive else _message(queued if waits else None, ended),
    )


def current_stage(course: Sequence[Event]) -> str | None:
    """The innermost stage that is open, or else the last that was."""
    open_stages: list[str] = []
    last: str | None = None
    for event in course:
        if event.kind == "attempt.started":
            open_stages.clear()
        elif event.kind == "stage.started":
            last = str(event.data["stage"])
            open_stages.append(last)
        elif event.kind == "stage.finished" and event.data["stage"] in open_stages:
            open_stages.remove(event.data["stage"])
    return open_stages[-1] if open_stages else last


def owner_of(store: Store, project: str) -> Row[Any] | None:
    """The lease under which a process works on the project, None where nobody does."""
    held = select(leases).where(leases.c.project == project, leases.c.held).order_by(leases.c.heartbeat_ns.desc())
    with store.read() as connection:
        return connection.execute(held.limit(1)).one_or_none()


def is_alive(owner: Row[Any], now: float) -> bool:
    """Whether a lease's owner still runs: seen from here, or else by its sign of life."""
    life = ProcessName(owner.owner_pid, owner.owner_started, owner.owner_place).life()
    if life is Life.UNSEEN:
        return now - float(owner.heartbeat_ns) / NANOSECONDS <= SIGN_SECONDS
    return life is Life.ALIVE


def newest_event(store: Store, project: str, kind: str | None = None, attempt: int | None = None) -> Event | None:
    """The newest event of a project, of one kind or attempt where these are given."""
    query = select(event_table).where(event_table.c.project == project).order_by(event_table.c.seq.desc()).limit(1)
    if kind is not None:
        query = query.where(event_table.c.kind == kind)
    if attempt is not None:
        query = query.where(event_table.c.attempt == attempt)
    with store.read() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else Event(row.seq, row.project, row.attempt, row.at, row.kind, json.loads(row.data))


def _message(queued: Event | None, ended: Event | None) -> str:
    if queued is not None:
        cluster = queued.data["cluster"]
        what = f"the machine and the cluster {cluster}" if cluster else "the machine"
        return f"{queued.data['place']} of {queued.data['of']} for {what}; `thriftune queue` shows who is before it"
    return "" if ended is None else str(ended.data.get("message") or "")


def _how_it_ended(ended: Event | None) -> str:
    if ended is None:
        return "died"
    outcome = str(ended.data["outcome"])
    return STATES.get(outcome, outcome)
