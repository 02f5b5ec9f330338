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
from statistics import NormalDist
from typing import TYPE_CHECKING

from thriftune.evaluate.types import Comparison, Evaluation, Scores
from thriftune.metrics.paired import CANNOT_TELL, NOT_BETTER

if TYPE_CHECKING:
    import polars as pl

SURE = 0.8  # as many parts are held out as tell with this chance
WORTHWHILE = 0.3  # where even all of them would tell with a smaller one, none is


def undecided(evaluation: Evaluation) -> list[Comparison]:
    """The comparisons that more rows could decide; none where more rows are not what is missing."""
    deciding = [one for one in evaluation.comparisons if one.metric == evaluation.metric and not one.part]
    if evaluation.verdict.decision != "cannot tell" or NOT_BETTER in {one.outcome for one in deciding}:
        return []
    if {one.baseline for one in deciding} != {scores.predictor for scores in evaluation.baselines}:
        return []
    return [one for one in deciding if one.outcome == CANNOT_TELL]


def chance(comparisons: Sequence[Comparison], rows: int) -> float:
    """The chance that so many rows tell, of the comparison that is hardest to decide.

    What the rows at hand say of the difference is all that is known of it; an interval narrows with the square root of
    the rows. Source: predictive power, Spiegelhalter, Freedman and Blackburn, "Monitoring Clinical Trials: Conditional
    or Predictive Power?", 1986.

    Args:
        comparisons: undecided ones, on fewer rows.
        rows: those and further ones.
    """
    return min(_chance(one, rows) for one in comparisons)


def _chance(comparison: Comparison, rows: int) -> float:
    z = NormalDist().inv_cdf((1 + comparison.confidence) / 2)
    error, known = (comparison.high - comparison.low) / 2 / z, comparison.rows / rows
    if error == 0 or known >= 1:
        return 0.0
    then = NormalDist(comparison.difference, error * math.sqrt(1 - known))
    bound = z * error * math.sqrt(known)
    return 1 - then.cdf(bound) + then.cdf(-bound)


def parts_wanted(comparisons: Sequence[Comparison], sizes: Sequence[int]) -> int:
    """How many parts of the training rows to hold out in turn: so few that they tell with `SURE`, all of them where
    they are `WORTHWHILE`, or none.

    Args:
        comparisons: undecided ones.
        sizes: rows of each part, in the order in which they are taken.
    """
    chances = [chance(comparisons, rows) for rows in list(accumulate(sizes, initial=comparisons[0].rows))[1:]]
    for parts, found in enumerate(chances, 1):
        if found >= SURE:
            return parts
    return len(sizes) if chances and chances[-1] >= WORTHWHILE else 0


def pooled(scores: Scores, more: Sequence[Mapping[str, pl.DataFrame]], look: int) -> Scores:
    """Scores with the answers to further rows, by predictor, in each mapping; the metrics stay those of the split."""
    import polars as pl

    predictions = pl.concat([scores.predictions, *(answers[scores.predictor] for answers in more)], how="vertical")
    return replace(scores, predictions=predictions, rows=len(predictions), look=look)
