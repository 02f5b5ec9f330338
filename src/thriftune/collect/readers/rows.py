"""What readers hand on: batches of cells, and an account of the rows that could not be read."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from thriftune.errors import BadInput

BATCH_ROWS = 20_000
KEPT_LINES = 20
SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class Batch:
    """Some rows of a source, column by column.

    Args:
        rows: the 1-based line (CSV, JSONL) or record (Parquet, JSON array) number of each row.
        cells: column name → one cell a row; None where there is none.
    """

    rows: list[int]
    cells: Mapping[str, list[Any]]


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read, and why."""

    row: int
    reason: str
    found: str
    expected: str


@dataclass
class BadRows:
    """Counts the unreadable rows of one source by reason, keeps the first, and stops when there are too many.

    Args:
        file: the source's name, for messages.
        limit: the share of rows that may be bad.
        most_rows: at least as many as the source has rows; when more than `limit` of these are bad it stops at once
            (after the first few, which the message lists), so that a file that is not what it seems is not read
            to its end.
    """

    file: str
    limit: float
    most_rows: int
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[BadRow] = field(default_factory=list)
    blank: int = 0  # empty lines, which are no rows

    def add(self, bad: BadRow) -> None:
        """Count a bad row.

        Raises:
            BadInput: there are more than the limit allows, however many good rows may follow.
        """
        self.reasons[bad.reason] += 1
        if len(self.first) < KEPT_LINES:
            self.first.append(bad)
        if self.total > max(KEPT_LINES, self.limit * self.most_rows):
            raise self._too_many(self.most_rows, "at most ")

    @property
    def total(self) -> int:
        """How many rows were bad."""
        return self.reasons.total()

    def check(self, rows: int) -> None:
        """Raise `BadInput` if more than the limit of the `rows` that the source has are bad, or all of them."""
        if self.total > self.limit * rows or 0 < self.total == rows:
            raise self._too_many(rows)

    def _too_many(self, rows: int, qualifier: str = "") -> BadInput:
        first = self.first[0]
        lines = ", ".join(str(bad.row) for bad in self.first) + (", …" if self.total > len(self.first) else "")
        reasons = ", ".join(f"{count} × {reason}" for reason, count in self.reasons.most_common())
        return BadInput(
            what=f"{self.total} of {qualifier}{rows} rows cannot be read ({reasons}); the limit is {self.limit:.1%}",
            where=f"{self.file}, row {first.row}",
            found=first.found,
            expected=first.expected,
            way_out=f"mend or delete row{'' if self.total == 1 else 's'} {lines}, or raise collect.bad_row_limit",
        )


class Reader(Protocol):
    """A source file that was opened and understood."""

    @property
    def columns(self) -> list[str]:
        """The names of its columns; for records without a header, those of the first thousand."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """How it is read, where that was detected: encoding, delimiter."""
        ...

    @property
    def most_rows(self) -> int:
        """The number of rows, or an upper bound on it."""
        ...

    def batches(self, wanted: Sequence[str], bad: BadRows) -> Iterator[Batch]:
        """The wanted columns, `BATCH_ROWS` rows at a time; what cannot be read goes to `bad`.

        Raises:
            BadInput: a wanted column is missing, or too many rows are bad.
        """
        ...


def missing_column(file: str, wanted: str, columns: Sequence[str]) -> BadInput:
    """The error for a column that is not there, with the nearest one that is."""
    lower = {column.lower(): column for column in columns}
    near = difflib.get_close_matches(wanted.lower(), lower, n=1, cutoff=0.5)
    shown = ", ".join(columns[:SHOWN_COLUMNS]) + (", …" if len(columns) > SHOWN_COLUMNS else "")
    hint = f"use {lower[near[0]]!r}, the nearest name, or another of these" if near else "name one of these columns"
    return BadInput(
        what=f"there is no column {wanted!r}",
        where=file,
        found=f"columns {shown}" if columns else "no columns",
        expected=f"a column {wanted!r}",
        way_out=hint,
    )


def shorten(value: object, limit: int = 80) -> str:
    """A value as text for a message, on one line and cut to `limit` characters."""
    text = repr(value[:limit] if isinstance(value, str) else value)
    return text if len(text) < limit else text[: limit - 1] + "…"
