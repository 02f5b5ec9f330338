"""A project file, loaded: what it says, and what follows from that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from thriftune.clock import SystemClock
from thriftune.collect.options import Source
from thriftune.errors import BadInput
from thriftune.money.prices import Price, PriceTable
from thriftune.project.checks import priced, problems_in, problems_to_run
from thriftune.project.file import ProjectFile
from thriftune.project.problems import problems_of, refusal, shown
from thriftune.project.yamltext import read_yaml

PROJECT_FILE = "thriftune.yaml"
STATE_FOLDER = ".thriftune"


@dataclass(frozen=True)
class Default:
    """A value that the project file does not state, and the reason for it."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Project:
    """A project file that holds together, and what follows from it.

    Args:
        path: the file.
        file: what it says, defaults filled in.
        price: of one machine, for an hour.
        warnings: what the user should know before money is spent, a sentence each.
    """

    path: Path
    file: ProjectFile
    price: Price
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        path: str | Path = PROJECT_FILE,
        *,
        now: float | None = None,
        prices: PriceTable | None = None,
        to_run: bool = True,
    ) -> Self:
        """Read and check a project file.

        Args:
            path: the file.
            now: the instant (UTC seconds) that deadlines and the ages of prices are measured at; by default, now.
            prices: the price table; by default the shipped one under the user's own.
            to_run: False to report on what was done: a deadline may have passed and data may be gone since.

        Raises:
            BadInput: the file cannot be read, or says what cannot be; the message lists every problem.
        """
        return cls.parse(_read_text(Path(path)), Path(path), now=now, prices=prices, to_run=to_run)

    @classmethod
    def parse(
        cls,
        text: str,
        path: Path,
        *,
        now: float | None = None,
        prices: PriceTable | None = None,
        to_run: bool = True,
    ) -> Self:
        """`load` of a text that stands, or shall stand, at `path`.

        Raises:
            BadInput: it says what cannot be; the message lists every problem.
        """
        instant = SystemClock().now() if now is None else now
        document = read_yaml(text, str(path))
        if not isinstance(document.value, dict):
            raise _not_a_project(path, document.value)
        try:
            file = ProjectFile.model_validate(document.value)
        except ValidationError as error:
            raise refusal(path, document, problems_of(error)) from None
        price, problems = priced(file, prices)
        problems = [*problems_in(file, path.parent), *problems]
        if to_run:
            problems = [*problems_to_run(file, path.parent, instant), *problems]
        if problems or price is None:
            raise refusal(path, document, problems)
        warning = price.warning(instant)
        return cls(path, file, price, () if warning is None else (warning,))

    @property
    def folder(self) -> Path:
        """Where the project file lies; what it names is relative to it."""
        return self.path.parent

    @property
    def root(self) -> Path:
        """The folder of the project's state."""
        return self.folder / STATE_FOLDER

    @property
    def price_per_hour(self) -> Decimal:
        """Money an hour for all machines together, in the budget's currency."""
        return self.price.times(self.file.compute.count)

    @property
    def meaning(self) -> str:
        """Hash of what the file means: comments, order and ways to write a number do not change it."""
        text = json.dumps(self.file.model_dump(), default=_plain, sort_keys=True)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def source_path(self, source: Source) -> Path:
        """Where a source's file is."""
        return self.folder / Path(source.file).expanduser()

    def describe_defaults(self) -> list[Default]:
        """Every value that the file does not state, with its reason, in the order of the file."""
        return list(_defaults(self.file, ""))


def _read_text(path: Path) -> str:
    if not path.exists():
        raise _unreadable(path, "nothing", "run `thriftune init FILE` on your data to write one")
    if path.is_dir():
        inside = path / PROJECT_FILE
        hint = f"name {inside}" if inside.exists() else "name the file in it"
        raise _unreadable(path, "a directory", hint)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} at {error.start}, which is not UTF-8"
        raise _unreadable(path, found, "save it as UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error.strerror or type(error).__name__, "make it readable") from error


def _unreadable(path: Path, found: str, way_out: str) -> BadInput:
    return BadInput(
        "the project file cannot be read",
        where=str(path),
        found=found,
        expected=f"a YAML file such as {PROJECT_FILE}",
        way_out=way_out,
    )


def _not_a_project(path: Path, value: Any) -> BadInput:
    found = "an empty file" if value is None else f"a list, {shown(value)}" if isinstance(value, list) else shown(value)
    return BadInput(
        "the project file is no project",
        where=str(path),
        found=found,
        expected="the keys " + ", ".join(ProjectFile.model_fields),
        way_out="run `thriftune init FILE` on your data to write one",
    )


def _defaults(options: BaseModel, prefix: str) -> Iterator[Default]:
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        key = f"{prefix}.{name}" if prefix else name
        if isinstance(value, BaseModel):
            yield from _defaults(value, key)
        elif name not in options.model_fields_set:
            yield Default(key, value, field.description or "")
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _defaults(item, f"{key}[{index}]")


def _plain(value: Any) -> Any:
    """What JSON does not know, so that equal meanings are equal texts."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} in the project file")
