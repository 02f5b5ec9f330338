"""`thriftune search`: the trials of a search, and steering it by hand while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from thriftune.events import Event, EventLog
    from thriftune.project import Project
    from thriftune.search.steering import Wish

ProjectFile = Annotated[Path, typer.Option("--project", help="The project file.")]
Trial = Annotated[int, typer.Argument(help="The trial's number, as `thriftune search list` shows it.")]


def list_trials(
    project: ProjectFile = Path("thriftune.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """The trials of the latest search: what each tries, how far it is and how it scores."""
    from thriftune.report.wording import plain, score

    with _latest(project, to_steer=False) as (_, _, own):
        trials = _trials(own)
    if as_json:
        print(json.dumps(trials, indent=2))
        return
    if not trials:
        print("no trial has been looked at yet")
    for trial in trials:
        values = ", ".join(f"{name} {plain(str(value))}" for name, value in trial["values"].items())
        place = f"fold {trial['fold'] + 1}, look {trial['rung']} of {trial['rungs']}"
        by_hand = f"; {trial['by_hand']} by hand" if trial["by_hand"] else ""
        print(f"{trial['trial']:>4}  {score(trial['score'])}  {values} ({place}{by_hand})")


def stop(
    trial: Annotated[int | None, typer.Argument(help="The trial's number; without one, the whole search ends.")] = None,
    project: ProjectFile = Path("thriftune.yaml"),
) -> None:
    """Do not go on with a trial; or end the search and take the best so far."""
    _ask(project, "stop", trial, {})


def resume(trial: Trial, project: ProjectFile = Path("thriftune.yaml")) -> None:
    """See a trial to its end next, whatever the search thinks of it."""
    _ask(project, "resume", trial, {})


def clone(
    trial: Trial,
    changes: Annotated[list[str], typer.Option("--set", help="An option of the space with its value: NAME=VALUE.")],
    project: ProjectFile = Path("thriftune.yaml"),
) -> None:
    """Try next what a trial tries, with changes."""
    from thriftune.errors import BadInput

    pairs = [change.partition("=") for change in changes]
    for name, equals, _ in pairs:
        if not equals:
            raise BadInput("a change has no value", "--set", name, "NAME=VALUE", "such as --set learning_rate=3e-4")
    _ask(project, "clone", trial, {name: value for name, _, value in pairs})


def _ask(path: Path, wish: Wish, trial: int | None, changes: Mapping[str, str]) -> None:
    from thriftune.errors import BadInput
    from thriftune.search.steering import ASKED, Request

    with _latest(path, to_steer=True) as (project, events, own):
        known = {each["trial"]: each for each in _trials(own)}
        if trial is not None and trial not in known:
            raise BadInput(
                "there is no such trial",
                where="TRIAL",
                found=str(trial),
                expected=f"one of {', '.join(map(str, known))}"
                if known
                else "a trial that was looked at; none was yet",
                way_out="`thriftune search list` shows them",
            )
        read = _read(project, known[trial]["values"], changes) if trial is not None else {}
        request = Request(wish, trial, read)
        events.emit(ASKED, wish=wish, trial=trial, changes=dict(read), because=request.because)
    print(f"{request.because}; the search takes it up after the look that it is at")


def _read(project: Project, values: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    """Changes as training reads them, checked together with the rest of the trial's values."""
    from thriftune.errors import BadInput
    from thriftune.search.options import as_read
    from thriftune.search.trainings import checked

    read: dict[str, Any] = {}
    for name, text in changes.items():
        if name not in values:
            raise BadInput(
                "this option is not searched over",
                where="--set",
                found=name,
                expected=", ".join(values),
                way_out="change one of these, or put it into search.space",
            )
        try:
            read[name] = as_read(name, _plain_value(text))
        except ValueError as refusal:
            raise BadInput(
                "an option cannot have this value",
                where=f"--set {name}",
                found=text,
                expected=str(refusal),
                way_out="`docs/project-file.md` says what it may be",
            ) from refusal
    checked(project.file.train, dict(values) | read)
    return read


def _plain_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def _latest(path: Path, to_steer: bool) -> Iterator[tuple[Project, EventLog, list[Event]]]:
    """The project, the log of its latest attempt and that attempt's events.

    Raises:
        BadInput: it has not been run; or, to be steered, it has no search, or one that has ended.
    """
    from thriftune.cli.records import load_project, opened
    from thriftune.clock import SystemClock
    from thriftune.errors import BadInput
    from thriftune.events import EventLog, latest_attempt

    project = load_project(path)
    name = project.file.name
    with opened(project) as store:
        last = None if store is None else latest_attempt(store, name)
        if store is None or last is None:
            raise BadInput(
                "there is no search yet",
                where=str(path),
                found="a project that was never run",
                expected="a run with a search in its project file",
                way_out="`thriftune run` begins one",
            )
        events = EventLog(store, SystemClock(), name, last.attempt)
        own = events.read(attempt=last.attempt, kinds=["search.look", "search.asked", "search.finished"])
        ended = any(event.kind == "search.finished" for event in own)
        if to_steer and (ended or project.file.search is None):
            raise BadInput(
                "there is no search to steer",
                where=str(path),
                found="a search that has ended" if ended else "a project file without search",
                expected="a search that goes on",
                way_out="`thriftune report` shows what it found" if ended else "say what to search over, under search",
            )
        yield project, events, own


def _trials(own: list[Event]) -> list[dict[str, Any]]:
    """The search's own trials at their latest look, the best first; and what was asked for each by hand last."""
    asked: dict[int, str] = {}
    latest: dict[int, dict[str, Any]] = {}
    for event in own:
        data = event.data
        if event.kind == "search.asked" and data["wish"] != "clone" and data["trial"] is not None:
            asked[data["trial"]] = {"stop": "stopped", "resume": "resumed"}[data["wish"]]
        if event.kind == "search.look" and not data["study"]:
            shown = ("values", "fold", "rung", "rungs", "score")
            latest[data["configuration"]] = {"trial": data["configuration"], **{name: data[name] for name in shown}}
    rows = [row | {"by_hand": asked.get(number)} for number, row in latest.items()]
    return sorted(rows, key=lambda row: -row["score"])
