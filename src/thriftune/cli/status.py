"""`thriftune status`: where a project stands right now. Nothing heavy is imported and nothing is written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from thriftune.project import Project
    from thriftune.report.state import State
    from thriftune.store import Store

NEXT = {
    "not started": "`thriftune plan` says what it will take, `thriftune run` does it",
    "planned": "`thriftune run` does it",
    "waiting": "it begins by itself when it is its turn",
    "running": "`thriftune status --follow` watches it",
    "finished": "`thriftune report` shows what came out",
    "refused": "see what `thriftune plan` says, or give it more",
    "interrupted": "`thriftune run` goes on from here",
    "died": "`thriftune run` goes on from the last checkpoint",
    "failed": "mend the cause, then `thriftune run` goes on",
}


def status(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch a run at work until it ends.")] = False,
) -> None:
    """Where it is: stage, step, money and time left, and whether somebody is at work on it."""
    from thriftune.cli.records import load_project, opened

    loaded = load_project(project)
    with opened(loaded) as store:
        state = read(store, loaded)
        if follow and store is not None and state.state == "running":
            attach(store, loaded, as_json)
            if as_json:
                return
            state = read(store, loaded)
    print(json.dumps(as_plain(state), indent=2, allow_nan=False) if as_json else "\n".join(lines(state)))


def read(store: Store | None, project: Project) -> State:
    """Where the project stands, as of now."""
    from thriftune.report.state import State, read_state

    name = project.file.name
    return State(name, "not started") if store is None else read_state(store, name, time.time())


def attach(store: Store, project: Project, as_json: bool = False) -> None:
    """Show the progress of the process that is at work on the project until it ends."""
    from thriftune.cli import progress
    from thriftune.report.load import reader
    from thriftune.report.state import is_alive, newest_event, owner_of

    name = project.file.name
    newest = newest_event(store, name)
    if newest is None:
        return
    earlier = [event for event in reader(store, name).read(kinds=["charge"]) if event.attempt < newest.attempt]
    spent = sum((Decimal(event.data["amount"]) for event in earlier), Decimal(0))

    def at_work() -> bool:
        owner = owner_of(store, name)
        return owner is not None and owner.attempt == newest.attempt and is_alive(owner, time.time())

    with progress.subscriber(progress.mode_for(as_json, sys.stdout), spent=spent) as watch:
        progress.follow(store, name, newest.attempt, watch, at_work)


def as_plain(state: State) -> dict[str, Any]:
    """The state as plain JSON values; money is decimal text."""
    from thriftune.report.form import money

    told = {name: value for name, value in vars(state).items() if name not in ("spent", "budget")}
    return {**told, "spent": money(state.spent), "budget": money(state.budget)}


def lines(state: State) -> Iterator[str]:
    """The state for people."""
    from thriftune.report.wording import duration, money, plain, spaced

    attempt = "" if state.attempt is None else f", attempt {state.attempt}"
    process = "" if state.pid is None else f" (process {state.pid})"
    yield f"{plain(state.project)}{attempt}: {state.state}{process}"
    if state.message:
        yield f"  {plain(state.message)}"
    if state.stage is not None:
        yield f"  stage      {spaced(state.stage)}"
    if state.step is not None:
        yield f"  training   {_step(state)}"
    if state.spent is not None:
        yield f"  spent      {money(state.spent, state.currency)} of {money(state.budget, state.currency)}"
    if state.seconds_left is not None:
        late = state.seconds_left < 0
        yield f"  deadline   {duration(abs(state.seconds_left))} {'ago' if late else 'left'}"
    if state.last_event is not None:
        yield f"  last sign  {duration(state.last_event_age_s)} ago: {state.last_event}"
    if state.state in NEXT:
        yield f"  next       {NEXT[state.state]}"


def _step(state: State) -> str:
    from thriftune.report.wording import duration, score

    told = f"step {state.step:,}" if state.planned is None else f"step {state.step:,} of {state.planned:,}"
    if state.loss is not None:
        told += f", loss {score(state.loss)}"
    if state.state == "running" and state.planned is not None and state.step_seconds is not None:
        to_do = max(0, state.planned - (state.step or 0)) * state.step_seconds
        told += f", about {duration(to_do)} of steps to do"
    return told
