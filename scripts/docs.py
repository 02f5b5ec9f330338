#!/usr/bin/env python
"""Writes what the documents take from the code and from the kept measurements: `make docs`.

`docs/cli.md` comes from the commands' own help, `docs/project-file.md` from the options' own descriptions, and each
table between `<!-- measured -->` and `<!-- /measured -->` from `bench/results/*.json`, as do the curve of searches and
the table of work by kind. The table of families of models comes from `docs/families.json`. With `--check` nothing is
written; the exit status is 1 when something is stale.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
MADE = "<!-- Made by scripts/docs.py (`make docs`); change the code, not this page. -->"
MEASURED = re.compile(r"(<!-- measured(?:: (?P<names>[\w, ]+))? -->\n).*?(<!-- /measured -->)", re.DOTALL)
FAMILIES = re.compile(r"(<!-- families -->\n).*?(<!-- /families -->)", re.DOTALL)
CURVE = re.compile(r"(<!-- search curve -->\n).*?(<!-- /search curve -->)", re.DOTALL)
BY_KIND = re.compile(r"(<!-- by kind -->\n).*?(<!-- /by kind -->)", re.DOTALL)
FAMILIES_COLUMNS = {
    "full": "every weight",
    "head": "head alone",
    "lora": "LoRA",
    "frozen": "first layers frozen",
    "kept": "their states kept",
}
SEARCHERS = {
    "ours": "ours",
    "random": "random",
    "tpe_hyperband": "Optuna's TPE with Hyperband",
    "tpe_halving": "Optuna's TPE with successive halving",
    "asha": "Syne Tune's ASHA",
    "mobster": "Syne Tune's MOBSTER",
    "dyhpo": "Syne Tune's DyHPO",
    "default": "the default recipe, no search",
}
NOT_MEASURED = "not measured yet"
CLI_INTRODUCTION = (
    "`thriftune COMMAND --help` says the same as this page. What each exit status means is told in "
    "[troubleshooting](troubleshooting.md)."
)
PROJECT_FILE_INTRODUCTION = (
    "One YAML 1.2 file, `thriftune.yaml` by default. `thriftune init FILE` writes one; `thriftune plan` shows every "
    "default with its reason. Unknown keys are errors. Money is read as decimal text, never as a binary fraction.",
    "",
    "What says `auto` is decided from the task, the data or a probe. What says `none` may be left out; the meaning "
    "tells what happens then.",
)

# What is told of a result besides its ratio, where it has the key.
FIGURES = (
    ("ratio_best", "{:.2f} × the peer at its best settings"),
    ("fraction_of_roofline", "{:.0%} of the machine's limit"),
    ("quality_gap_points", "{:.2f} points below the peer"),
    ("overruns", "{:.0f} overruns"),
    ("started", "{:.0f} started"),
    ("money_bound", "{:.0f} bound by money"),
    ("time_bound", "{:.0f} bound by time"),
    ("ledger_error", "ledger off by at most {:.2%}"),
    ("minimum_ratio", "named minimum at most {:.2f} × the smallest that works"),
    ("used_share", "{:.0%} of the binding limit used at the median"),
    ("coverage_90", "90 % intervals held {:.0%}"),
    ("coverage_50", "50 % intervals held {:.0%}"),
    ("median_half_width_90", "90 % intervals ± {:.0%} at the median"),
    ("median_time_error", "time off by {:.0%} at the median"),
    ("median_memory_error", "peak memory off by {:.0%} at the median"),
    ("worst_margin_points", "lower 95 % bound of ours less the best peer's at least {:.2f} points"),
    ("superior", "better in {:.0%} of the cells"),
    ("unused_share", "{:.1%} of the binding limit left unused where training was cut"),
    ("targets_met", "{:.0%} met their target of quality"),
    ("landed_share", "{:.0%} of the projects landed"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when something is stale")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in pages() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path, text in pages():
        if path in stale and not check:
            path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'stale, run `make docs`' if check else 'written'}")
    return 1 if check and stale else 0


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated page, and every page with a generated table: where it lies, and its text as it should be."""
    yield ROOT / "docs" / "cli.md", cli_page()
    yield ROOT / "docs" / "project-file.md", project_file_page()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if MEASURED.search(text) or BY_KIND.search(text):
            yield path, with_measurements(text)
        elif FAMILIES.search(text):
            yield path, FAMILIES.sub(lambda found: f"{found[1]}{families_table()}\n{found[2]}", text)


# the command line


def command_line() -> Any:
    """The program's root command, with its sub-commands."""
    from thriftune.cli.commands import app

    return typer.main.get_command(app)


def leaves(command: Any, name: str = "thriftune") -> Iterator[tuple[str, Any]]:
    """The commands that do something, by their full names, in the order in which help lists them."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for short, each in inner.items():
        yield from leaves(each, f"{name} {short}")


def cli_page() -> str:
    """The page of the command line."""
    found = list(leaves(command_line()))
    lines = ["# The command line", "", MADE, "", CLI_INTRODUCTION, "", "| command | does |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{slug(name)}) | {cell(first_line(command.help))} |" for name, command in found]
    for name, command in found:
        lines += ["", f"## {name}", "", str(command.help).strip(), "", "```text", usage(name, command), "```"]
        rows = [parameter_row(each) for each in command.params]
        if rows:
            lines += ["", "| what | default | meaning |", "| --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def usage(name: str, command: Any) -> str:
    """How the command is written: `thriftune init FILE [OPTIONS]`."""
    arguments = [each for each in command.params if not is_option(each)]
    shown = [each.name.upper() if each.required else f"[{each.name.upper()}]" for each in arguments]
    options = ["[OPTIONS]"] if len(arguments) < len(command.params) else []
    return " ".join([name, *shown, *options])


def parameter_row(parameter: Any) -> str:
    """An argument or an option as a row of the table."""
    if is_option(parameter):
        value = "" if parameter.is_flag else f" {parameter.name.upper()}"
        what = ", ".join(f"`{name}{value}`" for name in sorted(parameter.opts, key=len, reverse=True))
    else:
        what = f"`{parameter.name.upper()}`"
    meaning, _, stated = str(parameter.help or "").partition("[default:")
    if parameter.required:
        default = "required"
    elif stated:
        default = f"`{stated.strip().removesuffix(']')}`"
    else:
        default = "" if parameter.default in (None, False, "") else f"`{parameter.default}`"
    return f"| {what} | {default} | {cell(meaning)} |"


def is_option(parameter: Any) -> bool:
    """Whether a parameter begins with dashes."""
    return str(parameter.opts[0]).startswith("-")


# the project file


def project_file_page() -> str:
    """The page of the project file's keys."""
    from thriftune.project.file import ProjectFile

    lines = ["# The project file", "", MADE, "", *PROJECT_FILE_INTRODUCTION]
    for title, rows in sections(ProjectFile):
        lines += ["", f"## {title}", "", "| key | default | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{key}` | {default} | {cell(meaning)} |" for key, default, meaning in rows]
    return "\n".join(lines) + "\n"


Row = tuple[str, str, str]


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, list[Row]]]:
    """The keys of a model, then those of the models in it: title, rows of key, default and meaning."""
    rows: list[Row] = []
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        below = model_of(field.annotation)
        if below is not None:
            listed = typing.get_origin(field.annotation) is tuple
            inner.append((f"{key}[]" if listed else key, below))
        rows.append((key, default_of(field, below), field.description or ""))
    yield prefix.removesuffix(".") or "At the top", rows
    for key, below in inner:
        yield from sections(below, f"{key}.")


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The options model that an annotation holds, alone, in a union or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (tuple, typing.Union, types.UnionType):
        return next((found for each in typing.get_args(annotation) if (found := model_of(each))), None)
    return None


def default_of(field: FieldInfo, below: type[BaseModel] | None) -> str:
    """A field's default, as one would write it in the file."""
    if field.is_required():
        return "required"
    if field.default is None:
        resolves = any("auto" in str(getattr(each, "func", "")) for each in field.metadata)
        return "`auto`" if resolves else "none"
    if below is not None or field.default is PydanticUndefined:
        return "see below"
    return f"`{written(field.default)}`"


def written(value: Any) -> str:
    """A value as one would write it in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if type(value).__name__ == "Portion":
        return f"{100 * value.value:f}".rstrip("0").rstrip(".") + "%" if value.kind == "share" else str(value.value)
    if type(value).__name__ == "Horizon":
        return f"{value.count} {value.unit}"
    if isinstance(value, tuple):
        return "auto" if value == ("auto",) else "[" + ", ".join(written(each) for each in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


# measurements


def with_measurements(text: str) -> str:
    """A page with its tables made anew."""
    text = MEASURED.sub(lambda found: f"{found[1]}{measured_table(found['names'])}\n{found[3]}", text)
    text = CURVE.sub(lambda found: f"{found[1]}{curve_table()}\n{found[2]}", text)
    return BY_KIND.sub(lambda found: f"{found[1]}{by_kind_table()}\n{found[2]}", text)


def measured_table(names: str | None = None) -> str:
    """The table of the named benchmarks, or of all that there are."""
    wanted = [name.strip() for name in names.split(",")] if names else sorted(benchmarks())
    rows = [measured_row(name, kept_result(name)) for name in wanted]
    return "\n".join(["| benchmark | claim | measured | held |", "| --- | --- | --- | --- |", *rows])


def benchmarks() -> dict[str, Path]:
    """The files under bench/ that are benchmarks, by name."""
    sys.path.insert(0, str(ROOT / "bench"))
    from run_all import benchmarks as names

    return {name: ROOT / "bench" / f"{name}.py" for name in names()}


def kept_result(name: str) -> dict[str, Any] | None:
    """What `make bench` kept of a benchmark."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def measured_row(name: str, result: Mapping[str, Any] | None) -> str:
    """A benchmark as a row: what it claims, what came out and on what, and whether the claim held."""
    if result is None:
        path = ROOT / "bench" / f"{name}.py"
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None
        claim = first_line(text) if text else "not written yet"
        return f"| `{name}` | {cell(claim)} | {NOT_MEASURED} | {NOT_MEASURED} |"
    held = "yes" if result["holds"] else "**no**"
    return f"| `{name}` | {cell(result['claim'])} | {cell(figures_of(result))} | {held} |"


def figures_of(result: Mapping[str, Any]) -> str:
    """The figures of a result in words, with the machine and the number of seeds."""
    peer = result["peer"]
    told = [] if peer["name"] == "none" else [f"{result['ratio']:.2f} × {peer['name']} {peer['version']}"]
    told += [form.format(result[key]) for key, form in FIGURES if isinstance(result.get(key), int | float)]
    machine = result["machine"]
    peaks = ", ".join(
        f"{precision} {peak:.0f} GFLOP/s"
        for precision, peak in dict(machine["peak_gflops"]).items()
        if isinstance(peak, int | float)
    )
    seeds = len(result["seeds"])
    told.append(f"{machine['cores']} cores, {peaks}, {seeds} seed{'s' if seeds != 1 else ''}")
    return "; ".join(told) + (" (a quick run)" if result.get("quick") else "")


def curve_table() -> str:
    """Points that a search ends below the grid's winner, a share of the grid's computing a column."""
    result = kept_result("search")
    if result is None:
        return f"`search`: {NOT_MEASURED}"
    shares = [point["share"] for point in result["curve"]["ours"]]
    at = shares.index(result["ours"]["share"])
    titles = [
        "",
        *(f"1/{1 / share:.0f}" for share in shares),
        f"ours is better at 1/{1 / shares[at]:.0f} by",
        "replays",
    ]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for name, told in SEARCHERS.items():
        if name in result["curve"]:
            curve = result["curve"][name]
            gaps = [f"{point['gap_points']:.2f} ± {point['standard_error']:.2f}" for point in curve]
            better = "" if name == "ours" else f"{curve[at]['margin_points']:.2f} ± {curve[at]['margin_error']:.2f}"
            lines.append(f"| {' | '.join([told, *gaps, better, str(curve[at]['replays'])])} |")
    return "\n".join(lines)


def by_kind_table() -> str:
    """Where an update's time goes, a system a column: microseconds a real token."""
    result = kept_result("work_by_kind")
    if result is None:
        return f"`work_by_kind`: {NOT_MEASURED}"
    systems = {name: dict(of) for name, of in result["by_kind"].items()}
    kinds = sorted({kind for of in systems.values() for kind in of}, key=lambda k: -max(s[k] for s in systems.values()))
    titles = [name.replace("peer_best", "Trainer at its best").replace("peer", "Trainer") for name in systems]
    titles = [title.replace("_", ", ").replace("ours", "Thriftune") for title in titles]
    lines = [f"| µs a token | {' | '.join(titles)} |", f"| --- |{' --- |' * len(titles)}"]
    lines += [f"| {kind} | {' | '.join(f'{of[kind]:.1f}' for of in systems.values())} |" for kind in kinds]
    lines.append(f"| all | {' | '.join(f'{sum(of.values()):.1f}' for of in systems.values())} |")
    return "\n".join(lines)


# families of models


def families_table() -> str:
    """The families and what was tried with each."""
    kept = json.loads((ROOT / "docs" / "families.json").read_text(encoding="utf-8"))
    heading = ["family", "such as", "task", *FAMILIES_COLUMNS.values()]
    lines = [f"| {' | '.join(heading)} |", f"| {' | '.join('---' for _ in heading)} |"]
    for row in kept.values():
        outcomes = [row["columns"][name] for name in FAMILIES_COLUMNS]
        told = ["✓" if outcome == "yes" else cell(f"no: {outcome}") for outcome in outcomes]
        lines.append(f"| {' | '.join([cell(row['family']), '`hub:' + row['hub'] + '`', row['task'], *told])} |")
    return "\n".join(lines)


# text


def first_line(text: str | None) -> str:
    """The first paragraph of a text, in one line."""
    return " ".join(str(text or "").strip().split("\n\n")[0].split())


def cell(text: str) -> str:
    """A text as a cell of a table; its signs are shown as they are, never read as markup."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def slug(heading: str) -> str:
    """The anchor that a heading gets: lower case, blanks to dashes, other signs gone."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
