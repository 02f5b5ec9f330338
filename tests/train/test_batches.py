import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thriftune.tasks.batches import micro_batches, padded_tokens, sorted_batches
from thriftune.train.batches import plan_epoch, updates_per_epoch

lengths_of = st.lists(st.integers(1, 300), min_size=1, max_size=400).map(lambda x: np.array(x, dtype=np.int64))


@given(lengths_of, st.integers(1, 64), st.integers(0, 2**31), st.integers(0, 5))
def test_every_row_comes_once_an_epoch(lengths, rows_per_update, seed, epoch):
    updates = plan_epoch(lengths, rows_per_update, seed, epoch)
    assert sorted(np.concatenate(updates)) == list(range(len(lengths)))
    assert len(updates) == updates_per_epoch(len(lengths), rows_per_update)
    assert all(len(rows) <= rows_per_update for rows in updates)


@given(lengths_of, st.integers(0, 2**31))
def test_the_plan_is_a_function_of_seed_epoch_and_lengths(lengths, seed):
    first, again = plan_epoch(lengths, 8, seed, 1), plan_epoch(lengths, 8, seed, 1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


def test_epochs_differ():
    lengths = np.arange(1, 201)
    first, second = plan_epoch(lengths, 8, 0, 0), plan_epoch(lengths, 8, 0, 1)
    assert any((a != b).any() for a, b in zip(first, second, strict=True))


def test_padding_stays_under_five_percent_on_lengths_like_real_text():
    lengths = np.random.default_rng(0).lognormal(3.2, 0.5, 5000).astype(np.int64) + 3
    updates = plan_epoch(lengths, 32, 0, 0)
    assert 1 - lengths.sum() / padded_tokens(lengths, updates) < 0.05


@given(lengths_of, st.integers(1, 2000))
def test_micro_batches_keep_the_token_budget_and_lose_no_row(lengths, budget):
    rows = np.arange(len(lengths))
    parts = micro_batches(lengths, rows, budget)
    assert sorted(np.concatenate(parts)) == list(rows)
    assert all(len(part) == 1 or len(part) * lengths[part].max() <= budget for part in parts)


@given(lengths_of, st.integers(1, 2000))
def test_reading_starts_with_the_longest_rows(lengths, budget):
    parts = sorted_batches(lengths, budget)
    longest = [int(lengths[part].max()) for part in parts]
    assert longest == sorted(longest, reverse=True)
