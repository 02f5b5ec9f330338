"""Who wins a search when what is cheaper to serve is as good as one can tell."""

import numpy as np
import pytest

from thriftune.search.choice import choose, on_frontier
from thriftune.search.curves import Look
from thriftune.search.policies import Standing
from thriftune.search.space import make_space
from thriftune.search.summary import importance, saved_seconds

MEANS = np.array([0.80, 0.81, 0.79, 0.70])
SERVING = [20e6, 80e6, 10e6, 1e6]


def standing(error: float) -> Standing:
    return Standing(1, MEANS, np.full(4, error))


def test_the_cheapest_to_serve_within_one_standard_error_of_the_best_wins_and_says_why():
    choice = choose(standing(0.02), range(4), SERVING, 1.0)
    assert (choice.winner, choice.top) == (2, 1)
    assert "12%" in choice.because
    assert "2.00 points behind" in choice.because
    assert choose(standing(0.015), range(4), SERVING, 1.0).winner == 0
    assert choose(standing(0.005), range(4), SERVING, 1.0).winner == 1
    assert choose(standing(0.02), [0, 1, 3], SERVING, 1.0).winner == 0  # what nobody looked at cannot win


@pytest.mark.parametrize("within", [0.0, 1.0])
def test_the_top_score_wins_where_all_cost_the_same_or_the_error_is_not_known(within):
    assert choose(standing(0.02), range(4), [20e6] * 4, within).winner == 1
    assert choose(standing(float("nan")), range(4), SERVING, within).winner == 1
    assert choose(standing(0.5), range(4), SERVING, 0.0).winner == 1


def test_the_frontier_leaves_out_what_something_cheaper_beats():
    assert on_frontier(MEANS, SERVING, range(4)) == [3, 2, 0, 1]
    assert on_frontier(np.array([0.8, 0.7, 0.6]), [1.0, 2.0, 1.0], range(3)) == [0]


def test_what_leaving_trainings_saves_is_their_rest_at_the_pace_of_the_looks():
    space = make_space([{"epochs": 3}, {"epochs": 6}], [3.0, 6.0], {"epochs": 3})
    looks = [Look(0, 0, 1, 0.5, 1.0), Look(0, 0, 2, 0.6, 1.0), Look(1, 0, 1, 0.6, 1.0), Look(1, 1, 6, 0.6, 1.0)]
    assert saved_seconds(space, looks, [2.0] * 4) == pytest.approx(2.0 * (1 + 5 + 0))


def test_the_option_that_makes_the_difference_is_the_important_one():
    grid = [{"rate": rate, "kind": kind} for rate in (1.0, 2.0, 3.0, 4.0) for kind in ("a", "b", "c")]
    space = make_space(grid, [1.0] * len(grid), grid[0])
    mean = np.array([0.1 * one["rate"] + 0.001 * (one["kind"] == "b") for one in grid])
    shares = importance(space, Standing(0, mean, mean), range(len(grid)))
    assert list(shares) == ["rate", "kind"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["rate"] > 0.9
    assert importance(space, Standing(0, mean, mean), [0, 1, 2]) == {}
