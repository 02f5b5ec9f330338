"""How much there is to do: the dimensions of a run's data, which its expectations hang on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    from thriftune.prepare.types import Splits

PRIOR_CLASSES = 2  # where there are no labels to count


@dataclass(frozen=True)
class Size:
    """How much there is to do: the data's dimensions.

    Args:
        rows: in all splits.
        train: rows to learn from.
        test: rows of the test split.
        classes: how many labels there are; not read for chat.
    """

    rows: float
    train: float
    test: float
    classes: int


def size_of(splits: Splits) -> Size:
    """The dimensions of prepared data."""
    rows = splits.report["rows"]
    classes = PRIOR_CLASSES
    if kind_of(splits.task).classes:
        classes = sum(counts["train"] > 0 for counts in splits.report["labels"].values())
    return Size(sum(rows.values()), rows["train"], rows["test"], classes)
