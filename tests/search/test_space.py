"""The space: every combination once, drawn where there are too many, looks in whole updates."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from thriftune.search.options import SearchOptions, allowance, train_options
from thriftune.search.space import LOOKS, MOST_CONFIGURATIONS, make_space, product_of
from thriftune.train.options import TrainOptions

dimensions = st.dictionaries(
    st.sampled_from(["learning_rate", "batch_rows", "epochs", "weight_decay", "freeze_layers"]),
    st.lists(st.integers(1, 1000), min_size=1, max_size=9, unique=True),
    min_size=1,
)


@given(dimensions, st.integers(0, 5))
def test_every_combination_comes_once_or_as_many_are_drawn_as_may_be(space, seed):
    found = product_of(space, seed)
    whole = math.prod(map(len, space.values()))
    assert len(found) == min(whole, MOST_CONFIGURATIONS)
    assert len({tuple(one.items()) for one in found}) == len(found)
    assert all(one[name] in values for one in found for name, values in space.items())


@given(st.lists(st.tuples(st.floats(1, 1e6), st.integers(1, 500)), min_size=1, max_size=40))
def test_looks_are_a_whole_number_of_updates_and_cost_about_the_same(sizes):
    costs, steps = [cost for cost, _ in sizes], [count for _, count in sizes]
    space = make_space([{"epochs": number} for number in range(len(sizes))], costs, {"epochs": 0}, steps)
    rung = min(costs) / LOOKS
    for one, whole in zip(space.configurations, steps, strict=True):
        every = -(-whole // one.rungs)
        assert (one.rungs - 1) * every < whole <= one.rungs * every
        assert one.rungs <= max(1, round(one.cost / rung))


def test_rates_lie_by_their_logarithms_and_words_apart():
    rates, kinds = [1e-5, 1e-4, 1e-3], ["linear", "cosine"]
    candidates = [{"learning_rate": rate, "schedule": kind} for rate in rates for kind in kinds]
    space = make_space(candidates, [1.0] * 6, {"learning_rate": 9e-5, "schedule": "cosine"})
    assert np.allclose(space.coordinates[::2, 0], [0, 0.5, 1])
    assert np.abs(space.coordinates[0, 1:] - space.coordinates[1, 1:]).sum() == pytest.approx(1)
    assert space.configurations[space.start].values == {"learning_rate": 1e-4, "schedule": "cosine"}


def test_the_project_file_s_space_is_checked_value_by_value():
    assert SearchOptions.model_validate({"space": {"learning_rate": {"low": 1e-5, "high": 1e-3}}}).space == {
        "learning_rate": (1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3)
    }
    for space, said in (
        ({"speed": [1]}, "found speed"),
        ({"learning_rate": [0.1, -1]}, "found -1"),
        ({"learning_rate": []}, "a list of values"),
        ({"learning_rate": {"low": 1, "high": 0.1}}, "low below the high"),
        ({"model": [3]}, "references to models"),
    ):
        with pytest.raises(ValidationError, match=said):
            SearchOptions.model_validate({"space": space})


def test_a_configuration_takes_the_place_of_training_s_options_and_of_no_others():
    own = TrainOptions.model_validate({"warmup": 0.2, "lora": {"alpha": 8}})
    changed = train_options(own, {"learning_rate": 1e-3, "lora.rank": 4, "model": "package:x"})
    assert (changed.learning_rate, changed.lora.rank, changed.lora.alpha, changed.warmup) == (1e-3, 4, 8, 0.2)


def test_a_search_takes_its_share_or_some_whole_trainings_whichever_is_less():
    options = SearchOptions(share=0.5, runs=10)
    assert allowance(options, room=100.0, full=50.0) == 50.0
    assert allowance(options, room=10_000.0, full=50.0) == 500.0
    assert allowance(options, room=-5.0, full=50.0) == 0.0


def test_rates_that_grow_with_the_root_of_the_rows_have_one_pace():
    grid = product_of({"learning_rate": [1e-5, 1e-4, 1e-3], "batch_rows": [1, 100]}, 0)
    space = make_space(grid, [1.0] * len(grid), grid[0])
    pace = {(one["learning_rate"], one["batch_rows"]): at for one, (at,) in zip(grid, space.pace, strict=True)}
    assert pace[1e-5, 1] == pytest.approx(pace[1e-4, 100])
    assert pace[1e-4, 1] == pytest.approx(pace[1e-3, 100])
    assert pace[1e-3, 1] - pace[1e-4, 1] == pytest.approx(0.5)  # in the rate's scale, two decades from end to end


@pytest.mark.parametrize("values", [{"epochs": [1, 2]}, {"learning_rate": [1e-4], "batch_rows": [8, 16]}])
def test_without_rate_and_rows_there_is_no_pace(values):
    grid = product_of(values, 0)
    assert make_space(grid, [1.0] * len(grid), grid[0]).pace.shape == (len(grid), 0)
