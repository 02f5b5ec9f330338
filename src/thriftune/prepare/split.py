"""Three sides that share nothing, by a hash: a row's side depends on its own text or group alone.

**Stable.** Each text has a position in [0, 1), each group another; test takes the lowest positions, validation the
next, train the rest. Nothing of the other rows comes into it, so rows that are added later never move an old one.

**Disjoint.** Rows of one text (or prompt) and rows of one group are one component, and a text in two groups joins them
into one. A component lies at the lowest position of its groups and ungrouped texts. So when a new row joins two that
lay apart, rows may move from train to validation or test and from validation to test, but a test row never leaves the
test side.

**Stratified.** A split that is stable cannot count rows, so no class can be cut at exactly a tenth. Each class is cut
by the same thresholds at positions that do not depend on the class; its proportions are binomial around those asked
for. The tolerance is what rows that fall one by one exceed in 27 of 10,000 data sets, over all classes and sides
together (binomial, 3 sigma, Bonferroni); `balance` says where it is exceeded, as happens when large groups fall as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import polars as pl

from thriftune.errors import BadInput
from thriftune.prepare.keys import KEY, group_key, position
from thriftune.prepare.options import Proportions
from thriftune.prepare.types import SIDES, Side

COMPONENT = "_component"
SIDE = "_side"
THREE_SIGMA = 2 * NormalDist().cdf(-3)
SURE = 0.99


@dataclass(frozen=True)
class Balance:
    """How many rows of a class (or of all, where it is None) a side got, against what it should get.

    `tolerance` is in rows, on either side of `expected`.
    """

    side: Side
    label: str | None
    rows: int
    expected: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether chance explains the difference."""
        return abs(self.rows - self.expected) <= self.tolerance


def side_at(place: float, proportions: Proportions) -> Side:
    """The side that a position in [0, 1) belongs to."""
    if place < proportions.test:
        return "test"
    return "validation" if place < proportions.test + proportions.validation else "train"


def assign(frame: pl.DataFrame, proportions: Proportions) -> pl.DataFrame:
    """The frame with each row's component and side.

    Args:
        frame: rows with `group` and their keys (`keys.KEY`).
        proportions: the share of each side.
    """
    keys = frame[KEY].to_list()
    groups = frame["group"].to_list()
    if frame["group"].null_count() == len(frame):
        components = keys
    else:
        components = _components(keys, [group if group is None else group_key(group) for group in groups])
    anchors = [key if group is None else group_key(group) for key, group in zip(keys, groups, strict=True)]
    lowest: dict[str, float] = {}
    for component, anchor in zip(components, anchors, strict=True):
        lowest[component] = min(position(anchor), lowest.get(component, 1.0))
    sides = [side_at(lowest[component], proportions) for component in components]
    return frame.with_columns(pl.Series(COMPONENT, components, pl.String), pl.Series(SIDE, sides, pl.String))


def _components(keys: list[str], groups: list[str | None]) -> list[str]:
    """A name for each row that rows share if a chain of equal keys and equal groups joins them."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        path = []
        while (above := parent.setdefault(node, node)) != node:
            path.append(node)
            node = above
        for passed in path:
            parent[passed] = node
        return node

    for key, group in zip(keys, groups, strict=True):
        if group is not None:
            parent[root(key)] = root(group)
    return [root(key) for key in keys]


def by_class(assigned: pl.DataFrame, classes: pl.Series) -> pl.DataFrame:
    """`label` and side of each row, once for each of its classes."""
    return assigned.select(classes.alias("label"), SIDE).explode("label").drop_nulls("label")


def balance(assigned: pl.DataFrame, proportions: Proportions, classes: pl.Series | None) -> list[Balance]:
    """Each side's rows against its proportion, over all rows and, where lists of classes are given, for each."""
    everything = assigned.select(pl.lit(None, pl.String).alias("label"), SIDE)
    rows = everything if classes is None else pl.concat([everything, by_class(assigned, classes)])
    counts = rows.group_by("label").agg(
        pl.len().alias("rows"), *((pl.col(SIDE) == side).sum().alias(side) for side in SIDES)
    )
    z = NormalDist().inv_cdf(1 - THREE_SIGMA / (2 * len(SIDES) * len(counts)))
    shares = proportions.model_dump()
    return [
        Balance(
            side=side,
            label=row["label"],
            rows=row[side],
            expected=shares[side] * row["rows"],
            # Half a row for counting in whole ones.
            tolerance=z * math.sqrt(shares[side] * (1 - shares[side]) * row["rows"]) + 0.5,
        )
        for row in counts.sort("label", nulls_last=False).iter_rows(named=True)
        for side in SIDES
    ]


def check(assigned: pl.DataFrame, proportions: Proportions, classes: pl.Series | None, where: str) -> None:
    """Raise `BadInput` where a side has no rows, or train lacks a class; it says how many rows are needed."""
    counts: Mapping[str, int] = dict(assigned.group_by(SIDE).len().iter_rows())
    shares = proportions.model_dump()
    lacking = [side for side in SIDES if not counts.get(side)]
    if lacking:
        needed = rows_needed(min(shares.values()))
        components = assigned[COMPONENT].n_unique()
        raise BadInput(
            what=f"there are too few rows to split: none falls to {' and '.join(lacking)}",
            where=where,
            found=f"{len(assigned)} usable rows in {components} texts or groups that must stay together",
            expected=f"{needed} texts or groups, which give each side one with {SURE:.0%} certainty; hundreds, to tell"
            " a better model from a worse one",
            way_out="add rows; with groups, add groups or leave `group` out",
        )
    if classes is None:
        return
    lost = unseen(assigned, classes)
    if lost:
        raise BadInput(
            what=f"{len(lost)} of {classes.explode().n_unique()} classes have no row to train on",
            where=where,
            found=", ".join(lost[:10]) + (", …" if len(lost) > 10 else ""),
            expected=f"at least {rows_needed(shares['train'])} different texts of each class, which put one into train"
            f" with {SURE:.0%} certainty",
            way_out="add rows of these classes, join them with others, or leave them out",
        )


def unseen(assigned: pl.DataFrame, classes: pl.Series) -> list[str]:
    """The classes of which no row falls to train, with the number of their rows, in words."""
    counts = by_class(assigned, classes).group_by("label").agg((pl.col(SIDE) == "train").any(), pl.len().alias("rows"))
    lost = counts.filter(~pl.col(SIDE)).sort("label").select("label", "rows").rows()
    return [f"{label!r} ({rows} row{'' if rows == 1 else 's'})" for label, rows in lost]


def rows_needed(share: float) -> int:
    """How many independent rows make it `SURE` that a side of this share gets at least one."""
    return math.ceil(math.log(1 - SURE) / math.log(1 - share))
