"""`thriftune run` and `thriftune plan`: the line, and what it will take."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from thriftune.project import Project

PROJECT_ARGUMENT = Annotated[Path, typer.Argument(help="The project file.")]


def run(
    project: PROJECT_ARGUMENT = Path("thriftune.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON, one a line, for programs.")] = False,
) -> None:
    """Do it all, inside budget and deadline; go on where an earlier run stopped, or watch the one at work."""
    from thriftune import pipeline
    from thriftune.cli.progress import watch
    from thriftune.cli.report import show_report
    from thriftune.project import Project

    loaded = Project.load(project)
    if _watched(loaded, as_json):
        return
    interrupted = _on_interrupt()
    with watch(loaded, as_json) as listener:
        page = pipeline.run(loaded, [listener], interrupted)
    if not as_json:
        show_report(loaded, page)


def plan(
    project: PROJECT_ARGUMENT = Path("thriftune.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON.")] = False,
) -> None:
    """What each phase will cost and when it ends; the probe of real steps is metered like everything else."""
    from thriftune import pipeline
    from thriftune.cli.plan import show_plan
    from thriftune.cli.progress import watch
    from thriftune.project import Project

    loaded = Project.load(project)
    with watch(loaded, quiet=as_json) as listener:
        made = pipeline.plan(loaded, [listener])
    show_plan(loaded, made, as_json)


def _watched(project: Project, as_json: bool) -> bool:
    """If another process is at work on the project, show its progress to the end instead of starting a second one.

    Raises:
        typer.Exit: with the status that it ended with, where that is not 0.
    """
    from thriftune.cli.records import opened
    from thriftune.cli.status import attach
    from thriftune.errors import EXIT_INTERRUPTED
    from thriftune.events import latest_attempt
    from thriftune.report.state import is_alive, owner_of

    with opened(project) as store:
        owner = None if store is None else owner_of(store, project.file.name)
        if store is None or owner is None or not is_alive(owner, time.time()):
            return False
        print(f"process {owner.owner_pid} is at work on this project; showing its progress", file=sys.stderr)
        attach(store, project, as_json)
        ended = latest_attempt(store, project.file.name)
        if ended is not None and ended.outcome is None:
            print("it ended without notice; the same command goes on from its last checkpoint", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED)
        if ended is not None and ended.exit_code:
            raise typer.Exit(ended.exit_code)
    return True


def _on_interrupt() -> Callable[[], bool]:
    """Ctrl-C (and SIGTERM) once: stop at the next safe moment; a second time: at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("stopping at the next safe moment; press Ctrl-C again to stop at once", file=sys.stderr)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    return lambda: bool(asked)
