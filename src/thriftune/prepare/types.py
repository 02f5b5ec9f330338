"""What preparing makes: three splits and the ledger of how they came to be; and what its steps are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thriftune.collect.types import LedgerEntry

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SIDES", "CleaningStep", "Dropped", "LedgerEntry", "Side", "Splits"]

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """Three Parquet files with the corpus's columns; no text, prompt or group is on two sides.

    Args:
        folder: the artifact's folder.
        content_hash: hash of what is in it.
        train: the rows to learn from.
        validation: the rows that steer training.
        test: the rows that only the verdict may look at.
        entries: the whole data ledger, collecting included.
        serving_steps: names of the steps that a server must run on each request, in order; see `serving.pipeline`.
        proportions: the share of rows that each side really got.
        report: the data report, plain JSON values.
        task: `classify` or `chat`.
    """

    folder: Path
    content_hash: str
    train: Path
    validation: Path
    test: Path
    entries: tuple[LedgerEntry, ...]
    serving_steps: tuple[str, ...]
    proportions: Mapping[str, float]
    report: Mapping[str, Any]
    task: str

    @property
    def by_part(self) -> bool:
        """Whether the data's parts are tasks of their own, each with a head."""
        return bool(self.report.get("heads", {}).get("chosen") == "by_part")


@dataclass(frozen=True)
class CleaningStep:
    """A step that changes what a model reads, and so must run at serving too.

    Args:
        name: its name in the ledger and in a saved model.
        clean: text → text, a pure function.
        suspect: a regular expression, read alike by Python and by polars; text in which nothing matches is text that
            `clean` would not change (a test holds it to that), so that most rows need not be looked at one by one.
        also_at_serving: that a server runs it on each request.
    """

    name: str
    clean: Callable[[str], str]
    suspect: str
    also_at_serving: bool = True


@dataclass(frozen=True)
class Dropped:
    """What a step that drops rows gives.

    Args:
        frame: the rows that stay, in their order.
        reasons: how many went, by reason.
        notes: what a reader of the ledger should know.
        examples: rows to show in the data report, plain JSON values.
    """

    frame: pl.DataFrame
    reasons: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    examples: tuple[Mapping[str, Any], ...] = ()
