"""What is wrong with a project file, in the file's own terms: line, key, found, expected, nearest valid key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from thriftune.errors import BadInput
from thriftune.project.file import ProjectFile
from thriftune.project.nearest import nearest
from thriftune.project.yamltext import Document, KeyPath


@dataclass(frozen=True)
class Problem:
    """Something in the project file that cannot be.

    Args:
        key: the path of the key.
        what: what is wrong, a few words.
        found: what the file says.
        expected: what could stand there.
        way_out: what to do about it.
    """

    key: KeyPath
    what: str
    found: str
    expected: str
    way_out: str


def problems_of(error: ValidationError) -> list[Problem]:
    """Pydantic's complaints in the file's own terms, without those that only follow from another."""
    details = error.errors(include_url=False)
    misspelt = {_meant(tuple(detail["loc"])) for detail in details if detail["type"] == "extra_forbidden"}
    at_fault = {tuple(detail["loc"])[:length] for detail in details for length in range(len(detail["loc"]))}
    return [
        _problem_of(detail)
        for detail in details
        if (key := tuple(detail["loc"])) not in at_fault and not (detail["type"] == "missing" and key in misspelt)
    ]


def _meant(key: KeyPath) -> KeyPath:
    """The valid key that an unknown one is most like."""
    return *key[:-1], nearest(str(key[-1]), _names_at(key[:-1]))


def _problem_of(detail: ErrorDetails) -> Problem:
    key, kind = tuple(detail["loc"]), detail["type"]
    if kind == "extra_forbidden":
        names = _names_at(key[:-1])
        like = _meant(key)[-1]
        return Problem(
            key,
            "unknown key",
            f"{key[-1]}: {shown(detail['input'])}",
            f"{like} (nearest), or one of {', '.join(names)}",
            f"write {like}, or remove it",
        )
    if kind == "missing":
        return Problem(key, "missing key", "nothing", _description_at(key), f"add {key[-1]}")
    expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    found = shown(detail["input"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", expected)
        like = nearest(str(detail["input"]), choices)
        return Problem(key, "unknown value", found, " or ".join(choices), f"write {like}, the nearest")
    return Problem(key, "wrong value", found, expected, "correct it")


def _names_at(path: KeyPath) -> list[str]:
    model = _model_at(path)
    return [] if model is None else list(model.model_fields)


def _description_at(path: KeyPath) -> str:
    model = _model_at(path[:-1])
    field = None if model is None else model.model_fields.get(str(path[-1]))
    return (field.description if field else None) or "a value"


def _model_at(path: KeyPath) -> type[BaseModel] | None:
    """The options class whose keys stand at `path` of the file."""
    model: type[BaseModel] | None = ProjectFile
    for key in path:
        if isinstance(key, int):
            continue
        field = model.model_fields.get(key) if model else None
        model = None if field is None else _options_in(field.annotation)
    return model


def _options_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_options_in(argument) for argument in get_args(annotation))
    return next((found for found in inner if found is not None), None)


def refusal(path: Path, document: Document, problems: list[Problem]) -> BadInput:
    """One message for all problems, in the order of the file."""
    ordered = sorted(problems, key=lambda problem: document.line_of(problem.key))
    if len(ordered) == 1:
        problem = ordered[0]
        return BadInput(
            problem.what,
            where=f"{path}, line {document.line_of(problem.key)}, {_dotted(problem.key)}",
            found=problem.found,
            expected=problem.expected,
            way_out=problem.way_out,
        )
    lines = [
        f"line {document.line_of(problem.key)}, {_dotted(problem.key)}: {problem.what}; found {problem.found};"
        f" expected {problem.expected}; {problem.way_out}"
        for problem in ordered
    ]
    return BadInput(
        f"{len(ordered)} things in the project file cannot be\n  " + "\n  ".join(lines),
        where=str(path),
        way_out="correct these lines; nothing was started",
    )


def _dotted(key: KeyPath) -> str:
    """`("data", 0, "file")` as `data[0].file`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the whole file"


def shown(value: Any, most: int = 80) -> str:
    """A value as the file has it, cut to `most` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = repr(text) if (isinstance(value, str) and not text.strip().isprintable()) or not text else text
    return text if len(text) <= most else text[: most - 1] + "…"
