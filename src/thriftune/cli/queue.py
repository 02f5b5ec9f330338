"""`thriftune queue`: who works on this machine, who waits for it, and in which order."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from thriftune.money.queue import Ticket


def queue(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Who is at work on this machine and who waits, the next one first, with priority, deadline and slack.

    With THRIFTUNE_DATABASE_URL, the machines of all who share that database.
    """
    from sqlalchemy.engine import make_url

    from thriftune.money.queue import queue_url, tickets
    from thriftune.session import DATABASE_VARIABLE
    from thriftune.store import open_store

    url = queue_url(os.environ.get(DATABASE_VARIABLE))
    file = make_url(url)
    found: list[Ticket] = []
    if file.drivername != "sqlite" or Path(str(file.database)).exists():  # nothing is made here
        store = open_store(url)
        try:
            found = tickets(store, time.time())
        finally:
            store.close()
    now = time.time()
    if as_json:
        print(json.dumps([as_plain(ticket, now) for ticket in found], indent=2, allow_nan=False))
    elif not found:
        print("nobody is at work on this machine, and nobody waits for it")
    else:
        _show(found, now)


def as_plain(ticket: Ticket, now: float) -> dict[str, Any]:
    """A ticket as plain JSON values, with what follows from it as of now."""
    slack = ticket.slack(now)
    return {
        "machine": ticket.machine,
        "cluster": ticket.cluster,
        "project": ticket.project,
        "folder": ticket.folder,
        "pid": ticket.owner.pid,
        "state": "working" if ticket.working else "waiting",
        "priority": ticket.priority,
        "level": ticket.level(now),
        "deadline_at": ticket.deadline_at,
        "remaining_s": ticket.remaining(now),
        "slack_s": None if math.isinf(slack) else slack,
        "waited_s": ticket.waited(now),
    }


def _show(found: list[Ticket], now: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from thriftune.report.wording import duration, instant, plain

    table = Table(box=None, pad_edge=False, header_style="bold")
    several = len({ticket.machine for ticket in found}) > 1
    on_cluster = any(ticket.cluster for ticket in found)
    where = [*(["machine"] if several else []), *(["cluster"] if on_cluster else [])]
    for heading in [*where, "place", "project", "process", "priority", "level"]:
        table.add_column(heading)
    for heading in ("to do", "deadline", "slack", "waited"):
        table.add_column(heading, justify="right")
    places: dict[str, int] = {}
    for ticket in found:
        places[ticket.machine] = place = places.get(ticket.machine, 0) + (not ticket.working)
        slack = ticket.slack(now)
        told_slack = "none stated" if math.isinf(slack) else ("-" if slack < 0 else "") + duration(abs(slack))
        table.add_row(
            *([plain(ticket.machine[:12])] if several else []),
            *([plain(ticket.cluster or "")] if on_cluster else []),
            "at work" if ticket.working else str(place),
            plain(ticket.project),
            str(ticket.owner.pid),
            str(ticket.priority),
            str(ticket.level(now)),
            duration(ticket.remaining(now)),
            "none" if ticket.deadline_at is None else instant(ticket.deadline_at),
            told_slack,
            duration(ticket.waited(now)),
        )
    Console(highlight=False).print(table)
