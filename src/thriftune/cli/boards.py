"""`thriftune timeline sync`: a timeline and a board of Asana's or Trello's, kept in step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thriftune.errors import BadInput

if TYPE_CHECKING:
    from thriftune.timeline.boards.api import Api
    from thriftune.timeline.boards.items import Board
    from thriftune.timeline.boards.sync import Change

LOCK = "timeline-sync.lock"


class Service(StrEnum):
    """Where a board is."""

    ASANA = "asana"
    TRELLO = "trello"


def sync(
    service: Annotated[Service, typer.Argument(help="Whose board.")],
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    place: Annotated[
        str,
        typer.Option("--board", "--project", help="The board's or project's id, from its address.", show_default=False),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Put phases and tasks on a board, and take over what people changed of their tasks there.

    Tokens come from the environment: ASANA_ACCESS_TOKEN, or TRELLO_API_KEY and TRELLO_API_TOKEN.
    """
    from filelock import FileLock, Timeout

    from thriftune.cli.records import load_project, opened
    from thriftune.cli.timeline import timeline_in
    from thriftune.clock import SystemClock
    from thriftune.events import EventLog
    from thriftune.report.load import reader
    from thriftune.timeline.boards.items import items_of
    from thriftune.timeline.boards.sync import KIND, kept_of, pull, push
    from thriftune.timeline.told import OUTSIDE

    loaded = load_project(project)
    file = loaded.file
    clock = SystemClock()
    api = _api(service, os.environ)
    board = _board(service, api, place, file.timeline.people.time_zone)
    with opened(loaded) as store, api:
        items = items_of(timeline_in(loaded, store))
        if store is None:
            raise AssertionError("a timeline comes from a record")
        log = None if dry_run else EventLog(store, clock, file.name, OUTSIDE)
        lock = FileLock(loaded.root / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BadInput(
                "another synchronisation is at work",
                where=str(lock.lock_file),
                found="a lock that is held",
                expected="one at a time, so that nothing is made twice",
                way_out="wait until it has ended",
            ) from None
        changes: list[Change] = []
        try:
            kept = kept_of(reader(store, file.name).read(kinds=[KIND]), board.service, board.place)
            print(f"{board.service}: {_printable(board.name())}")
            seen = pull(board, items, kept, file.timeline, clock.now(), log)
            for change in seen.changes:
                _tell(change, changes)
            if seen.told and not dry_run:
                items = items_of(timeline_in(loaded, store))
            for change in push(board, items, seen.entries, kept, clock.now(), log):
                _tell(change, changes)
        finally:
            lock.release()
    refused = [change for change in changes if change.what == "refused"]
    done = len(changes) - len(refused) - sum(change.what == "left alone" for change in changes)
    print(f"{done} change{'' if done == 1 else 's'}{' to make' if dry_run else ''}, {len(items)} entries")
    if refused:
        raise BadInput(
            f"{board.service} did not take everything",
            where=", ".join(change.title for change in refused),
            found=refused[0].detail,
            expected="entries that it takes",
            way_out="mend what it says and run the same command again; the rest is done",
        )


def _tell(change: Change, changes: list[Change]) -> None:
    changes.append(change)
    print(_printable(f"  {change.what}: {change.title}{f' ({change.detail})' if change.detail else ''}"), flush=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _api(service: Service, environment: Mapping[str, str]) -> Api:
    """The service's API, with the tokens of the environment."""
    from thriftune.timeline.boards import asana, trello
    from thriftune.timeline.boards.api import Api, secret_of

    if service is Service.ASANA:
        token = secret_of(environment, asana.TOKEN, service)
        address = environment.get("THRIFTUNE_ASANA_URL") or asana.ADDRESS
        return Api(service, address, {"Authorization": f"Bearer {token}"}, [token])
    key, token = (secret_of(environment, name, service) for name in (trello.KEY, trello.TOKEN))
    address = environment.get("THRIFTUNE_TRELLO_URL") or trello.ADDRESS
    return Api(service, address, {"Authorization": trello.authorization(key, token)}, [token, key])


def _board(service: Service, api: Api, place: str, zone: str) -> Board:
    from thriftune.timeline.boards.asana import Asana
    from thriftune.timeline.boards.trello import Trello

    return Asana(api, place, zone) if service is Service.ASANA else Trello(api, place)
