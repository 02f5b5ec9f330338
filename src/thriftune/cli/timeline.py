"""`thriftune timeline`: when it will be done, as a Gantt chart, a table, and files for other programs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from thriftune.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from thriftune.project import Project
    from thriftune.store import Store
    from thriftune.timeline.timeline import Timeline

PIPE_WIDTH = 120  # columns when nobody watches
SHOW = "show"


class ShowByDefault(TyperGroup):
    """The commands of a timeline: what names none of them is shown."""

    by_default = SHOW

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command that shows before arguments that name no other."""
        named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        parsed: list[str] = super().parse_args(ctx, args if named else [SHOW, *args])
        return parsed


def timeline(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    attempt: Annotated[int | None, typer.Option(help="The attempt's number; the latest by default.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write it as FILE.ics, FILE.csv or FILE.mmd (Mermaid).", show_default=False)
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Write the Gantt chart as FILE.svg.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The timeline as JSON.")] = False,
) -> None:
    """Phases and people's tasks in time, the critical path, buffers, and the chance of the deadline."""
    from thriftune.cli.records import load_project
    from thriftune.report.gantt import gantt_picture
    from thriftune.report.svg import write_picture
    from thriftune.timeline.exports import export as write
    from thriftune.timeline.exports import exporter, to_json

    if export is not None:
        exporter(export)  # refused before anything is read
    found = read_timeline(load_project(project), attempt)
    if export is not None:
        write(found, export)
    if picture is not None:
        write_picture(gantt_picture(found), picture)
    if as_json:
        print(json.dumps(to_json(found), ensure_ascii=False, allow_nan=False))
        return
    show_timeline(found)
    for path in (export, picture):
        if path is not None:
            print(f"wrote {path}")


def read_timeline(project: Project, attempt: int | None = None) -> Timeline:
    """The timeline of an attempt, the latest by default.

    Raises:
        BadInput: no plan was made yet, or there is no such attempt.
    """
    from thriftune.cli.records import opened

    with opened(project) as store:
        return timeline_in(project, store, attempt)


def timeline_in(project: Project, store: Store | None, attempt: int | None = None) -> Timeline:
    """The same from a database that is open; None for one that was never made."""
    from thriftune.clock import SystemClock
    from thriftune.events import latest_attempt
    from thriftune.report.build import no_such_attempt
    from thriftune.report.load import reader
    from thriftune.report.state import is_alive, owner_of
    from thriftune.timeline.phases import KINDS
    from thriftune.timeline.timeline import timeline_of
    from thriftune.timeline.told import as_told, told_of

    file = project.file
    latest = None if store is None else latest_attempt(store, file.name)
    wanted = attempt or (0 if latest is None else latest.attempt)
    owner = None if store is None else owner_of(store, file.name)
    at_work = owner is not None and is_alive(owner, time.time())
    own = [] if store is None else reader(store, file.name).read(attempt=wanted, kinds=KINDS)
    if attempt is not None and not own:
        raise no_such_attempt(attempt, [] if store is None else reader(store, file.name).read(kinds=KINDS[:1]))
    told = [] if store is None else told_of(reader(store, file.name).read(kinds=["decision"]))
    found = timeline_of(
        file.name,
        as_told(file.timeline, told),
        file.deadline,
        own,
        SystemClock().now(),
        file.seed,
        file.train.checkpoint_seconds,
        at_work,
    )
    if found is None:
        raise BadInput(
            "there is no plan yet",
            where=str(project.path),
            found="no plan in the project's record",
            expected="a project that was planned or run",
            way_out="run `thriftune plan` first, or `thriftune run`",
        )
    return found


def show_gantt(found: Timeline, console: Console) -> None:
    """Print the Gantt chart, and what its marks mean."""
    from rich.text import Text

    from thriftune.report.gantt import gantt_text

    for line, style in gantt_text(found, console.width):
        console.print(Text(line, style=style), soft_wrap=True)
    console.print(Text("█ to the median end  ▒ to the 90th percentile  ░ kept free  ◆ milestone  │ now  ┃ deadline"))


def show_timeline(found: Timeline) -> None:
    """Print all of it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from thriftune.report.gantt import chance_said, eaten_said, instant_said
    from thriftune.report.wording import duration, share
    from thriftune.timeline.exports import ninety, p90, state

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    show_gantt(found, console)
    slots = found.schedule.slots
    span = max(slot.ends.p95 for slot in slots) - min(slot.starts.p5 for slot in slots)

    def said(instant: float) -> str:
        return instant_said(instant, span, found)

    table = Table(title=f"in {found.zone}", title_justify="left")
    for heading in ("phase", "who", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("takes", "begins", "ends P50", "ends P90", "kept free", "critical"):
        table.add_column(heading, justify="right", no_wrap=heading != "kept free")
    table.add_column("from", overflow="fold")
    for slot in slots:
        phase = slot.phase
        lasted = phase.duration.p50
        if phase.started is not None and phase.finished is not None:
            lasted = phase.seconds(phase.started, phase.finished)
        table.add_row(
            Text(phase.name, style="bold" if slot.critical else ""),
            phase.who or "machine",
            state(slot),
            duration(lasted),
            said(slot.starts.p50),
            said(slot.ends.p50),
            said(p90(slot)),
            f"{duration(slot.buffer_left)} of {duration(slot.buffer)}",
            share(slot.criticality),
            phase.note,
        )
    console.print(table)
    milestones = Table(title="milestones", title_justify="left")
    for heading in ("", "P50", "P90", "by the deadline"):
        milestones.add_column(heading, justify="right" if heading else "left")
    for milestone in found.milestones:
        at = milestone.at
        late = "reached" if milestone.reached else said(ninety(at.p50, at.p75, at.p95))
        chance = "" if milestone.chance is None else share(milestone.chance)
        milestones.add_row(milestone.name, said(at.p50), late, chance)
    console.print(milestones)
    for sentence in eaten_said(found):
        console.print(Text(sentence, style="yellow"))
    console.print(Text(f"critical path: {', '.join(found.schedule.critical_path)}"))
    console.print(Text(chance_said(found), style="bold"))
