"""`thriftune report`: what an attempt cost, what it gained and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thriftune.errors import BadInput

if TYPE_CHECKING:
    from thriftune.project import Project
    from thriftune.report.model import Report


def report(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    attempt: Annotated[int | None, typer.Option(help="The attempt's number; the latest by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON, for programs.")] = False,
    html: Annotated[Path | None, typer.Option(help="Where to write the page.", show_default=False)] = None,
) -> None:
    """Cost, benefit and quality of an attempt, in the terminal and as one HTML file."""
    from thriftune.cli.records import load_project

    loaded = load_project(project)
    found = read_report(loaded, attempt)
    if as_json:
        from thriftune.report.form import to_json

        if html is not None:
            _written(found, html)
        print(json.dumps(to_json(found), indent=2, allow_nan=False))
        return
    _show(found, html or _usual_place(loaded, found), project)


def read_report(project: Project, attempt: int | None = None) -> Report:
    """The report of an attempt, the latest by default.

    Raises:
        BadInput: the project was never run, or has no such attempt.
    """
    from thriftune.cli.records import opened
    from thriftune.report.build import no_such_attempt
    from thriftune.report.load import load_report
    from thriftune.report.summary import summarise

    with opened(project) as store:
        if store is None:
            raise no_such_attempt(attempt or 1, [])
        return load_report(store, summarise(project.file), attempt)


def show_report(project: Project, page: Path | None = None) -> None:
    """Print the latest attempt's report, as `thriftune run` does at its end.

    Args:
        project: the project.
        page: the HTML report, where it was written already.
    """
    from rich.console import Console

    from thriftune.report.terminal import show

    found = read_report(project)
    show(found, Console(highlight=False), page, _serve(found, project.path))


def _show(found: Report, place: Path, project: Path) -> None:
    """Print the report and write its page; where that cannot be written, the rest is printed all the same."""
    from rich.console import Console

    from thriftune.report.terminal import show

    console = Console(highlight=False)
    try:
        page = _written(found, place)
    except BadInput:
        show(found, console, None, _serve(found, project))
        raise
    show(found, console, page, _serve(found, project))


def _usual_place(project: Project, found: Report) -> Path:
    from thriftune.report.html import report_path

    return report_path(project.root, found.attempt)


def _written(found: Report, place: Path) -> Path:
    from thriftune.report.html import write_html

    return write_html(found, place)


def _serve(found: Report, project: Path) -> str | None:
    """The command that serves the tuned model, where there is one."""
    if found.tuned is None:
        return None
    return "thriftune serve" if project == Path("thriftune.yaml") else f"thriftune serve {project}"
