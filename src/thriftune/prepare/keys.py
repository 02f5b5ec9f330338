"""What makes two texts the same, and where a text or group lies between 0 and 1.

A text is the same as another that differs in case or whitespace only. Its position is a hash of that and of nothing
else: no project, file, seed, label or neighbour comes into it, so that a row lies where it lies from day one.
"""

from __future__ import annotations

from hashlib import blake2b

import polars as pl

from thriftune.collect.turns import apart

KEY = "_key"
KEY_BYTES = 16
_BITS = 53  # of a float's mantissa, so that no position rounds up to 1


def normalised(text: str) -> str:
    """The text without what does not make it another: case, and the kind and amount of whitespace."""
    return " ".join(text.casefold().split())


def text_key(text: str) -> str:
    """32 hex digits that equal texts share."""
    return _hash("text", normalised(text))


def group_key(group: str) -> str:
    """32 hex digits of a group's name, apart from those of texts."""
    return _hash("group", group)


def position(key: str) -> float:
    """Where a key lies, uniform in [0, 1)."""
    return (int(key[:16], 16) >> (64 - _BITS)) / (1 << _BITS)


def content_keys(frame: pl.DataFrame) -> pl.Series:
    """The key of each row's text, or of all its words or turns together."""
    if "text" in frame.columns:
        keys = [text_key(text) for text in frame["text"].to_list()]
    elif "tokens" in frame.columns:
        keys = [_hash("words", "\x1e".join(map(normalised, words))) for words in frame["tokens"].to_list()]
    else:
        turns = apart(frame["messages"])
        texts = zip(turns["role"].to_list(), turns["content"].to_list(), strict=True)
        parts = pl.DataFrame(
            [turns["at"], pl.Series("part", [f"{role}\x1f{normalised(content)}" for role, content in texts], pl.String)]
        )
        joined = parts.group_by("at", maintain_order=True).agg(pl.col("part").str.join("\x1e"))
        keys = [_hash("turns", text) for text in joined["part"].to_list()]
    return pl.Series(KEY, keys, pl.String)


def _hash(kind: str, text: str) -> str:
    return blake2b(f"{kind}\x1f{text}".encode(), digest_size=KEY_BYTES).hexdigest()
