"""`thriftune watchdog`: ends the leases of owners that are dead, and stops the machines that they left behind."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from thriftune.project import Project


def watchdog(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    interval: Annotated[str, typer.Option(help="Time from one look to the next.")] = "60s",
    patience: Annotated[
        str, typer.Option(help="How long an owner on another boot, container or machine may give no sign of life.")
    ] = "30s",
) -> None:
    """End the lease of a run whose process is dead, charge it up to its last sign of life, and run compute.stop.

    Runs beside a run, in a process of its own, until it is interrupted. A live owner is never touched.
    """
    from thriftune.cli.records import load_project

    seconds = {"--interval": _seconds(interval, "--interval"), "--patience": _seconds(patience, "--patience")}
    loaded = load_project(project)
    while True:
        failed = _look(loaded, seconds["--patience"])
        if once:
            if failed:
                raise typer.Exit(1)
            return
        time.sleep(max(1.0, seconds["--interval"]))


def _look(loaded: Project, patience: float) -> bool:
    """Look at every lease of the project once; whether a machine that should be stopped could not be."""
    from thriftune.budget.alerts import notified
    from thriftune.cli.records import opened
    from thriftune.clock import SystemClock
    from thriftune.events import EventLog, latest_attempt
    from thriftune.money import watchdog as dog

    file, clock = loaded.file, SystemClock()
    with opened(loaded) as store:
        last = None if store is None else latest_attempt(store, file.name)
        if store is None or last is None:
            print(f"{file.name}: nothing to watch, it was never run")
            return False
        looks = dog.look(store, clock, file.name, patience)
        for each in looks:
            print(f"{file.name}: machine {each.machine}: {each.said}")
        if not looks:
            print(f"{file.name}: nobody is at work")
        failed = False
        for ended in dog.unstopped(store, clock, file.name) if file.compute.stop else ():
            stopped = dog.stop(store, clock, ended, str(file.compute.stop))
            failed = failed or not stopped
            how = "was run" if stopped else "failed and is tried again at the next look"
            print(f"{file.name}: the stop command of machine {ended.data['machine']} {how}")
        notifier = notified(EventLog(store, clock, file.name, last.attempt), file.budget.notify)
        if notifier is not None:
            notifier.finish()
        sys.stdout.flush()
    return failed


def _seconds(text: str, where: str) -> float:
    from thriftune.errors import BadInput
    from thriftune.options import parse_seconds

    try:
        return parse_seconds(text)
    except ValueError as error:
        raise BadInput("this is no duration", where, text, str(error), "give one, such as 60s") from None
