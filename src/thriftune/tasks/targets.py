"""Targets that are lists: a text's labels, a sentence's tags; in the corpus each is one JSON text.

A target is a text wherever rows are kept, compared and resampled, so a list needs one form: equal lists are equal
texts. A text's labels are a set, hence sorted and each there once; a sentence's tags are in its words' order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    import polars as pl


def write_labels(labels: Iterable[str]) -> str:
    """A set of labels as a target.

    >>> write_labels(["b", "a", "b"])
    '["a", "b"]'
    """
    return json.dumps(sorted(set(labels)), ensure_ascii=False)


def write_tags(tags: Sequence[str]) -> str:
    """The tags of a sentence's words as a target."""
    return json.dumps(list(tags), ensure_ascii=False)


def read_list(target: str) -> list[str]:
    """The labels or tags of a target that one of these wrote."""
    found: list[str] = json.loads(target)
    return found


def classes_of(targets: pl.Series, task: str) -> pl.Series:
    """(rows,) lists: the classes that each target tells of, each once: itself, its labels, or its tags."""
    import polars as pl

    if kind_of(task).target == "whole":
        return (
            targets.reshape((-1, 1)).cast(pl.List(pl.String))
            if len(targets)
            else pl.Series([], dtype=pl.List(pl.String))
        )
    distinct = targets.unique(maintain_order=True)
    lists = pl.Series([sorted(set(read_list(target))) for target in distinct], dtype=pl.List(pl.String))
    table = pl.DataFrame({"target": distinct, "classes": lists})
    return pl.DataFrame({"target": targets}).join(table, on="target", how="left", maintain_order="left")["classes"]


def class_count(targets: pl.Series, task: str) -> int:
    """How many different classes there are."""
    return int(classes_of(targets, task).explode().drop_nulls().n_unique())
