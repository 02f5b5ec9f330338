"""Folds of the rows of a search: repeated, stratified, grouped."""

import numpy as np
import polars as pl
import pytest

from thriftune.errors import BadInput
from thriftune.search.folds import repeated_folds

ROWS = 240
FRAME = pl.DataFrame(
    {
        "group": [f"g{row // 2}" for row in range(ROWS)],
        "target": ["rare" if row % 10 < 2 else "common" for row in range(ROWS)],
    }
)


@pytest.mark.parametrize("by_class", [True, False])
def test_each_repeat_holds_every_row_out_once_and_keeps_groups_together(by_class):
    held_out = repeated_folds(FRAME, 3, 4, by_class, seed=0)
    assert held_out.shape == (12, ROWS)
    for repeat in held_out.reshape(4, 3, ROWS):
        assert (repeat.sum(axis=0) == 1).all()
    assert (held_out[:, ::2] == held_out[:, 1::2]).all()
    cuts = {tuple(np.flatnonzero(fold)) for fold in held_out}
    assert len(cuts) == 12


def test_classes_keep_their_shares_where_the_task_has_classes():
    rare = (FRAME["target"] == "rare").to_numpy()
    shares = [rare[fold].mean() for fold in repeated_folds(FRAME, 3, 4, True, seed=0)]
    assert shares == pytest.approx([0.2] * 12, abs=0.03)


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(BadInput, match="too few rows"):
        repeated_folds(FRAME.head(4), 3, 2, False, seed=0)
