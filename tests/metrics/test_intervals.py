from __future__ import annotations

import numpy as np
import pytest

from thriftune.metrics import intervals
from thriftune.metrics.classification import class_statistics, label_statistics, score_statistics
from thriftune.metrics.statistics import summed
from thriftune.metrics.text import likelihood_statistics


def random_rows(rows: int, accuracy: float, seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    targets = rng.random(rows) < 0.3
    outputs = targets ^ (rng.random(rows) >= accuracy)
    return ["ab"[int(t)] for t in targets], ["ab"[int(o)] for o in outputs]


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    statistics = label_statistics(*random_rows(100, 0.8, 0))
    first = intervals.bootstrap(statistics, seed=3)
    assert first == intervals.bootstrap(statistics, seed=3)
    assert first != intervals.bootstrap(statistics, seed=4)


def test_chunks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = label_statistics(*random_rows(100, 0.8, 0))
    whole = intervals.bootstrap(statistics, resamples=500)
    monkeypatch.setattr("thriftune.metrics.statistics.CHUNK_ENTRIES", 7)
    assert intervals.bootstrap(statistics, resamples=500) == whole


def test_an_interval_holds_its_value_and_narrows_with_rows() -> None:
    widths = []
    for rows in (50, 500, 5000):
        found = intervals.bootstrap(label_statistics(*random_rows(rows, 0.8, 1)))
        for interval in found.values():
            assert interval.low <= interval.value <= interval.high
        widths.append(found["f1_macro"].high - found["f1_macro"].low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_bootstrap_of_a_mean_agrees_with_its_normal_interval() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 2_000)
    statistics = summed(np.column_stack([values, np.ones_like(values)]), lambda sums: {"mean": sums[:, 0] / sums[:, 1]})
    found = intervals.bootstrap(statistics, resamples=4_000)["mean"]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=half / 10)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 10)


def test_coverage_is_near_the_stated_confidence() -> None:
    # 0.7 × 0.8 true positives of one class…: F1 at the population, by a very large sample.
    truth = label_statistics(*random_rows(400_000, 0.8, 99)).values()["f1_macro"]
    covered = 0
    for seed in range(200):
        found = intervals.bootstrap(label_statistics(*random_rows(150, 0.8, seed)), resamples=600, seed=seed)
        covered += found["f1_macro"].low <= truth <= found["f1_macro"].high
    assert covered >= 180  # 90 %; three standard errors below 95 %


def test_a_perfect_score_still_has_doubt() -> None:
    found = intervals.bootstrap(label_statistics(["a", "b"] * 10, ["a", "b"] * 10))["f1_macro"]
    assert found.high == 1
    assert found.low == pytest.approx(intervals.wilson(20, 20, 0.95).low)


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263 and 0 of 20.
    found = intervals.wilson(81, 263, 0.95)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    none = intervals.wilson(0, 20, 0.95)
    assert (none.low, none.high) == (0, pytest.approx(0.1611, abs=5e-5))


def test_class_intervals_come_a_class() -> None:
    found = intervals.bootstrap_arrays(class_statistics(*random_rows(100, 0.8, 0)))
    assert found["f1"].shape == (3, 2)
    assert (found["f1"][1] <= found["f1"][0]).all() and (found["f1"][0] <= found["f1"][2]).all()


def test_the_calibration_errors_interval_reaches_both_ways() -> None:
    # Noise alone gives a plug-in error; the percentile interval would lie above the value that it is of.
    covered, truth = 0, 0.1
    for seed in range(100):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.7, 1, 300)
        right = rng.random(300) < confidence - truth
        rows = [{"a": share, "b": 1 - share} for share in confidence]
        statistics = score_statistics(["a" if ok else "b" for ok in right], ["a"] * 300, rows)
        found = intervals.bootstrap(statistics, resamples=300)["ece"]
        assert found.low < found.value < found.high
        covered += found.low <= truth <= found.high
    assert covered >= 90


def test_perplexity_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 30, size=200).astype(float)
    found = intervals.bootstrap(likelihood_statistics(tokens * rng.gamma(4, 0.5, 200), tokens))["perplexity"]
    assert 1 < found.low < found.value < found.high
