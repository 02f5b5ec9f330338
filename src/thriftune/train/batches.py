"""The batch plan: which rows make up each update, as a pure function of seed, epoch and lengths.

Because nothing else goes into it, resuming is an index into the plan, and ranks or accumulation only slice it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POOL_UPDATES = 50  # rows are sorted by length within pools of this many updates


def updates_per_epoch(rows: int, rows_per_update: int) -> int:
    """How many updates one pass over `rows` makes (the last one may be smaller)."""
    return -(-rows // rows_per_update)


def plan_epoch(
    lengths: NDArray[np.int64], rows_per_update: int, seed: int, epoch: int, pool_updates: int = POOL_UPDATES
) -> list[NDArray[np.int64]]:
    """The updates of one epoch, each the row ids of one global batch; every row appears exactly once.

    Rows are shuffled, cut into pools of a number of updates, sorted by length within each pool, cut into updates
    and the updates shuffled: rows of like length meet, so that little of a batch is padding, and yet every epoch
    groups them anew. With pools of one update, which do where rows are packed, updates are drawn at random.

    Args:
        lengths: (rows,) tokens of each row.
        rows_per_update: rows of a global batch.
        seed: the run's seed.
        epoch: 0-based.
        pool_updates: updates of a pool.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    pool = pool_updates * rows_per_update
    updates: list[NDArray[np.int64]] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        by_length = rows[np.argsort(lengths[rows], kind="stable")]
        updates += [by_length[i : i + rows_per_update] for i in range(0, len(by_length), rows_per_update)]
    return [updates[i] for i in random.permutation(len(updates))]
