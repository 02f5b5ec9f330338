"""Rows of which cleaning left nothing to read or nothing to answer: nothing that can be seen."""

from __future__ import annotations

import polars as pl

from thriftune.collect.canonical import answer_columns
from thriftune.prepare.types import Dropped

VISIBLE = r"[^\s\p{Z}\p{Cc}\p{Cf}]"


def empty(frame: pl.DataFrame, targets: bool = True) -> Dropped:
    """Leave out rows with an empty text, no word, an empty turn, label or answer.

    Args:
        frame: rows.
        targets: whether they have something to answer; documents have not.
    """
    if "text" in frame.columns:
        content, reasons = ~pl.col("text").str.contains(VISIBLE), ("empty text", "empty label")
    elif "tokens" in frame.columns:
        seen = pl.element().str.contains(VISIBLE)
        content, reasons = ~pl.col("tokens").list.eval(seen).list.any(), ("no words", "no tags")
    else:
        blank_turn = ~pl.element().struct.field("content").str.contains(VISIBLE)
        content, reasons = pl.col("messages").list.eval(blank_turn).list.any(), ("empty turn", "empty answer")
    no_content = frame.select(content).to_series()
    no_target = pl.Series([False]).new_from_index(0, len(frame))
    for name in answer_columns(frame) if targets else ():
        no_target |= ~frame[name].str.contains(VISIBLE) & ~no_content
    counts = {reasons[0]: int(no_content.sum()), reasons[1]: int(no_target.sum())}
    return Dropped(
        frame.filter(~(no_content | no_target)), {reason: count for reason, count in counts.items() if count}
    )
