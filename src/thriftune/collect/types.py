"""What collecting makes: the data ledger's entries and the corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

CORPUS_FILE = "corpus.parquet"


@dataclass(frozen=True)
class LedgerEntry:
    """What one step did to the rows; it balances to the row, or it is not made.

    Args:
        step: the step's name, such as `collect` or `duplicates`.
        rows_in: rows that came in.
        kept: rows that went on.
        dropped: rows that did not, by reason.
        changed: kept rows whose content the step changed.
        notes: what a reader of the ledger should know, a sentence each.

    Raises:
        ValueError: `rows_in` is not `kept` plus all that was dropped (a defect of ours, never of the user's data).
    """

    step: str
    rows_in: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    changed: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rows_in != self.kept + sum(self.dropped.values()):
            raise ValueError(f"the data ledger does not balance at {self}")

    def as_data(self) -> dict[str, Any]:
        """The entry as plain JSON values: the data of a `data.entry` event."""
        return {
            "step": self.step,
            "rows_in": self.rows_in,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "changed": self.changed,
            "notes": list(self.notes),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> LedgerEntry:
        """The entry that `as_data` wrote."""
        return cls(
            data["step"], data["rows_in"], data["kept"], dict(data["dropped"]), data["changed"], tuple(data["notes"])
        )


@dataclass(frozen=True)
class Corpus:
    """The rows of all sources in one form.

    The Parquet file has the columns `id` (16 hex digits), `source`, `row` (1-based line or record in its source),
    `licence`, `part` and `group` (or null) and `target`; for classification also `text`, for tagging `tokens` (a list
    of words), for chat `messages` (every turn before the final answer, a list of `{role, content}`). Several labels, or
    the tags of a sentence's words, are one JSON list in `target`.

    Args:
        folder: the artifact's folder.
        content_hash: hash of what is in it.
        rows: how many rows it holds.
        entries: the data ledger up to here.
        task: its name.
        characters: how many its texts, or its turns and answers, have together.
    """

    folder: Path
    content_hash: str
    rows: int
    entries: tuple[LedgerEntry, ...]
    task: str
    characters: int

    @property
    def path(self) -> Path:
        """The Parquet file."""
        return self.folder / CORPUS_FILE

    def frame(self) -> pl.DataFrame:
        """All rows, in the order of the sources."""
        import polars as pl

        return pl.read_parquet(self.path)
