"""`thriftune inspect`: a model's architecture, what tuning it takes, and what will not fit."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thriftune.errors import BadInput
from thriftune.tasks.kinds import KINDS, TaskName

if TYPE_CHECKING:
    from rich.table import Table

    from thriftune.models.inspection import Inspection
    from thriftune.project import Project
    from thriftune.select.fit import Need, Reading

TEMPLATE_LINES = 3
PIPE_WIDTH = 120  # columns when nobody watches, so that no number is cut


def inspect(
    model: Annotated[str, typer.Argument(help="hub:org/name[@revision], package:name or a folder.")],
    task: Annotated[
        str | None, typer.Option(help=f"{' or '.join(KINDS)}; by default what this kind of model is for.")
    ] = None,
    project: Annotated[Path | None, typer.Option(help="Look at this project's task, data and batch as well.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, max=65_536, help="Rows a batch; the task's usual number.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=2, max=1_048_576, help="Tokens of a row; 128, or the data's longest.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Show a model's architecture, the memory to train it, and what will not fit task, data or machine."""
    from thriftune.memory import resident_bytes, usable_bytes
    from thriftune.models.inspection import inspect as look
    from thriftune.models.reference import resolve
    from thriftune.select.fit import TYPICAL_TOKENS, needs_of, task_for, warnings_for
    from thriftune.tasks.kinds import kind_of

    loaded = _project(project)
    folder = resolve(model, base=loaded.folder if loaded else None)
    seen = look(folder)
    chosen = _task(task) or (loaded.file.objective.task if loaded else task_for(seen))
    reading = _reading(loaded, seen) if loaded and kind_of(loaded.file.objective.task).model == folder.kind else None
    batch_rows = rows or (loaded.file.train.batch_rows_for(chosen) if loaded else kind_of(chosen).batch_rows)
    most = min(folder.max_positions or kind_of(chosen).longest, kind_of(chosen).longest)
    row_tokens = tokens or min(reading.longest if reading else TYPICAL_TOKENS, most)
    needs = needs_of(seen, batch_rows, row_tokens)
    process = resident_bytes()
    warnings = warnings_for(seen, chosen, needs, usable_bytes(), process, reading)
    facts = _facts(seen, chosen, needs, warnings, batch_rows, row_tokens, process)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        _show(seen, needs, warnings, facts)


def _project(path: Path | None) -> Project | None:
    from thriftune.cli.records import load_project

    return None if path is None else load_project(path)


def _task(stated: str | None) -> TaskName | None:
    if stated is None:
        return None
    for name in KINDS:
        if name == stated:
            return name
    raise BadInput("there is no such task", "--task", stated, " or ".join(KINDS), "name one of them")


def _reading(project: Project, seen: Inspection) -> Reading:
    """What the model would read of the project's data, by its own tokenizer."""
    import polars as pl

    from thriftune.collect.collect import read_source
    from thriftune.select.fit import Reading
    from thriftune.train.setup import MAKERS

    file = project.file
    frames = [read_source(source, file.collect, project.folder)[0] for source in file.data]
    _, encoded = MAKERS[file.objective.task](seen.model, file.train, 0, pl.concat(frames, how="diagonal"))
    longest = int(encoded.lengths.max(initial=0))
    return Reading(len(encoded), longest, encoded.cut_rows, encoded.cut_tokens)


def _facts(
    seen: Inspection,
    task: TaskName,
    needs: list[Need],
    warnings: list[str],
    rows: int,
    tokens: int,
    process: int,
) -> dict[str, Any]:
    """All of it as plain JSON values; bytes as whole numbers, what is not known as null."""
    facts = asdict(seen.model) | {"path": str(seen.model.path), "task": task}
    for name in ("freezable", "adaptable", "adapter_parameters", "chat_template", "eos_token", "licence"):
        facts[name] = getattr(seen, name)
    return facts | {
        "blocks": seen.blocks,
        "dtypes": list(seen.dtypes),
        "disk_bytes": seen.disk_bytes,
        "memory": {
            "rows": rows,
            "tokens": tokens,
            "process_bytes": process,
            "methods": {need.name: asdict(need.footprint) | {"peak": need.footprint.peak} for need in needs},
        },
        "warnings": warnings,
    }


def _show(seen: Inspection, needs: list[Need], warnings: list[str], facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(_architecture(seen))
    console.print(_blocks(seen))
    console.print(_memory(needs, facts["memory"]))
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))


def _architecture(seen: Inspection) -> Table:
    from thriftune.report.wording import plain

    model = seen.model
    template = "none: the plain one is used"
    if seen.chat_template is not None:
        template = "\n".join(plain(seen.chat_template).splitlines()[:TEMPLATE_LINES])
    linear = ", ".join(f"{name} × {count}" for name, count in seen.adaptable.items())
    rows = {
        "architecture": f"{model.architecture}: {model.kind} of family {model.model_type}",
        **({"commit": model.commit} if model.commit else {}),
        "layers": f"{model.layers} of width {model.hidden_size:,}",
        "vocabulary": f"{model.vocab_size:,}",
        "context": f"{model.max_positions:,} tokens" if model.max_positions else "no limit of its own",
        "on the disk": f"{_size(seen.disk_bytes)}, {', '.join(seen.dtypes)}",
        "licence": plain(seen.licence) or "not stated in the folder",
        "can be frozen": f"the embeddings and layers 0 to {seen.freezable - 1}" if seen.freezable else "no layer alone",
        "can be adapted": linear,
        "LoRA, rank 16": f"{seen.adapter_parameters:,} parameters",
    }
    if model.kind == "decoder":
        rows |= {"chat template": template, "end of text": plain(seen.eos_token or "none")}
    table = _table(plain(model.reference), "", "")
    table.show_header = False
    for name, value in rows.items():
        table.add_row(name, _text(value))
    return table


def _blocks(seen: Inspection) -> Table:
    """Parameters by block, runs of equal layers in one row."""
    table = _table("parameters", "block", "each", "together")
    runs: list[tuple[list[str], int]] = []
    for name, count in seen.blocks.items():
        if runs and name.startswith("layer.") and runs[-1][0][-1].startswith("layer.") and runs[-1][1] == count:
            runs[-1][0].append(name)
        else:
            runs.append(([name], count))
    for names, count in runs:
        shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        table.add_row(shown, f"{count:,}", f"{len(names) * count:,}")
    table.add_section()
    table.add_row("all", "", f"{sum(seen.blocks.values()):,}")
    return table


def _memory(needs: list[Need], batch: dict[str, Any]) -> Table:
    title = f"memory to train: {batch['rows']} rows of {batch['tokens']} tokens, fp32, beside the process itself"
    table = _table(title, "method", "trained", "weights", "gradients", "moments", "activations", "at most")
    for need in needs:
        held = need.footprint
        sizes = [held.weights, held.gradients, held.moments, held.activations, held.peak]
        table.add_row(need.name, f"{held.trained:,}", *("not known" if size is None else _size(size) for size in sizes))
    return table


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=_text(title), title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or not column else "right", overflow="fold")
    return table


def _text(value: str) -> Any:
    """A text that is shown as it is, whatever signs it holds."""
    from rich.text import Text

    return Text(value)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
