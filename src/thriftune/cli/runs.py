"""`thriftune runs`: every attempt, what was changed for it, what it cost, what it gained, its verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from thriftune.project import Project
    from thriftune.report.attempts import AttemptLine

MANY_CHANGES = 4  # shown of an attempt; the JSON has them all


def runs(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="The attempts as JSON, for programs.")] = False,
) -> None:
    """Every attempt: what changed, what it cost, what it gained, its verdict."""
    from thriftune.cli.records import load_project

    lines = read_runs(load_project(project))
    if as_json:
        print(json.dumps({"attempts": [_as_json(line) for line in lines]}, indent=2, allow_nan=False))
    else:
        _show(lines)


def read_runs(project: Project) -> tuple[AttemptLine, ...]:
    """The project's attempts, oldest first; none where it was never run."""
    from thriftune.cli.records import opened
    from thriftune.report.attempts import attempt_lines
    from thriftune.report.load import read_events
    from thriftune.report.summary import summarise

    with opened(project) as store:
        if store is None:
            return ()
        return attempt_lines(summarise(project.file), read_events(store, project.file.name))


def _as_json(line: AttemptLine) -> dict[str, Any]:
    from thriftune.report.form import money

    quality, gain = line.quality, line.gain
    return {
        "attempt": line.attempt,
        "started_at": line.started_at,
        "outcome": line.outcome,
        "changed": None if line.changed is None else list(line.changed),
        "cost": money(line.cost),
        "currency": line.currency,
        "seconds": line.seconds,
        "metric": line.metric,
        "quality": None if quality is None else {"value": quality.value, "low": quality.low, "high": quality.high},
        "gain": None
        if gain is None
        else {
            "baseline": gain.baseline,
            "difference": gain.difference,
            "low": gain.low,
            "high": gain.high,
            "outcome": gain.outcome,
        },
        "verdict": line.decision,
    }


def _show(lines: Sequence[AttemptLine]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not lines:
        print("no attempt yet; `thriftune run` makes the first")
        return
    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, show_edge=False)
    for header in ("#", "started", "what changed", "cost", "time", "quality", "gain", "verdict"):
        table.add_column(header, justify="right" if header in ("#", "cost", "time") else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in _cells(line)))
    console.print(table)


def _cells(line: AttemptLine) -> tuple[str, ...]:
    from thriftune.report.wording import duration, estimate, instant, metric_name, money, plain, points, predictor_name

    gain, quality = "", ""
    if line.gain is not None:
        low, high = points(100 * line.gain.low), points(100 * line.gain.high)
        gain = f"{points(100 * line.gain.difference)} ({low} to {high}) over {predictor_name(line.gain.baseline)}"
    if line.quality is not None:
        quality = f"{metric_name(line.metric)} {estimate(line.quality)}"
    return (
        str(line.attempt),
        instant(line.started_at).removesuffix(" UTC"),
        plain(_changes(line)),
        money(line.cost, line.currency),
        duration(line.seconds),
        quality,
        gain,
        line.decision or line.outcome or "not ended",
    )


def _changes(line: AttemptLine) -> str:
    if line.changed is None:
        return "not recorded"
    if not line.changed:
        return "the first" if line.attempt == 1 else "nothing"
    more = len(line.changed) - MANY_CHANGES
    return "; ".join(line.changed[:MANY_CHANGES]) + (f"; and {more} more" if more > 0 else "")
