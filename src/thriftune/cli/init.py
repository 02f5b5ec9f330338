"""`thriftune init`: a data file in, a commented project file out."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thriftune.errors import BadInput
from thriftune.tasks.kinds import KINDS

if TYPE_CHECKING:
    from thriftune.collect.infer import Inference

DEFAULT_BUDGET = "1.00"
DEFAULT_DEADLINE = "20m"


def init(
    file: Annotated[Path, typer.Argument(help="A CSV, TSV, JSONL, JSON or Parquet file.", show_default=False)],
    text: Annotated[str | None, typer.Option(help="The column of texts, or of what the user says.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of labels, or of answers.")] = None,
    model: Annotated[str | None, typer.Option(help="hub:org/name, package:name or a folder.")] = None,
    budget: Annotated[str | None, typer.Option(help=f"The most to spend, in USD.  [default: {DEFAULT_BUDGET}]")] = None,
    deadline: Annotated[
        str | None, typer.Option(help=f"A duration (20m, 2h) or a date.  [default: {DEFAULT_DEADLINE}]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The project's name; the file's by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a project file that is there.")] = False,
) -> None:
    """Write a thriftune.yaml beside a data file, by inferring task and columns."""
    from thriftune.collect.infer import infer
    from thriftune.project import PROJECT_FILE

    inference = infer(file, text, label)
    target = file.parent / PROJECT_FILE
    if target.exists() and not force:
        raise BadInput(
            "there is a project file already",
            where=str(target),
            found="a file",
            expected="none",
            way_out="give --force to replace it, or change it by hand",
        )
    budget = budget or _answer("The most to spend, in USD", DEFAULT_BUDGET)
    deadline = deadline or _answer("The time to take, such as 20m or 2h", DEFAULT_DEADLINE)
    chosen = _from_folder(model, target.parent) if model else KINDS[inference.task].default_model
    _write(target, file, inference, name or _name(file), chosen, budget, deadline)

    print(
        f"{file.name}: a {inference.task} task, with " + ", ".join(f"{k} = {v}" for k, v in inference.columns.items())
    )
    for reason in inference.reasons:
        print(f"  because {reason}")
    for warning in inference.warnings:
        print(f"  warning: {warning}")
    print(f"wrote {target}: at most {budget} USD and {deadline}, on this machine, with {chosen}")
    print("`thriftune plan` tells what it will cost and when it ends; `thriftune run` does it")


def _write(target: Path, file: Path, inference: Inference, name: str, model: str, budget: str, deadline: str) -> None:
    """Write the project file, once it is known to hold together."""
    from thriftune.artifacts import write_file_atomic
    from thriftune.project import Project
    from thriftune.project.file import parse_money
    from thriftune.project.starter import starter_text

    try:
        amount = parse_money(budget)
    except ValueError as error:
        raise BadInput("this is no budget", "--budget", budget, str(error), "give one, such as 5.00") from None
    content = starter_text(file.name, inference, name, [model], amount, deadline, "USD")
    Project.parse(content, target)
    write_file_atomic(target, content.encode())


def _answer(question: str, default: str) -> str:
    """The user's answer where there is a terminal to ask on, else the default."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return str(typer.prompt(question, default=default))
    return default


def _from_folder(model: str, folder: Path) -> str:
    """A model folder named from the working directory, as it is named from the project file's folder."""
    path = Path(model).expanduser()
    if not path.is_dir() or path.is_absolute():
        return model
    relative = os.path.relpath(path.resolve(), folder.resolve())
    return relative if relative.startswith(".") else f"./{relative}"


def _name(file: Path) -> str:
    """A project's name made of the file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._")[:60] or "project"
