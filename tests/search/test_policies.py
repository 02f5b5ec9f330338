"""Policies: what is believed, what is looked at next, and who wins."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from thriftune.search import curves
from thriftune.search.curves import Beliefs, Curves, Look
from thriftune.search.policies import CurvesPolicy, knowledge_gradients
from thriftune.search.sampled import PRUNERS, SAMPLERS, policy_of
from thriftune.search.space import Space, make_space, product_of

GRID = [{"learning_rate": rate, "epochs": epochs} for rate in (1e-5, 1e-4, 1e-3) for epochs in (3, 6)]
FOLDS = 3


@pytest.fixture
def space() -> Space:
    return make_space(GRID, [one["epochs"] for one in GRID], {"learning_rate": 1e-5, "epochs": 3})


def truth(number: int, rung: int) -> float:
    """A made-up curve: the middle rate is best, and more training helps."""
    one = GRID[number]
    return 0.9 - 0.1 * abs(np.log10(one["learning_rate"]) + 4) - 0.3 * 0.6**rung - 0.01 * (one["epochs"] == 3)


def searched(policy, space: Space, budget: float) -> list[Look]:
    looks: list[Look] = []
    random = np.random.default_rng(0)
    while (proposal := policy.propose(looks, budget - sum(look.cost for look in looks))) is not None:
        score = truth(proposal.configuration, proposal.rung) + random.normal(0, 0.01)
        cost = space.configurations[proposal.configuration].rung_cost
        looks.append(Look(proposal.configuration, proposal.fold, proposal.rung, score, cost))
    return looks


def test_one_draw_of_the_curves_model_is_a_gaussian_process(space, monkeypatch):
    monkeypatch.setattr(curves, "DRAWS", 1)
    for name in ("LENGTH_SPREAD", "SIGNAL_SPREAD", "TRAINING_SPREAD", "NOISE_SPREAD"):
        monkeypatch.setattr(curves, name, 1e-12)
    looks = [Look(0, 0, 3, 0.6, 3.0), Look(3, 1, 6, 0.8, 6.0), Look(4, 2, 3, 0.5, 3.0)]  # nothing is shared
    beliefs = Curves(space).beliefs(looks)

    def place(number: int, rung: int) -> list[float]:
        scaled = space.coordinates[number] / curves.LENGTH
        whole = space.configurations[number].rungs
        return [*scaled, rung / whole / curves.TRAINING_LENGTH, np.log2(rung) / 2 / curves.TRAINING_LENGTH]

    noise = curves.FOLD**2 + curves.TRAINING**2 + curves.NOISE**2
    kernel = curves.SIGNAL**2 * Matern(nu=2.5) + WhiteKernel(noise)
    reference = GaussianProcessRegressor(kernel, optimizer=None)
    scores = np.array([look.score for look in looks])
    reference.fit([place(look.configuration, look.rung) for look in looks], scores - np.median(scores))
    mean, deviation = reference.predict(
        [place(number, one.rungs) for number, one in enumerate(space.configurations)], return_std=True
    )
    assert beliefs.mean == pytest.approx(mean + np.median(scores), abs=1e-8)
    assert beliefs.deviation**2 == pytest.approx(deviation**2 - noise, abs=1e-8)


def test_the_knowledge_gradient_is_the_expected_rise_of_the_best_mean():
    beliefs = Beliefs(np.array([0.5, 0.7, 0.65]), np.full(3, 0.1), np.array([0.2, 0.05, 0.1]))
    random = np.random.default_rng(0)
    for number, gain in enumerate(knowledge_gradients(beliefs)):
        means = np.tile(beliefs.mean, (200_000, 1))
        means[:, number] += beliefs.told[number] * norm.rvs(size=len(means), random_state=random)
        assert gain == pytest.approx(means.max(axis=1).mean() - beliefs.mean.max(), abs=1e-3)


@pytest.mark.parametrize("sampler", ["curves", *SAMPLERS])
def test_every_sampler_keeps_its_budget_and_finds_the_better_half_with_all_of_the_grid_s(space, sampler):
    policy = policy_of(sampler, "none", space, FOLDS, seed=0)
    whole = FOLDS * sum(one.cost for one in space.configurations)
    for budget in (whole / 5, whole):
        looks = searched(policy, space, budget)
        assert 0 < sum(look.cost for look in looks) <= budget
        assert len({(look.configuration, look.fold, look.rung) for look in looks}) == len(looks)
    assert GRID[policy.standing(looks).winner]["learning_rate"] == 1e-4


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_training_goes_on_rung_by_rung_until_its_end_or_a_pruner_s(space, pruner):
    looks = searched(policy_of("random", pruner, space, FOLDS, seed=1), space, 100.0)
    for number in {look.configuration for look in looks}:
        for fold in range(FOLDS):
            rungs = [look.rung for look in looks if look.configuration == number and look.fold == fold]
            assert rungs == list(range(1, len(rungs) + 1))


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_a_pruner_ends_trainings_that_none_would_have_gone_on_with(pruner):
    grid = [{"learning_rate": rate, "epochs": 9} for rate in np.logspace(-6, -2, 25)]
    space = make_space(grid, [9.0] * len(grid), grid[0])
    assert space.configurations[0].rungs == 3

    def ended(name: str) -> float:
        policy, looks = policy_of("random", name, space, 1, seed=2), []
        while (proposal := policy.propose(looks, 200.0 - sum(look.cost for look in looks))) is not None:
            apart = abs(np.log10(grid[proposal.configuration]["learning_rate"]) + 4)
            score = 0.9 - 0.2 * apart - 0.1 / proposal.rung
            looks.append(Look(proposal.configuration, proposal.fold, proposal.rung, score, 3.0))
        tried = {look.configuration for look in looks}
        return sum(max(look.rung for look in looks if look.configuration == one) == 3 for one in tried) / len(tried)

    assert ended("none") > 0.9
    assert ended(pruner) < 0.8


@pytest.mark.parametrize("sampler", ["curves", "tpe", "random"])
def test_a_policy_says_the_same_of_the_same_looks_so_that_a_killed_search_goes_on_as_it_would_have(space, sampler):
    looks = searched(policy_of(sampler, "median", space, FOLDS, seed=3), space, 40.0)
    again = policy_of(sampler, "median", space, FOLDS, seed=3)
    for count in range(1, len(looks)):
        left = 40.0 - sum(look.cost for look in looks[:count])
        proposal = again.propose(looks[:count], left)
        assert (proposal.configuration, proposal.fold, proposal.rung) == (
            looks[count].configuration,
            looks[count].fold,
            looks[count].rung,
        )


def test_the_curves_policy_begins_with_what_would_be_taken_anyway_and_spends_least_on_what_fails(space):
    policy = CurvesPolicy(space, FOLDS)
    looks = searched(policy, space, 30.0)
    assert looks[0].configuration == space.start
    paid = dict.fromkeys((1e-05, 0.0001, 0.001), 0.0)
    for look in looks:
        paid[GRID[look.configuration]["learning_rate"]] += look.cost
    assert paid[1e-4] > max(paid[1e-5], paid[1e-3])


def test_another_fold_is_paid_for_only_after_the_end_of_the_one_before(space):
    looks = searched(CurvesPolicy(space, FOLDS), space, 60.0)
    assert max(look.fold for look in looks) > 0
    for place, look in enumerate(looks):
        if look.fold:
            rungs = space.configurations[look.configuration].rungs
            assert (look.configuration, look.fold - 1, rungs) in {
                (earlier.configuration, earlier.fold, earlier.rung) for earlier in looks[:place]
            }


def test_the_replayed_grid_is_whole():
    table = Path(__file__).parents[2] / "bench" / "search-table" / "movie-minilm.jsonl"
    assert len(table.read_text().splitlines()) == 135


def test_a_look_tells_more_of_a_training_of_its_own_pace_than_of_one_as_far_away():
    grid = product_of({"learning_rate": [1e-5, 1e-4, 1e-3], "batch_rows": [1, 100], "epochs": [2, 5]}, 0)
    space = make_space(grid, [3.0] * len(grid), grid[0])
    numbers = {tuple(one.values()): number for number, one in enumerate(grid)}
    seen = numbers[1e-4, 1, 2]
    told = Curves(space).beliefs([Look(seen, 0, rung, 0.9, 1.0) for rung in (1, 2, 3)]).deviation
    assert told[numbers[1e-3, 100, 2]] < told[numbers[1e-5, 100, 2]]


def test_looks_that_do_not_go_on_from_those_before_are_taken_up_anew():
    grid = product_of({"learning_rate": [1e-5, 1e-4, 1e-3], "epochs": [2, 5]}, 0)
    space = make_space(grid, [3.0] * len(grid), grid[0])
    random = np.random.default_rng(0)
    looks = [
        Look(number, fold, rung, float(random.uniform(0.6, 0.9)), 1.0)
        for number, fold, rung in [(0, 0, 1), (3, 0, 1), (3, 0, 2), (3, 0, 3), (1, 0, 1), (3, 1, 1), (0, 0, 2)]
    ]
    kept = Curves(space)
    for asked in (looks[:3], looks, looks[:2], looks[3:], looks[3:] + looks[:2]):
        there, anew = kept.beliefs(asked), Curves(space).beliefs(asked)
        assert np.allclose(there.mean, anew.mean)
        assert np.allclose(there.deviation, anew.deviation)
