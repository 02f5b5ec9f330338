"""More rows are held out in turn only where they would tell, and what they tell is true as often as it says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from thriftune.evaluate.evidence import SAFETY, parts_wanted, pooled, rows_needed
from thriftune.evaluate.types import Comparison, Evaluation, Scores, Verdict
from thriftune.metrics.paired import Outcome, mcnemar, outcome

CANNOT_TELL = Verdict("cannot tell", ("too few rows",))


def scores(name: str, ids: tuple[str, ...] = ("a", "b")) -> Scores:
    frame = pl.DataFrame({"id": ids, "output": [name] * len(ids)})
    return Scores(name, "classify", "test", len(ids), {}, {}, {}, 1.0, 1 if name == "tuned" else 0, "", frame)


def against(baseline: str, difference: float, half: float, said: Outcome = "cannot tell") -> Comparison:
    return Comparison(baseline, "f1_macro", difference, difference - half, difference + half, 0.2, 0.975, said, 50, 9)


def judged(*comparisons: Comparison, verdict: Verdict = CANNOT_TELL) -> Evaluation:
    baselines = tuple(scores(one.baseline) for one in comparisons)
    return Evaluation("f1_macro", scores("tuned"), baselines, comparisons, verdict)


def test_the_rows_that_are_needed_grow_with_the_square_of_the_interval_and_the_hardest_comparison_counts() -> None:
    easy, hard = against("tfidf", 0.1, 0.2), against("untuned", -0.05, 0.2)
    assert rows_needed(judged(easy)) == pytest.approx(50 * 4)
    assert rows_needed(judged(easy, hard)) == pytest.approx(50 * 16)
    assert rows_needed(judged(easy, against("majority", 0.5, 0.1, "better"))) == pytest.approx(50 * 4)
    assert rows_needed(judged(against("tfidf", 0.0, 0.2))) == math.inf
    # The interval tells, but the exact test on the few rows that differ does not.
    assert rows_needed(judged(against("tfidf", 0.3, 0.25))) == pytest.approx(50 * 2)


def test_more_rows_are_not_asked_for_where_they_are_not_what_is_missing() -> None:
    easy = against("tfidf", 0.1, 0.2)
    assert rows_needed(judged(easy, verdict=Verdict("ship", ("better",)))) is None
    assert rows_needed(judged(easy, against("untuned", -0.3, 0.1, "not better"))) is None
    assert rows_needed(judged(replace(easy, metric="accuracy"))) is None
    assert rows_needed(judged(replace(easy, part="films"))) is None
    assert rows_needed(judged()) is None
    whole = judged(easy)
    assert rows_needed(replace(whole, baselines=(*whole.baselines, scores("untuned")))) is None


@given(
    needed=st.floats(1, 5000),
    have=st.integers(1, 500),
    sizes=st.lists(st.integers(1, 400), min_size=2, max_size=10),
)
def test_as_many_parts_are_wanted_as_tell_with_some_safety_and_none_where_all_would_not(
    needed: float, have: int, sizes: list[int]
) -> None:
    parts = parts_wanted(needed, have, sizes)
    reached = have + sum(sizes[:parts])
    if parts == 0:
        assert have >= SAFETY * needed or have + sum(sizes) < needed
    elif parts < len(sizes):
        assert reached >= SAFETY * needed > reached - sizes[parts - 1]
    else:
        assert reached >= needed
    more = [parts_wanted(factor * needed, have, sizes) for factor in (1.0, 1.1, 1.5, 2.0)]
    assert all(later >= earlier or later == 0 for earlier, later in pairwise(more))


def test_no_part_is_wanted_where_no_number_of_rows_would_tell() -> None:
    assert parts_wanted(math.inf, 50, [60] * 5) == 0
    assert parts_wanted(300, 50, [60] * 5) == 5  # 350 rows just tell, without the safety
    assert parts_wanted(100, 50, [60] * 5) == 2


def test_answers_are_pooled_row_by_row_and_the_metrics_stay() -> None:
    one = scores("tuned")
    more = [{"tuned": scores("tuned", (name,)).predictions, "tfidf": scores("tfidf").predictions} for name in "cd"]
    both = pooled(one, more, look=3)
    assert both.predictions["id"].to_list() == ["a", "b", "c", "d"]
    assert (both.rows, both.look, both.metrics) == (4, 3, one.metrics)


def learnt(texts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of a ridge regression on the labels' signs."""
    inputs = np.column_stack([texts, np.ones(len(texts))])
    found: np.ndarray = np.linalg.solve(inputs.T @ inputs + 5.0 * np.eye(inputs.shape[1]), inputs.T @ (2 * labels - 1))
    return found


def right(weights: np.ndarray, texts: np.ndarray, labels: np.ndarray) -> list[bool]:
    answers = np.column_stack([texts, np.ones(len(texts))]) @ weights > 0
    return list((answers == (labels == 1)).tolist())


def verdict_of(drawn: np.random.Generator, ours: float, theirs: float) -> tuple[Outcome, Outcome]:
    """Two recipes that see 15 features each, which tell so much: what 40 test rows say, and what is said at the end."""
    rows, tested, features, parts = 320, 40, 15, 5
    labels = drawn.integers(0, 2, rows + tested)
    signs = (2 * labels - 1)[:, None] / np.sqrt(features)
    sides = [drawn.normal(size=(rows + tested, features)) + tells * signs for tells in (ours, theirs)]
    whole = [learnt(side[:rows], labels[:rows]) for side in sides]
    answers = [right(weights, side[rows:], labels[rows:]) for weights, side in zip(whole, sides, strict=True)]
    result = mcnemar(answers[0], answers[1], confidence=0.975)
    first = outcome(result)
    if first != "cannot tell":
        return first, first
    comparison = Comparison("other", "f1_macro", **vars(result), outcome=first)
    place = drawn.permutation(rows) % parts
    needed = rows_needed(judged(comparison))
    assert needed is not None
    for part in range(parts_wanted(needed, tested, np.bincount(place).tolist())):
        held = np.flatnonzero(place == part)
        rest = np.flatnonzero(place != part)
        for side, said in zip(sides, answers, strict=True):
            said.extend(right(learnt(side[rest], labels[rest]), side[held], labels[held]))
    return first, outcome(mcnemar(answers[0], answers[1], confidence=0.975))


def test_equal_recipes_are_called_better_or_worse_no_more_often_than_the_error_budget_allows() -> None:
    """1,500 pairs of recipes that are equal by construction, seed 0. Both verdicts together may spend 5 %, half of it
    on either side."""
    drawn = np.random.default_rng(0)
    ended = [verdict_of(drawn, 0.5, 0.5)[1] for _ in range(1500)]
    for said in ("better", "not better"):
        found = binomtest(ended.count(said), len(ended), alternative="less").proportion_ci(0.95)
        assert found.high <= 0.05


def test_a_better_recipe_is_found_far_more_often_with_the_rows_that_are_held_out_in_turn() -> None:
    """300 pairs, one of them right some 8 points more often, seed 1."""
    drawn = np.random.default_rng(1)
    said = [verdict_of(drawn, 0.95, 0.55) for _ in range(300)]
    first, ended = (sum(one[at] == "better" for one in said) for at in (0, 1))
    assert ended >= 2 * first
    assert ended >= 0.4 * 300
