"""Small tables that come with Thriftune beside the prices: accelerators and spot interruptions.

Each is a CSV file in `money/data/` with a source a row (what they are is told in `money/data/README.md`); a file of
the same name in `thriftune_home()` stands above it, row by row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

from thriftune.errors import BadInput
from thriftune.money.prices import SNAPSHOT, age_said, thriftune_home
from thriftune.options import parse_amount

ACCELERATORS, INTERRUPTIONS = "accelerators.csv", "spot-interruptions.csv"
RUNTIMES = ("cuda", "rocm")
HOURS_A_MONTH = 730.5

Row = TypeVar("Row")


@dataclass(frozen=True)
class Accelerator:
    """What a kind of accelerator can do.

    Args:
        name: as the price table spells it.
        runtime: `cuda` or `rocm`.
        peak_flops: dense products of matrices in 16 bits, FLOP a second.
        memory_bytes: of one.
        source: where the figures are from.
    """

    name: str
    runtime: str
    peak_flops: float
    memory_bytes: float
    source: str


@dataclass(frozen=True)
class Interruption:
    """How often a spot machine is taken away.

    Args:
        low: share of the machines that were taken away in a month, at least.
        high: the same, at most; None where the source names no bound.
        source: who says so.
        as_of: the month's last day, or a day that it is no younger than; None for a rate that the user states.
    """

    provider: str
    machine: str
    region: str
    low: float
    high: float | None
    source: str
    as_of: date | None

    def told(self, now: float) -> str:
        """The rate with its source, date and age."""
        high = "" if self.high is None else f" to {100 * self.high:.0f} %"
        least = "at least " if self.high is None else ""
        dated = "" if self.as_of is None else f" of {age_said(self.as_of, now)}"
        return f"{least}{100 * self.low:.0f}{high or ' %'} of machines a month ({self.source}{dated})"


def accelerators(home: Path | None = None) -> dict[str, Accelerator]:
    """Every accelerator whose figures are known, by its name in the price table."""
    columns = ("accelerator", "runtime", "peak_tflops", "memory_gib", "source")
    return {row.name.lower(): row for row in _rows(ACCELERATORS, columns, _accelerator, home)}


def interruptions(home: Path | None = None) -> dict[tuple[str, str, str], Interruption]:
    """Every known rate of spot interruptions, by provider, machine and region."""
    columns = ("provider", "machine", "region", "per_month_low", "per_month_high", "source", "as_of")
    found = _rows(INTERRUPTIONS, columns, _interruption, home)
    return {(row.provider, row.machine.lower(), row.region): row for row in found}


def _accelerator(text: Mapping[str, str]) -> Accelerator:
    if text["runtime"] not in RUNTIMES:
        raise ValueError(f"a runtime of {' or '.join(RUNTIMES)}")
    return Accelerator(
        text["accelerator"],
        text["runtime"],
        1e12 * float(parse_amount(text["peak_tflops"])),
        2**30 * float(parse_amount(text["memory_gib"])),
        text["source"],
    )


def _interruption(text: Mapping[str, str]) -> Interruption:
    low = float(parse_amount(text["per_month_low"]))
    high = float(parse_amount(text["per_month_high"])) if text["per_month_high"] else None
    if not 0 <= low < 1 or (high is not None and not low <= high < 1):
        raise ValueError("shares from 0 to 1, the lower first")
    named = (text["provider"], text["machine"], text["region"])
    return Interruption(*named, low, high, text["source"], _day(text["as_of"]))


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


def _rows(
    name: str, columns: tuple[str, ...], parse: Callable[[Mapping[str, str]], Row], home: Path | None
) -> list[Row]:
    own = (thriftune_home() if home is None else home) / name
    files: Iterable[Path] = (SNAPSHOT.parent / name, own)
    return [row for file in files if file.is_file() for row in _read(file, columns, parse)]


def _read(path: Path, columns: tuple[str, ...], parse: Callable[[Mapping[str, str]], Row]) -> list[Row]:
    rows = []
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != columns:
            raise ValueError("the columns " + ", ".join(columns))
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"{len(columns)} fields")
            rows.append(parse({name: str(value).strip() for name, value in row.items()}))
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(
            "a table cannot be read",
            where=f"{path}, line {len(rows) + 2}",
            found=type(error).__name__,
            expected=str(error),
            way_out="mend the line, or remove the file",
        ) from error
    return rows
