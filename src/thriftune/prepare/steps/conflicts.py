"""One text under several labels: always reported, and by default only the first of them stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import polars as pl

from thriftune.prepare.keys import KEY
from thriftune.prepare.types import Dropped

REASON = "same text, another label"
SHOWN = 20


def conflicts(
    frame: pl.DataFrame, policy: Literal["keep_first", "drop_all", "keep_all"], within: Sequence[str] = ()
) -> Dropped:
    """Find rows that are equal but for their target, and treat them by the policy.

    In a conversation several answers to one prompt are no conflict: they are counted and all stay. All rows of one
    text or prompt come to the same side of the split, whatever the policy.

    Args:
        frame: rows without duplicates, with their keys.
        policy: `keep_first`, `drop_all` or `keep_all`.
        within: columns in which rows must agree to be compared: the part, where parts are tasks of their own.
    """
    same = [KEY, *within]
    alike = pl.struct(same).is_duplicated()
    repeated = frame.filter(alike)
    count = repeated.n_unique(same) if len(repeated) else 0
    if not count:
        return Dropped(frame)
    if "messages" in frame.columns:
        return Dropped(frame, notes=(f"{count} prompts have several answers; all stay, on one side of the split",))
    if policy == "keep_all":
        kept = frame
    elif policy == "drop_all":
        kept = frame.filter(~alike)
    else:
        kept = frame.unique(subset=same, keep="first", maintain_order=True)
    done = {"keep_all": "all stay", "drop_all": "none stays", "keep_first": "the first stays"}[policy]
    note = f"{count} text{'s have' if count > 1 else ' has'} several labels; {done}"
    gone = len(frame) - len(kept)
    return Dropped(kept, {REASON: gone} if gone else {}, (note,), _examples(repeated, same))


def _examples(repeated: pl.DataFrame, same: Sequence[str]) -> tuple[dict[str, object], ...]:
    """The first conflicting texts, with each label and where it stands."""
    text = pl.col("text") if "text" in repeated.columns else pl.col("tokens").list.join(" ").alias("text")
    grouped = repeated.group_by(same, maintain_order=True).agg(text.first(), "target", "source", "row")
    return tuple(
        {
            "text": row["text"][:200],
            "labels": [
                {"label": label, "source": source, "row": number}
                for label, source, number in zip(row["target"], row["source"], row["row"], strict=True)
            ],
        }
        for row in grouped.head(SHOWN).iter_rows(named=True)
    )
