"""`thriftune launch`: the project's run on a rented machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def launch(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the task, have SkyPilot read it, show it; launch nothing.")
    ] = False,
    setup: Annotated[
        str, typer.Option(help="The command that installs Thriftune there; by default from the package index.")
    ] = "",
) -> None:
    """Run on the machine that `compute` names, got and taken down by SkyPilot, under the project's budget."""
    from thriftune import launching
    from thriftune.project import Project

    loaded = Project.load(project)
    if not dry_run:
        status = launching.launch(loaded, setup)
        if status:
            raise typer.Exit(status)
        return
    prepared = launching.prepare_launch(loaded, setup)
    print(prepared.path.read_text(), end="", flush=True)
    launching.sky().read(prepared.path)
    print(f"# written to {prepared.path}; SkyPilot takes it", flush=True)
