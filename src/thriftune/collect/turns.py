"""Conversations as columns: lists of turns taken apart into flat columns and put together again.

polars makes a series of lists of structs from Python objects row by row, a hundred times slower than from columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

Turns = list[dict[str, str]]


def from_python(conversations: Sequence[Turns]) -> pl.Series:
    """The series `messages` (List(Struct(role, content))) of conversations, each of one turn at least."""
    flat = pl.DataFrame(
        [
            pl.Series("at", [at for at, turns in enumerate(conversations) for _ in turns], pl.Int64),
            pl.Series("role", [turn["role"] for turns in conversations for turn in turns], pl.String),
            pl.Series("content", [turn["content"] for turns in conversations for turn in turns], pl.String),
        ]
    )
    return together(flat)


def apart(messages: pl.Series) -> pl.DataFrame:
    """A row a turn, with the columns `at` (the conversation's place), `role` and `content`."""
    numbered = pl.DataFrame([pl.int_range(len(messages), eager=True).alias("at"), messages.alias("messages")])
    return numbered.explode("messages").unnest("messages")


def together(flat: pl.DataFrame) -> pl.Series:
    """The series `messages` that `apart` took apart."""
    grouped = flat.group_by("at", maintain_order=True).agg(pl.struct("role", "content").alias("messages"))
    return grouped["messages"]
