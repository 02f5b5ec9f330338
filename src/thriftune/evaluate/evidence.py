"""More rows to be judged by, where those of the test split cannot tell: held out in turn from further trainings.

Cross-validation makes test rows of training rows: a model of the same recipe, trained without some of them, answers
these (Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions", 1974), and the baselines are fitted
without them too. Each answer is by a model that has not seen its row, so that the answers of all parts, and those to
the test split, are compared together. What is judged is then the recipe on somewhat fewer rows than the tuned model
had, which is rather too strict than too lenient: a model of more rows is seldom worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from thriftune.evaluate.types import Comparison, Evaluation, Scores
from thriftune.metrics.paired import CANNOT_TELL, NOT_BETTER

if TYPE_CHECKING:
    import polars as pl

SAFETY = 1.5  # times the rows that would just tell if the difference stayed
AGAIN = 2.0  # times the rows where the interval tells already, but too few of them differ


def rows_needed(evaluation: Evaluation) -> float | None:
    """How many rows would tell, if all differences stay; None where more rows are not what is missing.

    An interval narrows with the square root of the rows.
    """
    deciding = [one for one in evaluation.comparisons if one.metric == evaluation.metric and not one.part]
    outcomes = {one.outcome for one in deciding}
    if evaluation.verdict.decision != "cannot tell" or NOT_BETTER in outcomes or CANNOT_TELL not in outcomes:
        return None
    if {one.baseline for one in deciding} != {scores.predictor for scores in evaluation.baselines}:
        return None
    return max(_needed(one) for one in deciding if one.outcome == CANNOT_TELL)


def _needed(comparison: Comparison) -> float:
    difference, half = abs(comparison.difference), (comparison.high - comparison.low) / 2
    if difference == 0:
        return math.inf
    return comparison.rows * max(AGAIN if half <= difference else 1.0, (half / difference) ** 2)


def parts_wanted(needed: float, have: int, sizes: Sequence[int]) -> int:
    """How many parts of the training rows to hold out in turn: so many that the rows tell with some safety, all of
    them where they just tell, and none where even all of them would not.

    Args:
        needed: rows that would tell, if the differences stay.
        have: rows that were judged by.
        sizes: rows of each part, in the order in which they are taken.
    """
    reached = list(accumulate(sizes, initial=have))
    for parts, rows in enumerate(reached):
        if rows >= SAFETY * needed:
            return parts
    return len(sizes) if reached[-1] >= needed else 0


def pooled(scores: Scores, more: Sequence[Mapping[str, pl.DataFrame]], look: int) -> Scores:
    """Scores with the answers to further rows, by predictor, in each mapping; the metrics stay those of the split."""
    import polars as pl

    predictions = pl.concat([scores.predictions, *(answers[scores.predictor] for answers in more)], how="vertical")
    return replace(scores, predictions=predictions, rows=len(predictions), look=look)
