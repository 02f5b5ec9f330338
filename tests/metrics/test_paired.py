from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from thriftune.metrics import paired
from thriftune.metrics.classification import label_statistics
from thriftune.metrics.text import answer_statistics, likelihood_statistics


def pair_of_classifiers(rows: int, discordant: float, gain: float, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Targets and two predictors' labels, 80 % right; they differ on a share of rows, and in accuracy by `gain`."""
    rng = np.random.default_rng(seed)
    targets, draw = rng.random(rows) < 0.3, rng.random(rows)
    wins, losses = (discordant + gain) / 2, (discordant - gain) / 2
    both = 0.8 - losses
    ours = (draw < both) | ((draw >= both) & (draw < both + wins))
    theirs = (draw < both) | ((draw >= both + wins) & (draw < both + wins + losses))

    def names(values: np.ndarray) -> list[str]:
        return ["ab"[int(value)] for value in values]

    return names(targets), names(np.where(ours, targets, ~targets)), names(np.where(theirs, targets, ~targets))


def compared(rows: int, discordant: float, gain: float, seed: int, resamples: int = 1_000) -> paired.PairedResult:
    targets, ours, theirs = pair_of_classifiers(rows, discordant, gain, seed)
    stacked = label_statistics(targets + targets, ours + theirs)
    return paired.paired_bootstrap(stacked, resamples, 0.95, seed)["f1_macro"]


def test_tango_agrees_with_a_published_interval() -> None:
    # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), table 6: airway responsiveness, 1 and 7 of 21.
    assert paired.tango(1, 7, 21, 0.95) == (pytest.approx(-0.517, abs=5e-4), pytest.approx(-0.026, abs=5e-4))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200), st.sampled_from([0.8, 0.95, 0.999]))
@settings(max_examples=200, deadline=None)
def test_mcnemar_is_the_exact_test_and_its_interval_agrees_with_it(
    wins: int, losses: int, others: int, confidence: float
) -> None:
    found = paired.mcnemar_counts(wins, losses, wins + losses + others, confidence)
    if wins + losses:
        assert found.p_value == pytest.approx(binomtest(wins, wins + losses).pvalue)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    if found.low > 0 or found.high < 0:
        assert found.p_value <= 1 - confidence + 1e-9
    mirrored = paired.mcnemar_counts(losses, wins, wins + losses + others, confidence)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-found.high, abs=1e-7), pytest.approx(-found.low, abs=1e-7))


def test_no_rows_is_no_evidence() -> None:
    found = paired.mcnemar([], [])
    assert (found.low, found.high, found.p_value) == (-1, 1, 1)


def test_mcnemar_refuses_other_rows() -> None:
    with pytest.raises(ValueError, match="same rows"):
        paired.mcnemar([True], [True, False])


def test_outcomes() -> None:
    def result(low: float, high: float, p: float = 0.001, differing: int = 10) -> paired.PairedResult:
        return paired.PairedResult((low + high) / 2, low, high, p, 0.95, differing, 100)

    assert paired.outcome(result(0.01, 0.05)) == "better"
    assert paired.outcome(result(0.01, 0.05, p=0.2)) == "cannot tell"
    assert paired.outcome(result(-0.01, 0.05)) == "cannot tell"
    assert paired.outcome(result(-0.05, -0.01)) == "not better"
    assert paired.outcome(result(-0.01, 0.004), minimum_gain=0.005) == "not better"
    assert paired.outcome(result(0.001, 0.004), minimum_gain=0.005) == "not better"
    assert paired.outcome(result(-0.01, 0.01, p=1, differing=0)) == "not better"


def test_a_few_wins_of_a_few_are_not_enough() -> None:
    # All rows right against four wrong of 20: the bootstrap alone would call this better.
    targets = ["a", "b"] * 10
    wrong = ["b", "a", "b", "a", *targets[4:]]
    found = paired.paired_bootstrap(label_statistics(targets + targets, targets + wrong))["f1_macro"]
    assert found.low > 0
    assert found.p_value == pytest.approx(2 / 16, abs=0.02)
    assert paired.outcome(found) == "cannot tell"


def test_the_exchange_test_of_accuracy_is_mcnemars() -> None:
    targets, ours, theirs = pair_of_classifiers(200, 0.2, 0.08, 3)
    found = paired.paired_bootstrap(label_statistics(targets + targets, ours + theirs), 20_000)["accuracy"]
    right = [[t == o for t, o in zip(targets, outputs, strict=True)] for outputs in (ours, theirs)]
    exact = paired.mcnemar(right[0], right[1])
    assert found.difference == pytest.approx(exact.difference)
    assert found.differing == exact.differing
    assert found.p_value == pytest.approx(exact.p_value, abs=4 * math.sqrt(exact.p_value / 20_000) + 1e-4)


def test_no_difference_is_seldom_called_better() -> None:
    better = sum(paired.outcome(compared(100, 0.2, 0.0, seed)) == "better" for seed in range(300))
    assert better <= 15  # 2.5 % expected; 5 % is over two and a half standard errors away


def test_a_real_difference_is_found_about_as_often_as_by_the_exact_test() -> None:
    ours = exact = 0
    for seed in range(120):
        targets, first, second = pair_of_classifiers(400, 0.2, 0.07, seed)
        ours += paired.outcome(compared(400, 0.2, 0.07, seed)) == "better"
        right = [[t == o for t, o in zip(targets, outputs, strict=True)] for outputs in (first, second)]
        test = paired.mcnemar(right[0], right[1])
        exact += test.p_value <= 0.05 and test.difference > 0
    assert exact > 60
    assert ours >= 0.9 * exact


def test_lower_perplexity_is_a_gain() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 20, 100).astype(float)
    losses = tokens * rng.gamma(9, 0.3, 100)
    stacked = likelihood_statistics(np.concatenate([losses * 0.8, losses]), np.concatenate([tokens, tokens]))
    found = paired.paired_bootstrap(stacked, 1_000)["perplexity"]
    assert found.difference > 0 and found.low > 0
    assert paired.outcome(found) == "better"


def test_answers_are_compared_by_the_corpus_metric() -> None:
    targets = [f"press the {word} button and wait" for word in ["red", "green", "blue", "black", "white", "grey"]] * 3
    good = [t.replace("wait", "hold") for t in targets]
    found = paired.paired_bootstrap(answer_statistics(targets + targets, good + ["hello there"] * 18), 1_000)
    assert all(paired.outcome(found[name]) == "better" for name in ("bleu", "chrf", "rouge1", "rouge2", "rougeL"))
    same = paired.paired_bootstrap(answer_statistics(targets + targets, good + good), 200)["bleu"]
    assert same.differing == 0
    assert paired.outcome(same) == "not better"
