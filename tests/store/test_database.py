from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, make_url, select, text, update

from thriftune.errors import BadInput, MissingExtra, ThriftuneError
from thriftune.store import Store, open_store, tables
from thriftune.store import migrations as migrations_package


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder}/thriftune.db"


def refusal(do: Callable[[], object], kind: type[ThriftuneError] = BadInput) -> ThriftuneError:
    """The error of a refused call, with every part that a person needs."""
    with pytest.raises(kind) as caught:
        do()
    error = caught.value
    assert error.what and error.where and error.found and error.expected and error.way_out
    return error


def test_the_migrations_make_exactly_the_tables(store_url: str) -> None:
    store = open_store(store_url)
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == tables.SCHEMA
    store.close()


def test_the_schema_that_the_code_knows_is_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(Path(migrations_package.__file__).parent))
    assert scripts.get_current_head() == tables.SCHEMA


def test_an_existing_database_opens_fast_and_without_the_migration_tool(tmp_path: Path) -> None:
    open_store(sqlite_url(tmp_path)).close()
    program = (
        "import sys, time; from thriftune.store import open_store; began = time.perf_counter();"
        f"open_store({sqlite_url(tmp_path)!r}); took = time.perf_counter() - began;"
        "assert 'alembic.command' not in sys.modules; assert took < 0.3, took"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_processes_that_open_a_new_database_at_once_migrate_it_once(store_url: str) -> None:
    program = (
        f"import sys; from thriftune.store import open_store; sys.stdin.read(1); open_store({store_url!r}).close()"
    )
    children = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(3)]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0, 0, 0]


def test_a_write_transaction_keeps_other_writers_out_and_readers_in(store_url: str) -> None:
    store = open_store(store_url)
    with store.begin() as transaction:
        transaction.execute(insert(tables.projects).values(project="p", last_seq=0))
    count = tables.projects.c.last_seq

    def add_one() -> None:
        for _ in range(20):
            with store.begin() as transaction:
                row = transaction.execute(select(count).with_for_update()).scalar_one()
                transaction.execute(update(tables.projects).values(last_seq=row + 1))
            with store.read() as connection:
                assert connection.execute(select(count)).scalar_one() > row

    threads = [threading.Thread(target=add_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        assert connection.execute(select(count)).scalar_one() == 80
    store.close()


def test_a_reader_sees_one_moment(store_url: str) -> None:
    store = open_store(store_url)
    with store.read() as connection:
        before = connection.execute(select(tables.projects)).all()
        with store.begin() as transaction:
            transaction.execute(insert(tables.projects).values(project="p", last_seq=0))
        assert connection.execute(select(tables.projects)).all() == before == []
    store.close()


def test_a_block_that_raises_leaves_nothing_and_calls_what_waits_for_that(store_url: str) -> None:
    store = open_store(store_url)
    called: list[str] = []

    def fail() -> None:
        with store.begin() as transaction:
            transaction.after_commit.append(lambda: called.append("committed"))
            transaction.after_rollback.append(lambda: called.append("rolled back"))
            transaction.execute(insert(tables.projects).values(project="p", last_seq=0))
            raise KeyError("of the test")

    with pytest.raises(KeyError, match="of the test"):
        fail()
    with store.read() as connection:
        assert connection.execute(select(tables.projects)).all() == []
    assert called == ["rolled back"]
    store.close()


def test_the_log_is_synced_at_each_commit(tmp_path: Path) -> None:
    store = open_store(sqlite_url(tmp_path))
    with store.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "thriftune.db",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://root:secret@host/db",
        "postgresql+asyncpg://u:secret@h/d",
    ],
)
def test_an_address_of_another_form_is_refused(url: str) -> None:
    assert "secret" not in str(refusal(lambda: open_store(url)))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "thriftune.db").write_bytes(b"text,label\n" * 1000)
    error = refusal(lambda: open_store(sqlite_url(tmp_path)))
    assert error.what == "this file is no database"
    assert (tmp_path / "thriftune.db").read_bytes() == b"text,label\n" * 1000


def test_a_folder_in_the_database_s_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "thriftune.db").mkdir()
    assert refusal(lambda: open_store(sqlite_url(tmp_path))).what == "the database is a folder"


def test_a_file_in_the_folder_s_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder")
    assert "state" in refusal(lambda: open_store(sqlite_url(tmp_path / "state"))).where


def test_a_newer_schema_is_refused_untouched(store_url: str) -> None:
    store = open_store(store_url)
    with store.begin() as transaction:
        transaction.execute(text(f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'"))
    store.close()
    error = refusal(lambda: open_store(store_url))
    assert "newer" in error.what and "9999" in error.found


def test_another_program_s_tables_are_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "thriftune.db") as connection:
        connection.execute("CREATE TABLE events (id INTEGER)")
    assert refusal(lambda: open_store(sqlite_url(tmp_path))).found == "events"


def test_a_database_that_another_keeps_busy_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thriftune.store.database.BUSY_SECONDS", 0.1)
    store = open_store(sqlite_url(tmp_path))
    with sqlite3.connect(tmp_path / "thriftune.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BadInput, match="busy"), store.begin():
            pass
    store.close()


@pytest.fixture
def place_for_anyone() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def said_in_a_child(do: Callable[[], object], as_anyone: bool = False) -> str:
    """What a call says in a child process, whose limits can be lowered and whose user is held back by permissions."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        if as_anyone and os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            do()
            said = "nothing"
        except ThriftuneError as error:
            said = str(error)
        except BaseException as error:
            said = f"defect: {error!r}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_read_only_folder_is_named(place_for_anyone: Path) -> None:
    place_for_anyone.chmod(0o555)
    said = said_in_a_child(lambda: open_store(sqlite_url(place_for_anyone)), as_anyone=True)
    assert said.startswith(f"{place_for_anyone}: the database cannot be written\n  found:    read-only\n")
    assert list(place_for_anyone.iterdir()) == []


def test_a_read_only_database_is_named(place_for_anyone: Path) -> None:
    open_store(sqlite_url(place_for_anyone)).close()
    (place_for_anyone / "thriftune.db").chmod(0o444)
    place_for_anyone.chmod(0o777)
    said = said_in_a_child(lambda: open_store(sqlite_url(place_for_anyone)), as_anyone=True)
    assert "thriftune.db: the database cannot be written" in said


def test_a_folder_that_may_not_be_entered_is_named(place_for_anyone: Path) -> None:
    place_for_anyone.chmod(0o700)
    if os.geteuid() != 0:
        place_for_anyone.chmod(0o000)
    said = said_in_a_child(lambda: open_store(sqlite_url(place_for_anyone / "inner")), as_anyone=True)
    assert "the database's folder cannot be used" in said


def fill(store: Store) -> None:
    for number in range(1000):
        with store.begin() as transaction:
            transaction.execute(insert(tables.projects).values(project=f"{number}", last_seq=0))
            values = {"attempt": 1, "recipe": "x" * 10_000, "started_at": 0.0}
            transaction.execute(insert(tables.attempts).values(project=f"{number}", **values))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_one_clear_message_and_loses_nothing(small_disk: Path) -> None:
    store = open_store(sqlite_url(small_disk))
    error = refusal(lambda: fill(store))
    assert error.what == "the disk is full"
    with store.read() as connection:
        projects = connection.execute(select(tables.projects.c.project)).all()
        attempts = connection.execute(select(tables.attempts.c.project)).all()
    assert 0 < len(projects) == len(attempts) < 1000
    store.close()


def test_a_file_that_may_not_grow_is_one_clear_message(tmp_path: Path) -> None:
    def limited() -> None:
        store = open_store(sqlite_url(tmp_path))
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        fill(store)

    said = said_in_a_child(limited)
    assert "the database's disk fails or has no room left" in said or "the disk is full" in said


def test_a_server_that_does_not_answer_is_named_without_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        error = refusal(lambda: open_store(f"postgresql://me:hush-hush@127.0.0.1:{port}/db?password=hush-hush"))
    assert "gives no connection" in error.what and f"127.0.0.1:{port}" in error.where
    assert "hush-hush" not in str(error)


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/db?connect_timeout=2"
        assert "gives no connection" in refusal(lambda: open_store(url)).what
        assert time.monotonic() - began < 10


def test_a_connection_that_breaks_without_a_word_is_no_matter_of_the_address(postgres_url: str) -> None:
    address = make_url(postgres_url)
    with socket.create_server(("127.0.0.1", 0)) as between:
        pairs: list[socket.socket] = []

        def carry(one: socket.socket, other: socket.socket) -> None:
            with suppress(OSError):
                while data := one.recv(65536):
                    other.sendall(data)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client = between.accept()[0]
                    server = socket.create_connection((address.host, address.port))
                    pairs.extend((client, server))
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=carry, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        through = address.set(port=between.getsockname()[1]).render_as_string(hide_password=False)
        store = open_store(through)

        def broken_off() -> None:
            with store.begin() as transaction:
                transaction.execute(text("SELECT 1"))
                for end in pairs:
                    end.shutdown(socket.SHUT_RDWR)
                transaction.execute(text("SELECT 1"))

        error = refusal(broken_off)
        store.close()
    assert error.what == "the connection to the server broke" and "run again" in error.way_out


def test_a_database_that_is_not_on_the_server_is_named(postgres_url: str) -> None:
    error = refusal(lambda: open_store(postgres_url.rpartition("/")[0] + "/missing"))
    assert "missing" in error.found


def test_a_user_without_rights_is_told(fresh_postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(fresh_postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
    error = refusal(lambda: open_store(fresh_postgres_url.replace("tester@", "guest@")))
    assert "refuses this user" in error.what


def test_a_missing_driver_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"  # what an import finds where the package is not installed
        "from thriftune.store import open_store\n"
        "from thriftune.errors import MissingExtra\n"
        "try: open_store('postgresql://me:hush@h/d')\n"
        "except MissingExtra as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "thriftune[postgres]" in said and "hush" not in said
    assert issubclass(MissingExtra, ThriftuneError)
