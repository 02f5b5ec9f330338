"""The append-only record of a project's attempts. Progress, status, report and dashboard all read this one stream.

An event is in the database before `emit` returns, and before what it tells of takes effect. Training's steps are too
many for a commit each: they wait in a buffer for the next event, or a second.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import bindparam, func, insert, select, update

from thriftune.clock import Clock
from thriftune.store import Store, Transaction
from thriftune.store.tables import attempts, events, projects

BUFFER_SECONDS = 1.0

# Built once: building a statement costs more than running it, and these run with every event.
_TAKE_NUMBERS = (
    update(projects)
    .where(projects.c.project == bindparam("of"))
    .values(last_seq=projects.c.last_seq + bindparam("count"))
    .returning(projects.c.last_seq)
)
_RECORD = insert(events)


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Args:
        seq: its number in the project, from 1 without gaps, in the order of recording.
        project: the project's name.
        attempt: the attempt it belongs to.
        at: when, in seconds since the epoch (UTC).
        kind: what, such as `stage.started`.
        data: plain JSON values.
    """

    seq: int
    project: str
    attempt: int
    at: float
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One run of a project, with the interruptions it went on after.

    Args:
        recipe: what was to be done, as text; an attempt with another recipe is another attempt.
        outcome: done, refused, interrupted or failed; None while it runs, or when it ended without notice.
    """

    project: str
    attempt: int
    recipe: str
    started_at: float
    finished_at: float | None = None
    outcome: str | None = None
    exit_code: int | None = None
    message: str | None = None


class Recorder(Protocol):
    """What takes events."""

    def emit(self, kind: str, /, **data: Any) -> None:
        """Record an event; it is durable when this returns."""
        ...

    def buffer(self, kind: str, /, **data: Any) -> None:
        """Record an event within a second."""
        ...


class EventLog:
    """Writes an attempt's events and hands them to subscribers; reads a project's.

    Args:
        store: where they are kept.
        clock: dates them.
        project: the project's name.
        attempt: the attempt that new events belong to.
    """

    def __init__(self, store: Store, clock: Clock, project: str, attempt: int) -> None:
        self._store = store
        self._clock = clock
        self.project = project
        self.attempt = attempt
        self._subscribers: list[Callable[[Event], None]] = []
        self._lock = threading.Lock()
        self._buffer: list[tuple[float, str, dict[str, Any]]] = []

    def subscribe(self, receive: Callable[[Event], None]) -> None:
        """Call `receive` with each event from now on, once it is recorded, in the thread that recorded it."""
        self._subscribers.append(receive)

    def emit(self, kind: str, /, *, inside: Transaction | None = None, **data: Any) -> None:
        """Record an event; it is durable when this returns.

        Args:
            kind: what happened.
            inside: a transaction of the caller's to record it in; it is durable, and handed on, when that commits.
            data: plain JSON values; a NaN or an infinity is recorded as null, which JSON has in their place.
        """
        self.emit_all([(kind, data)], inside)

    def emit_all(self, new: Iterable[tuple[str, dict[str, Any]]], inside: Transaction | None = None) -> None:
        """Record several events in one transaction, the buffered ones before them."""
        at = self._clock.now()
        with self._lock:  # never held while the database is waited for
            waiting, self._buffer = self._buffer, []
        batch = waiting + [(at, kind, data) for kind, data in new]
        if not batch:
            return
        try:
            with self._store.begin(inside) as transaction:
                if inside is not None and waiting:
                    transaction.after_rollback.append(lambda: self._put_back(waiting))
                recorded = append(transaction, self.project, self.attempt, batch)
                transaction.after_commit.append(lambda: self._hand_on(recorded))
        except BaseException:
            if inside is None:
                self._put_back(waiting)
            raise

    def buffer(self, kind: str, /, **data: Any) -> None:
        """Record an event with the next one that is emitted, or within a second of the oldest in the buffer."""
        at = self._clock.now()
        with self._lock:
            self._buffer.append((at, kind, data))
            due = at - self._buffer[0][0] >= BUFFER_SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        """Record what waits in the buffer."""
        self.emit_all([])

    def close(self) -> None:
        """Record what waits in the buffer; call it last."""
        self.flush()

    def read(
        self,
        attempt: int | None = None,
        kinds: Sequence[str] | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[Event]:
        """The project's recorded events in their order.

        Args:
            attempt: of this attempt only.
            kinds: of these kinds only.
            after: later than this number.
            limit: at most so many, the oldest of them.
        """
        query = select(events).where(events.c.project == self.project, events.c.seq > after).order_by(events.c.seq)
        if attempt is not None:
            query = query.where(events.c.attempt == attempt)
        if kinds is not None:
            query = query.where(events.c.kind.in_(kinds))
        if limit is not None:
            query = query.limit(limit)
        with self._store.read() as connection:
            rows = connection.execute(query).all()
        return [Event(row.seq, row.project, row.attempt, row.at, row.kind, json.loads(row.data)) for row in rows]

    def _put_back(self, waiting: list[tuple[float, str, dict[str, Any]]]) -> None:
        with self._lock:
            self._buffer = waiting + self._buffer

    def _hand_on(self, recorded: list[Event]) -> None:
        for event in recorded:
            for receive in self._subscribers:
                receive(event)


def append(
    transaction: Transaction, project: str, attempt: int, batch: Sequence[tuple[float, str, dict[str, Any]]]
) -> list[Event]:
    """Write events (instant, kind, data) into an open transaction, numbered on from the project's newest.

    The numbers are taken under a lock on the project's row, so that they have no gaps and whoever reads number n
    has been able to read all before it.
    """
    count = len(batch)
    values = {"of": project, "count": count}
    last = transaction.execute(_TAKE_NUMBERS, values).scalar()
    if last is None:
        transaction.insert_if_missing(projects, {"project": project, "last_seq": 0})
        last = transaction.execute(_TAKE_NUMBERS, values).scalar_one()
    texts = [to_json(data) for _, _, data in batch]
    recorded = [
        Event(last - count + place, project, attempt, at, kind, json.loads(texts[place - 1]))
        for place, (at, kind, _) in enumerate(batch, start=1)
    ]
    rows = [
        {"project": project, "seq": e.seq, "attempt": attempt, "at": e.at, "kind": e.kind, "data": data}
        for e, data in zip(recorded, texts, strict=True)
    ]
    transaction.execute(_RECORD, rows)
    return recorded


def to_json(data: dict[str, Any]) -> str:
    """JSON text of plain values; NaN and the infinities, which JSON does not know, become null."""
    try:
        return json.dumps(data, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(data), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def open_attempt(store: Store, clock: Clock, project: str, recipe: str) -> Attempt:
    """Begin a new attempt, numbered on from the project's last."""
    with store.begin() as transaction:
        transaction.insert_if_missing(projects, {"project": project, "last_seq": 0})
        # The project's row is locked, on PostgreSQL too, so that two attempts cannot take one number.
        transaction.execute(update(projects).where(projects.c.project == project).values(last_seq=projects.c.last_seq))
        last = transaction.execute(select(func.max(attempts.c.attempt)).where(attempts.c.project == project)).scalar()
        attempt = Attempt(project, (last or 0) + 1, recipe, clock.now())
        values = {
            "project": project,
            "attempt": attempt.attempt,
            "recipe": recipe,
            "started_at": attempt.started_at,
        }
        transaction.execute(insert(attempts).values(values))
    return attempt


def resume_attempt(store: Store, project: str, attempt: int) -> Attempt:
    """Take an attempt up again: it has no outcome any more until it is finished anew."""
    return _set_ending(store, project, attempt, finished_at=None, outcome=None, exit_code=None, message=None)


def finish_attempt(
    store: Store, clock: Clock, project: str, attempt: int, *, outcome: str, exit_code: int, message: str = ""
) -> Attempt:
    """Record how an attempt ended: done, refused, interrupted or failed."""
    storable = message.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()  # as names of files may not be
    return _set_ending(
        store, project, attempt, finished_at=clock.now(), outcome=outcome, exit_code=exit_code, message=storable
    )


def list_attempts(store: Store, project: str) -> list[Attempt]:
    """The project's attempts, oldest first."""
    query = select(attempts).where(attempts.c.project == project).order_by(attempts.c.attempt)
    with store.read() as connection:
        return [Attempt(**row._mapping) for row in connection.execute(query)]


def latest_attempt(store: Store, project: str) -> Attempt | None:
    """The project's newest attempt, None before the first."""
    known = list_attempts(store, project)
    return known[-1] if known else None


def _set_ending(store: Store, project: str, attempt: int, **values: Any) -> Attempt:
    which = (attempts.c.project == project) & (attempts.c.attempt == attempt)
    with store.begin() as transaction:
        row = transaction.execute(update(attempts).where(which).values(values).returning(attempts)).one()
    return Attempt(**row._mapping)
