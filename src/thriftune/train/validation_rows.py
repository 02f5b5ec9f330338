"""How many rows of the validation split a pass reads: where the limits are tight, a pass over all would be dear.

Each validation is paid twice: by its own time, and by the upper bound of the last one, which is kept free from the
first step on. The rows are drawn by the recipe's seed, and how many is a recorded decision.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from thriftune.tasks.base import SOURCE_ROW
from thriftune.tasks.batches import take
from thriftune.train.costs import VALIDATION_SHARE, Costs

if TYPE_CHECKING:
    from thriftune.train.train import Work

VALIDATED = "validation rows"
FEWEST_VALIDATED = 50


def validated_rows(work: Work, costs: Costs, seconds: float) -> int:
    """How many validation rows a pass reads: all, or so many that it takes `VALIDATION_SHARE` of the seconds left.

    Where rows belong to parts, or several to one text, all are read.
    """
    rows = len(work.validation)
    if work.validation.parts is not None or SOURCE_ROW in work.validation.facts or costs.validation <= 0:
        return rows
    holds = int(rows * VALIDATION_SHARE * max(0.0, seconds) / costs.validation)
    return min(rows, max(FEWEST_VALIDATED, holds))


def with_validation(work: Work, costs: Costs, rows: int) -> tuple[Work, Costs]:
    """The work with so many of its validation rows, drawn by the recipe's seed, and what that costs."""
    whole = len(work.validation)
    if rows >= whole:
        return work, costs
    drawn = np.random.default_rng([work.recipe.seed, rows]).permutation(whole)[:rows]
    fewer = take(work.validation, np.sort(drawn))
    share = float(fewer.lengths.sum() / work.validation.lengths.sum())
    return replace(work, validation=fewer), replace(costs, validation=share * costs.validation)
