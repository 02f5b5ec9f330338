"""Corpus frames for tests."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from thriftune.collect.turns import from_python
from thriftune.prepare.keys import content_keys
from thriftune.tasks.targets import write_tags


def texts(rows: Sequence[tuple[str, str]], groups: Sequence[str | None] | None = None) -> pl.DataFrame:
    """A corpus of (text, label)."""
    return _corpus(len(rows), groups).with_columns(
        pl.Series("text", [text for text, _ in rows], pl.String),
        pl.Series("target", [label for _, label in rows], pl.String),
    )


def talks(rows: Sequence[tuple[str, str]], groups: Sequence[str | None] | None = None) -> pl.DataFrame:
    """A corpus of (prompt, answer)."""
    return _corpus(len(rows), groups).with_columns(
        from_python([[{"role": "user", "content": prompt}] for prompt, _ in rows]),
        pl.Series("target", [answer for _, answer in rows], pl.String),
    )


def tagged(rows: Sequence[tuple[list[str], list[str]]], groups: Sequence[str | None] | None = None) -> pl.DataFrame:
    """A corpus of (words, tags)."""
    return _corpus(len(rows), groups).with_columns(
        pl.Series("tokens", [words for words, _ in rows], pl.List(pl.String)),
        pl.Series("target", [write_tags(tags) for _, tags in rows], pl.String),
    )


def keyed(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its rows' keys."""
    return frame.with_columns(content_keys(frame))


def _corpus(rows: int, groups: Sequence[str | None] | None) -> pl.DataFrame:
    return pl.DataFrame(
        [
            pl.Series("id", [f"{n:016x}" for n in range(rows)], pl.String),
            pl.Series("source", ["rows.csv"] * rows, pl.String),
            pl.Series("row", range(2, rows + 2), pl.Int64),
            pl.Series("licence", ["MIT"] * rows, pl.String),
            pl.Series("part", [None] * rows, pl.String),
            pl.Series("group", groups or [None] * rows, pl.String),
        ]
    )
