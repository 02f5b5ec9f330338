"""Opening a project's record to read from it, where it has one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thriftune.project import Project
    from thriftune.store import Store


def load_project(path: Path) -> Project:
    """The project file, to report on what was done: it does not matter whether it could still be run.

    Raises:
        BadInput: it cannot be read, or says what cannot be.
    """
    from thriftune.project import Project

    return Project.load(path, to_run=False)


@contextmanager
def opened(project: Project) -> Iterator[Store | None]:
    """The project's database; None where no run has made one yet, and none is made here.

    Raises:
        BadInput: it cannot be opened.
    """
    from sqlalchemy.engine import make_url

    from thriftune.session import database_url
    from thriftune.store import open_store

    url = database_url(project)
    parsed = make_url(url)
    if parsed.drivername == "sqlite" and not Path(str(parsed.database)).exists():
        yield None
        return
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()
