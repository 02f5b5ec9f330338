"""What several test folders share: databases, each fresh, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from thriftune.store import Store, open_store

hypothesis.settings.register_profile("shared machine", deadline=None)  # a busy neighbour is no failure
hypothesis.settings.load_profile("shared machine")

SERVER_USER = "postgres"  # Debian's package makes it; the server refuses to run as root
SERVER_OPTIONS = "-c fsync=off -c listen_addresses=127.0.0.1 -c max_connections=50 -c shared_buffers=16MB"


def pytest_configure() -> None:
    """Give each of several test processes a core of its own: threads that wait for each other's cores take far longer.

    What a test starts inherits it.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def server_programs() -> Path:
    """The folder of PostgreSQL's server programs."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (str(installed[-1]) if installed else None)
    if found is None:
        pytest.fail("PostgreSQL's server programs (initdb, pg_ctl) are not installed: run `make setup`", pytrace=False)
    return Path(found).parent


def as_server_user(command: list[str]) -> None:
    """Run a server program as an unprivileged user."""
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={SERVER_USER}", f"--regid={SERVER_USER}", "--clear-groups", *command]
    # The server outlives pg_ctl and would hold a captured pipe open: what it says goes to a file.
    with tempfile.TemporaryFile("w+") as said:
        if subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, cwd="/", check=False).returncode != 0:
            said.seek(0)
            pytest.fail(f"{' '.join(command)} failed:\n{said.read()}", pytrace=False)


def free_port() -> int:
    """A port on the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server of the tests': the URL of a database on it, and how it is started anew."""

    url: str
    restart: Callable[[], None]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server that runs for the time of the tests."""
    programs = server_programs()
    folder = Path(tempfile.mkdtemp(prefix="thriftune-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, SERVER_USER, SERVER_USER)
    data, port = folder / "data", free_port()
    try:
        as_server_user(
            [str(programs / "initdb"), "-D", str(data), "-U", "tester", "--auth=trust", "--no-sync", "-E", "UTF8"]
        )
        options = f"{SERVER_OPTIONS} -p {port} -k {folder}"
        log = str(folder / "log")
        as_server_user([str(programs / "pg_ctl"), "-D", str(data), "-l", log, "-w", "-o", options, "start"])
        try:
            control = [str(programs / "pg_ctl"), "-D", str(data), "-l", log, "-w", "-o", options]
            url = f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
            yield Server(url, lambda: as_server_user([*control, "-m", "fast", "restart"]))
        finally:
            as_server_user([str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: Server) -> str:
    """The URL of a database on that server."""
    return postgres_server.url


@pytest.fixture
def fresh_postgres_url(postgres_url: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test's own."""
    import psycopg

    server = postgres_url.replace("+psycopg", "")
    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of this test's own, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/thriftune.db"
    return str(request.getfixturevalue("fresh_postgres_url"))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database that tests share under projects and machines of their own (`unused_name`)."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('shared')}/thriftune.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def shared_store(shared_url: str) -> Iterator[Store]:
    """The open store at `shared_url`."""
    store = open_store(shared_url)
    yield store
    store.close()


_numbers = itertools.count(1)


@pytest.fixture
def unused_name() -> str:
    """A name for a project or a machine that no other test uses."""
    return f"name-{next(_numbers)}"
