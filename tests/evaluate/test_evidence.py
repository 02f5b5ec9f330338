"""More rows are held out in turn only where they would tell, and what they tell is true as often as it says."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from thriftune.evaluate.evidence import SURE, WORTHWHILE, chance, parts_wanted, pooled, undecided
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


def test_more_rows_are_not_asked_for_where_they_are_not_what_is_missing() -> None:
    open_still, told = against("tfidf", 0.1, 0.2), against("majority", 0.5, 0.1, "better")
    assert undecided(judged(open_still, told)) == [open_still]
    assert undecided(judged(open_still, verdict=Verdict("ship", ("better",)))) == []
    assert undecided(judged(open_still, against("untuned", -0.3, 0.1, "not better"))) == []
    assert undecided(judged(replace(open_still, metric="accuracy"))) == []
    assert undecided(judged(replace(open_still, part="films"))) == []
    assert undecided(judged()) == []
    whole = judged(open_still)
    assert undecided(replace(whole, baselines=(*whole.baselines, scores("untuned")))) == []


@given(
    difference=st.floats(-0.3, 0.3),
    half=st.floats(0.01, 0.5),
    rows=st.integers(51, 5000),
)
def test_the_chance_is_a_chance_and_the_hardest_comparison_counts(difference: float, half: float, rows: int) -> None:
    one, nothing = against("tfidf", difference, half), against("untuned", 0.0, 0.2)
    found = chance([one], rows)
    assert 0 <= found <= 1
    assert chance([against("tfidf", -difference, half)], rows) == pytest.approx(found)
    assert chance([one, nothing], rows) == min(found, chance([nothing], rows))
    assert chance([one], 50) == 0  # of the rows that could not tell


def test_a_chance_comes_true_as_often_as_it_says() -> None:
    """2,000 true differences drawn from what 50 rows leave open; with 300 rows, is the interval past zero? Seed 4."""
    drawn, one, rows = np.random.default_rng(4), against("tfidf", 0.1, 0.2), 300
    z = NormalDist().inv_cdf(0.9875)
    error = 0.2 / z
    true = drawn.normal(0.1, error, 2000)
    new = drawn.normal(true, error * np.sqrt(50 / (rows - 50)))
    both = (50 * 0.1 + (rows - 50) * new) / rows
    told = np.abs(both) > z * error * np.sqrt(50 / rows)
    assert told.mean() == pytest.approx(chance([one], rows), abs=0.03)


@given(
    difference=st.floats(-0.3, 0.3),
    half=st.floats(0.01, 0.5),
    sizes=st.lists(st.integers(1, 400), min_size=2, max_size=10),
)
def test_so_few_parts_are_wanted_as_tell_and_none_where_all_would_hardly(
    difference: float, half: float, sizes: list[int]
) -> None:
    comparisons = [against("tfidf", difference, half)]
    parts = parts_wanted(comparisons, sizes)
    chances = [chance(comparisons, rows) for rows in list(accumulate(sizes, initial=50))[1:]]
    if parts == 0:
        assert chances[-1] < WORTHWHILE
        assert max(chances) < SURE
    else:
        assert chances[parts - 1] >= SURE or (parts == len(sizes) and chances[-1] >= WORTHWHILE)
        assert all(found < SURE for found in chances[: parts - 1])
    assert parts_wanted(comparisons, []) == 0


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
    for part in range(parts_wanted(undecided(judged(comparison)), np.bincount(place).tolist())):
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
