"""Which rows come when, over the parts of the data: mixed by size or temperature, or one part after another."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.tasks.base import Encoded
from thriftune.train.batches import plan_epoch
from thriftune.train.batchplan import BatchPlan
from thriftune.train.recipe import Mixing, Recipe
from thriftune.train.schedule import Pace

RECIPE = Recipe(epochs=2, rows_per_update=4, rate=1e-3, seed=3)


def rows_of(lengths, parts=None) -> Encoded:
    lengths = np.asarray(lengths, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    count = len(lengths)
    labels = np.zeros(count, dtype=np.int64)
    parts = None if parts is None else np.asarray(parts, dtype=np.int64)
    return Encoded(np.zeros(offsets[-1], dtype=np.int32), offsets, labels, np.ones(count), parts=parts)


sizes = st.lists(st.integers(1, 40), min_size=2, max_size=4)


def parts_of(sizes: list[int]) -> tuple[Encoded, tuple[str, ...]]:
    parts = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(0).shuffle(parts)
    lengths = np.random.default_rng(1).integers(1, 60, len(parts))
    return rows_of(lengths, parts), tuple(f"part {number}" for number in range(len(sizes)))


def whole(plan: BatchPlan) -> list[np.ndarray]:
    return [plan.rows(0, step) for step in range(plan.full_steps)]


def test_data_in_one_part_comes_as_the_plan_of_an_epoch_says():
    train = rows_of(range(1, 31))
    plan = BatchPlan(train, RECIPE)
    epochs = [rows for epoch in range(2) for rows in plan_epoch(train.lengths, 4, 3, epoch)]
    assert plan.full_steps == len(epochs) == 16
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(whole(plan), epochs, strict=True))


@given(sizes, st.floats(0, 1.5))
def test_a_sequence_has_each_part_in_its_stage_every_epoch_and_replays_only_earlier_ones(sizes, replay):
    train, names = parts_of(sizes)
    plan = BatchPlan(train, replace(RECIPE, mixing=Mixing(names, "sequence", replay=replay)))
    assert [stage.name for stage in plan.stages] == list(names)
    assert plan.stages[0].start == 0 and plan.stages[-1].end == 1
    for number, stage in enumerate(plan.stages):
        for epoch in range(2):
            steps = range(epoch * stage.epoch_updates, (epoch + 1) * stage.epoch_updates)
            rows = np.concatenate([plan.rows(number, step) for step in steps])
            own = rows[train.parts[rows] == number]
            assert sorted(own) == list(np.flatnonzero(train.parts == number))
            again = rows[train.parts[rows] != number]
            assert (train.parts[again] < number).all()
            assert len(again) == len(set(again)) == min(sum(sizes[:number]), round(replay * sizes[number]))


@given(sizes, st.floats(1, 100))
def test_a_temperature_evens_out_the_parts_and_every_row_has_its_turn(sizes, temperature):
    train, names = parts_of(sizes)
    plan = BatchPlan(train, replace(RECIPE, epochs=3, mixing=Mixing(names, temperature=temperature)))
    shares, total = plan.shares(), sum(sizes)
    weights = np.array(sizes) ** (1 / temperature)
    assert np.allclose(shares, total * weights / weights.sum(), atol=1.0)
    if temperature == 1.0:
        assert shares == sizes
    counts = np.bincount(np.concatenate(whole(plan)), minlength=total)
    for part, size in enumerate(sizes):
        own = counts[train.parts == part]
        assert own.max() - own.min() <= 1  # gone through again and again, none left out for another
        assert own.sum() == 3 * (shares[part] if temperature != 1.0 else size)


def test_a_high_temperature_gives_a_small_part_as_many_rows_as_a_large_one():
    train, names = parts_of([90, 10])
    plan = BatchPlan(train, replace(RECIPE, mixing=Mixing(names, temperature=1000.0)))
    assert plan.shares() == pytest.approx([50, 50], abs=1)


def test_the_plan_is_a_function_of_seed_and_rows():
    train, names = parts_of([30, 12])
    for mixing in (Mixing(names, "sequence", replay=0.5), Mixing(names, temperature=3.0)):
        recipe = replace(RECIPE, mixing=mixing)
        first, again, other = (whole(BatchPlan(train, r)) for r in (recipe, recipe, replace(recipe, seed=4)))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@given(st.integers(1, 500), st.floats(0.001, 0.999), st.integers(0, 400), st.integers(1, 500))
def test_the_step_of_a_progress_is_where_the_pace_makes_it(planned, progress, step, changed):
    pace = Pace(planned=planned)
    if step < planned and changed > step:
        pace = pace.refitted(step, changed)
    at = pace.step_at(progress)
    if progress >= pace.origin_progress:
        assert pace.progress(at) == pytest.approx(progress)
    else:
        assert at == pace.origin_step
