from __future__ import annotations

import math

import numpy as np
import pytest

from thriftune.evaluate.latency import quantile_interval


def test_the_interval_of_a_quantile_covers_it_as_often_as_stated() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        found = quantile_interval(rng.exponential(size=150).tolist(), 0.95, 0.95)
        assert found.low <= found.value <= found.high
        covered += found.low <= -math.log(0.05) <= found.high
    assert covered >= 465  # 93 %; the stated 95 % are the least


def test_too_few_values_do_not_bound_it() -> None:
    assert quantile_interval([1.0, 2.0, 3.0], 0.95, 0.95).high == math.inf
    assert quantile_interval([1.0], 0.95, 0.95).value == pytest.approx(1.0)
