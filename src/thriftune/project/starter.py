"""The project file that `thriftune init` writes: what was inferred, and every default with its reason in a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from textwrap import wrap
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from thriftune.collect.infer import Inference
from thriftune.collect.options import Source
from thriftune.metrics.statistics import LOWER_IS_BETTER
from thriftune.project.file import Budget, Compute, Horizon, Portion, ProjectFile
from thriftune.project.yamltext import WORDS
from thriftune.tasks.kinds import KINDS
from thriftune.train.options import read_auto

WIDTH = 110
PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./ +-]*(:[A-Za-z0-9_./+-]+)?")  # needs no quotes in YAML
STAGES = ("collect", "prepare", "select", "train", "evaluate", "plan", "deploy")


def starter_text(
    file: str, inference: Inference, name: str, models: Sequence[str], budget: Decimal, deadline: str, currency: str
) -> str:
    """The text of a project file.

    Args:
        file: the data file, from the project file's folder.
        inference: what the file seems to be for.
        name: the project's.
        models: references.
        budget: the most to spend, in `currency`.
        deadline: as the user wrote it, a duration or a date.
        currency: three letters.
    """
    top = ProjectFile.model_fields
    metric = KINDS[inference.task].metrics[0]
    lines = [
        *_comment(
            "`thriftune plan` tells what this will cost and when it ends, `thriftune run` does it. Paths are relative"
            " to this file's folder. What is commented out is the default, with its reason; take the # away to change"
            " one."
        ),
        f"name: {scalar(name)}",
        "",
        "objective:",
        *_comment("; ".join(inference.reasons), "  "),
        f"  task: {inference.task}",
        *_comment("What the model must reach, if anything; without it the verdict rests on the baselines alone", "  "),
        f"  # target: {{metric: {metric}, {'at_most: 20' if metric in LOWER_IS_BETTER else 'at_least: 0.80'}}}",
        *_comment("What a point (0.01 of a metric from 0 to 1) is worth, for the return on investment", "  "),
        "  # worth: {per_point: 300, per: month, horizon: 12 months}",
        "",
        "data:",
        *_data(file, inference),
        "",
        *_comment(top["budget"].description or ""),
        "budget:",
        f"  total: {budget}",
        f"  currency: {currency}",
        *_commented(Budget(total=Decimal(1)), "  ", skip=("total", "currency")),
        "",
        *_comment(top["deadline"].description or ""),
        f"deadline: {scalar(deadline)}",
        "",
        "compute:",
        *_comment(f"{Compute.model_fields['machine'].description}; `thriftune prices list` shows the table", "  "),
        "  machine: local",
        *_commented(Compute(), "  ", skip=("machine",)),
        "",
        *_comment("hub:org/name, package:name or a folder; auto: " + (top["models"].description or "")),
        "models: " + (scalar(models[0]) if len(models) == 1 else "[" + ", ".join(map(scalar, models)) + "]"),
        "",
        *_comment(top["seed"].description or ""),
        "seed: 0",
    ]
    for stage in STAGES:
        options = top[stage].get_default(call_default_factory=True)
        heading = _comment(f"{top[stage].description}")
        lines += ["", *heading, f"#{stage}:", *_commented(options, "  ")]
    return "\n".join(lines) + "\n"


def _data(file: str, inference: Inference) -> Iterator[str]:
    yield f"  - file: {scalar(file)}"
    for role, column in inference.columns.items():
        yield f"    {role}: {scalar(column)}"
    yield from _comment(Source.model_fields["licence"].description or "", "    ")
    yield "    licence: unknown"


def _commented(options: BaseModel, indent: str, skip: Sequence[str] = ()) -> Iterator[str]:
    """The options' keys as commented lines, each under its reason; without the first `#` it is YAML."""
    for name, field in type(options).model_fields.items():
        if name in skip:
            continue
        value = getattr(options, name)
        for line in wrap(field.description or "", WIDTH - len(indent)):
            yield f"#{indent}# {line}"
        if isinstance(value, BaseModel):
            yield f"#{indent}{name}:"
            yield from _commented(value, indent + "  ")
        else:
            yield f"#{indent}{name}: {_written(value, field)}"


def _written(value: Any, field: FieldInfo) -> str:
    """A default as the project file has it."""
    if value is None:
        return "auto" if any(getattr(one, "func", None) is read_auto for one in field.metadata) else "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Portion):
        return f"{(value.value * 100).normalize():f}%" if value.kind == "share" else f"{value.value:f}"
    if isinstance(value, Horizon):
        return f"{value.count} {value.unit}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(scalar(str(one)) for one in value) + "]"
    return scalar(str(value))


def _comment(text: str, indent: str = "") -> list[str]:
    """Comment lines, short enough to read."""
    plain = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return [f"{indent}# {line}" for line in wrap(plain, WIDTH - len(indent))]


def scalar(text: str) -> str:
    """A text as YAML reads it back, quoted where it must be."""
    if PLAIN.fullmatch(text) and text == text.strip() and text not in WORDS:
        return text
    escaped = (one if one.isprintable() and one not in '"\\' else f"\\U{ord(one):08x}" for one in text)
    return '"' + "".join(escaped) + '"'
