"""The search bench's replays: generated tables, their form, and what a policy makes of them."""

import sys
from pathlib import Path
from statistics import fmean

import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import search as bench  # noqa: E402
import search_tables  # noqa: E402
from thriftune.search.sampled import policy_of  # noqa: E402


def test_generated_tables_are_whole_and_their_best_lies_elsewhere_from_one_to_the_next():
    best = set()
    for seed in range(12):
        table = bench.table_of(search_tables.make_fits(seed))
        assert len(table.curves) == len(table.configurations) * len(table.folds) == 135
        assert all(len(curve) == key[2] for key, curve in table.curves.items())
        assert table.cost == 855
        best.add(table.configurations[int(table.test.argmax())][0])
    assert len(best) >= 3


@pytest.mark.parametrize("share", [1 / 20, 1 / 10])
def test_on_generated_tables_a_search_is_better_than_a_random_one(share):
    margins = []
    for seed in range(8):
        table = bench.table_of(search_tables.make_fits(seed))
        drawn = bench.drawn_folds(table, seed)
        found = [
            bench.searched(table, drawn, policy_of(name, "none", table.space, 3, seed), share)
            for name in ("curves", "random")
        ]
        assert all(spent <= share * table.cost for _, spent in found)
        ours, random = (table.test[winner] for winner, _ in found)
        margins.append(ours - random)
    assert fmean(margins) > 0
