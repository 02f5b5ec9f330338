"""Opening the database, and the two ways to use it: a write transaction that excludes other writers, and a read of
one consistent moment.

SQLite serves one machine: its write-ahead log does not work over a network file system. PostgreSQL serves several.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Executable,
    Table,
    create_engine,
    event,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy import column as sql_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from thriftune.errors import BadInput, MissingExtra, ThriftuneError
from thriftune.store import tables

BUSY_SECONDS = 30.0  # how long a writer waits for another before it gives up
CONNECT_SECONDS = 5
RESTART_SECONDS = 20.0  # how long a server that answered before is waited for
RETRY_SECONDS = 0.2
MIGRATION_LOCK = 0x7468_7269  # any constant will do for PostgreSQL's advisory lock; this one spells "thri"


@dataclass
class Transaction:
    """An open write transaction; `after_commit` and `after_rollback` are called, in order, when it has ended."""

    connection: Connection
    after_commit: list[Callable[[], None]] = field(default_factory=list)
    after_rollback: list[Callable[[], None]] = field(default_factory=list)

    def execute(
        self, statement: Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Run a statement, once or for each row of `values`."""
        return self.connection.execute(statement, values)

    def insert_if_missing(self, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert a row unless one with its key is there, waiting for whoever is inserting it; whether we did."""
        dialect = postgresql if self.connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table).values(values).on_conflict_do_nothing().returning(*table.primary_key)
        return self.execute(statement).first() is not None


class Store:
    """A database at the newest schema. Safe to use from several threads; each transaction has its own connection.

    Args:
        engine: a SQLAlchemy engine whose schema is at the newest version.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._answered = False
        self.shown = shown_url(engine.url)

    @property
    def url(self) -> str:
        """Where it is, by which another process of ours opens it; it may hold a password, and is shown to nobody."""
        return self._engine.url.render_as_string(hide_password=False)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def begin(self, inside: Transaction | None = None) -> Iterator[Transaction]:
        """One write transaction: committed at the end of the block, rolled back if it raises.

        On SQLite it excludes every other writer from its start (BEGIN IMMEDIATE); on PostgreSQL writers exclude each
        other by the rows they update.

        Args:
            inside: a transaction that is open already; the block then becomes part of it.

        Raises:
            BadInput: the disk is full, the database is read-only, busy for too long, or does not answer.
        """
        if inside is not None:
            yield inside
            return
        with explained(self.shown), self._connect() as connection:
            transaction = Transaction(connection)
            try:
                with connection.execution_options(writes=True).begin():
                    yield transaction
            except BaseException:
                for call in transaction.after_rollback:
                    call()
                raise
        for call in transaction.after_commit:
            call()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one consistent moment of the database and writes nothing.

        Raises:
            BadInput: the database does not answer or cannot be read.
        """
        with explained(self.shown), self._connect() as connection, connection.begin():
            yield connection

    def _connect(self) -> Connection:
        """A connection. A server that answered before and does not now, as while it is restarted, is waited for.

        Nothing has been sent on a connection that is not there, so nothing can be done twice by trying again.
        """
        ends = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                connection = self._engine.connect()
            except OperationalError:
                if not self._answered or self.dialect == "sqlite" or time.monotonic() >= ends:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                self._answered = True
                return connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def open_store(url: str) -> Store:
    """Open the database at `url`, making it or bringing its schema to the newest version where needed.

    Args:
        url: `sqlite:///folder/thriftune.db` or `postgresql+psycopg://user:password@host/database`.

    Raises:
        BadInput: the URL, the file, the folder or the server cannot be used; the schema is newer than this program.
        MissingExtra: PostgreSQL without psycopg.
    """
    parsed = parse_url(url)
    engine = sqlite_engine(parsed) if parsed.get_backend_name() == "sqlite" else postgres_engine(parsed)
    try:
        store = Store(engine)
        if schema_version(store) != tables.SCHEMA:
            migrate(store)
    except BaseException:
        engine.dispose()
        raise
    return store


def parse_url(url: str) -> URL:
    """The URL of a database that we can use; PostgreSQL's with psycopg named as its driver.

    Raises:
        BadInput: it is none.
    """
    expected = "sqlite:///folder/thriftune.db or postgresql+psycopg://user@host/database"
    way_out = "give the address of the database in one of these forms"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise BadInput(
            "this is not the address of a database", "store", "text of another form", expected, way_out
        ) from None
    if parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise BadInput("this kind of database cannot be used", "store", shown_url(parsed), expected, way_out)


def shown_url(url: URL) -> str:
    """The URL as it may be shown: without its password, wherever that was written."""
    return url.set(query={}).render_as_string(hide_password=True)


def sqlite_engine(url: URL) -> Engine:
    """An engine on a SQLite file, with our own hand on its transactions.

    Raises:
        BadInput: the file's folder cannot be made or written.
    """
    path = Path(str(url.database)).absolute()
    check_place(path)
    engine = create_engine(
        url.set(database=str(path)), connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver would begin late and only for some statements
        # FULL syncs the log at each commit: with NORMAL a power cut takes the newest commits, charges among them.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def check_place(path: Path) -> None:
    """Make the folder of a database file, and see that both can be written.

    Raises:
        BadInput: they cannot.
    """
    way_out = "choose another folder, or make this one writable"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise BadInput("the database is a folder", str(path), "a folder", "a file", "name a file inside it")
    except OSError as error:
        found = str(error.strerror)
        raise BadInput(
            "the database's folder cannot be used", str(path.parent), found, "a folder to write to", way_out
        ) from None
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise BadInput("the database cannot be written", str(place), "read-only", "a place to write to", way_out)


def postgres_engine(url: URL) -> Engine:
    """An engine on a PostgreSQL server.

    Raises:
        MissingExtra: psycopg is not installed.
    """
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
    try:
        engine = create_engine(url, connect_args=patience, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "PostgreSQL needs psycopg, which is not installed",
            shown_url(url),
            f"no module {error.name}",
            "the extra `postgres`",
            "pip install 'thriftune[postgres]'",
        ) from None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("writes", False):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    return engine


def schema_version(store: Store) -> str | None:
    """The schema's version as the database records it; None for a database without our tables."""
    with store.read() as connection:
        return _recorded_version(connection)


def migrate(store: Store) -> None:
    """Bring the schema to the newest version; two processes that try at once do it one after the other.

    Raises:
        BadInput: the schema comes from a newer Thriftune, or the tables belong to another program.
    """
    with store.begin() as transaction:
        if store.dialect == "postgresql":
            transaction.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        version = _recorded_version(transaction.connection)
        if version is not None and version > tables.SCHEMA:
            raise BadInput(
                "the database was written by a newer Thriftune",
                store.shown,
                f"schema {version}",
                f"schema {tables.SCHEMA} or older",
                "pip install --upgrade thriftune",
            )
        if version is None and (
            foreign := set(inspect(transaction.connection).get_table_names()) & set(tables.metadata.tables)
        ):
            raise BadInput(
                "the database holds another program's tables under names that Thriftune uses",
                store.shown,
                ", ".join(sorted(foreign)),
                "an empty database, or one of Thriftune's",
                "give Thriftune a database of its own",
            )
        if version != tables.SCHEMA:
            from thriftune.store.migrations import upgrade

            upgrade(transaction.connection)


def _recorded_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(tables.VERSION_TABLE):
        return None
    version = connection.execute(select(sql_column("version_num")).select_from(table(tables.VERSION_TABLE))).scalar()
    return None if version is None else str(version)


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Turn what a database driver says into an error that a person can act on; what we do not know passes as it is."""
    try:
        yield
    except DBAPIError as error:
        known = explain(error, shown)
        if known is None:
            raise
        raise known from None


SQLITE_ERRORS = {
    sqlite3.SQLITE_FULL: (
        "the disk is full",
        "no room left",
        "room for the database",
        "free some space, then run again",
    ),
    sqlite3.SQLITE_READONLY: (
        "the database cannot be written",
        "read-only",
        "a database to write to",
        "make the file and its folder writable",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the database cannot be opened",
        "it cannot be opened",
        "a file in a writable folder",
        "check the path and its permissions",
    ),
    sqlite3.SQLITE_NOTADB: (
        "this file is no database",
        "a file of another kind",
        "a SQLite database",
        "move the file away, or name another",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "the database is damaged",
        "a malformed file",
        "a whole SQLite database",
        "restore it from a copy, or move it away to begin anew",
    ),
    sqlite3.SQLITE_BUSY: (
        "another process keeps the database busy",
        f"locked for {BUSY_SECONDS:.0f} s",
        "a free moment",
        "end the other process, then run again",
    ),
    sqlite3.SQLITE_IOERR: (
        "the database's disk fails or has no room left",
        "an input/output error",
        "a disk that takes writes",
        "check the disk and its free space, then run again",
    ),
}

# SQLSTATE classes and codes: PostgreSQL's manual, appendix A.
POSTGRES_ERRORS = {
    "53100": ("the server's disk is full", "free some space on the server, then run again"),
    "53300": ("the server takes no more connections", "close some, or raise max_connections"),
    "42501": ("the server refuses this user", "grant the user the right to create and write tables"),
    "25006": ("the server is read-only", "name the primary server"),
    "28": ("the server refuses this user", "check the user and the password"),
    "3D": ("there is no such database on the server", "create it: createdb NAME"),
    "08": ("the connection to the server broke", "check that the server runs, then run again"),
    "57": ("the server shut the connection", "check that the server runs, then run again"),
}


def explain(error: DBAPIError, shown: str) -> ThriftuneError | None:
    """The error to show for a driver's, or None when it is a defect of ours."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        told = SQLITE_ERRORS.get(code & 0xFF) if code is not None else None
        return BadInput(told[0], shown, *told[1:]) if told else None
    state, said = getattr(cause, "sqlstate", None), str(cause).strip().splitlines()
    found = f"SQLSTATE {state}"
    if state is None and type(cause).__name__ in ("OperationalError", "ConnectionTimeout"):
        if not error.connection_invalidated:
            return BadInput(
                "the database server gives no connection",
                shown,
                said[-1],
                "a PostgreSQL server that takes this user and database",
                "start the server, or correct the address, the user or the password",
            )
        state, found = "08", said[0]  # there was a connection, and it broke without a last word of the server's
    told_pg = POSTGRES_ERRORS.get(state or "") or POSTGRES_ERRORS.get((state or "")[:2])
    return BadInput(told_pg[0], shown, found, "a server that takes the write", told_pg[1]) if told_pg else None
