"""Columns whose cells are lists of short texts: a text's labels, or a sentence's words and their tags."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from thriftune.collect.canonical import LABELS_APART

LONGEST_PIECE = 50  # characters on average; what is longer is text
APART_SHARE = 0.1  # of a text column's cells that must hold a separator before it is a list
REPEATS = 3.0  # how often a label occurs on average; below that a list's pieces name things
EQUAL_SHARE = 0.9  # of the rows in which words and tags must be equally many; the others are bad rows


@dataclass(frozen=True)
class Listed:
    """What a sample of a column of lists shows.

    Args:
        lengths: of each cell's list, -1 where there is none.
        distinct: different pieces.
        pieces: all of them.
        plain: whether the cells are lists, and not texts with separators.
    """

    lengths: tuple[int, ...]
    distinct: int
    pieces: int
    plain: bool

    @property
    def repeats(self) -> bool:
        """Whether the pieces are few and come again and again, as labels and tags do."""
        return self.distinct >= 2 and self.pieces >= REPEATS * self.distinct

    def pairs_with(self, other: Listed) -> bool:
        """Whether both lists are of one length, row by row."""
        if not (self.plain and other.plain) or max(self.lengths, default=0) < 2:
            return False
        both = [(one, two) for one, two in zip(self.lengths, other.lengths, strict=True) if one >= 0 and two >= 0]
        return bool(both) and sum(one == two for one, two in both) >= EQUAL_SHARE * len(both)


def listed(cells: Sequence[Any]) -> Listed | None:
    """What the cells show, where they are lists of short texts; None where they are not."""
    values = [cell for cell in cells if cell is not None and cell != ""]
    lists = [_pieces(value) for value in values]
    plain = bool(lists) and all(one is not None for one in lists)
    if not plain:
        texts = [value for value in values if isinstance(value, str)]
        apart = sum(LABELS_APART in text for text in texts)
        if len(texts) < len(values) or not apart or apart < APART_SHARE * len(texts):
            return None
        lists = [[piece.strip() for piece in text.split(LABELS_APART) if piece.strip()] for text in texts]
    counts = Counter(piece for one in lists for piece in one or ())
    if not counts or fmean(map(len, counts)) > LONGEST_PIECE:
        return None
    rest = iter(lists)
    lengths = tuple(-1 if cell is None or cell == "" else len(next(rest) or ()) for cell in cells)
    found = Listed(lengths, len(counts), counts.total(), plain)
    return found if plain or found.repeats else None


def _pieces(value: Any) -> list[str] | None:
    """The texts of a list, or of the JSON list that a text is; None where it is something else."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list) and all(isinstance(piece, str | int | float) for piece in value):
        return [str(piece) for piece in value]
    return None
