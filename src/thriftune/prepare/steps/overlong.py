"""Rows longer than any text should be: left out before anything else reads them."""

from __future__ import annotations

import polars as pl

from thriftune.collect.canonical import lengths
from thriftune.prepare.types import Dropped

REASON = "longer than the limit"


def overlong(frame: pl.DataFrame, longest_row: int) -> Dropped:
    """Leave out rows of more than `longest_row` characters (text, or all turns and the answer)."""
    characters = lengths(frame)
    kept = frame.filter(characters <= longest_row)
    gone = len(frame) - len(kept)
    if not gone:
        return Dropped(kept)
    longest = int(characters.sort()[-1])
    return Dropped(kept, {REASON: gone}, (f"the longest row has {longest:,} characters",))
