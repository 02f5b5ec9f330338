"""Exact duplicates, up to case and whitespace: the first of them stays."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from thriftune.collect.canonical import answer_columns
from thriftune.prepare.keys import KEY
from thriftune.prepare.types import Dropped

REASON = "duplicate"


def duplicates(frame: pl.DataFrame, within: Sequence[str] = ()) -> Dropped:
    """Leave out rows whose text or turns (by key) and answers are those of an earlier row.

    Args:
        frame: rows with their keys.
        within: columns in which rows must agree to be compared: the part, where parts are tasks of their own.
    """
    kept = frame.unique(subset=[KEY, *within, *answer_columns(frame)], keep="first", maintain_order=True)
    gone = len(frame) - len(kept)
    return Dropped(kept, {REASON: gone} if gone else {})
