from __future__ import annotations

from itertools import pairwise

import pytest

from thriftune.context import Context
from thriftune.evaluate.looks import error_share, record_look

ROWS = [f"row {i}" for i in range(400)]


def test_the_shares_sum_to_the_budget_and_end_with_the_allowed_looks() -> None:
    shares = [error_share(look, 20, 0.05) for look in range(1, 25)]
    assert sum(shares) == pytest.approx(0.05)
    assert shares[0] == 0.025
    assert all(later <= earlier for earlier, later in pairwise(shares))
    assert shares[19] > 0 and shares[20:] == [0, 0, 0, 0]
    assert error_share(1, 1, 0.05) == 0.05
    assert error_share(0, 20, 0.05) == 0.05


def test_each_candidate_is_a_look_and_the_same_one_again_is_not(context: Context) -> None:
    assert record_look(context.events, "tfidf", "", ROWS) == 0
    assert record_look(context.events, "tuned", "model a", ROWS) == 1
    assert record_look(context.events, "tuned", "model b", ROWS) == 2
    assert record_look(context.events, "tuned", "model a", ROWS) == 1
    assert record_look(context.events, "untuned", "", ROWS) == 0
    looks = context.events.read(kinds=["evaluation.look"])
    assert [look.data["looks"] for look in looks] == [0, 1, 2, 1, 2]
    assert {look.data["split"] for look in looks} == {"test"}


def test_a_few_new_rows_are_not_a_fresh_test_split(context: Context) -> None:
    assert record_look(context.events, "tuned", "a", ROWS) == 1
    assert record_look(context.events, "tuned", "b", ROWS + [f"new {i}" for i in range(60)]) == 2
    assert record_look(context.events, "tuned", "c", ROWS[100:]) == 3
    assert record_look(context.events, "tuned", "d", [f"fresh {i}" for i in range(400)]) == 1


def test_most_rows_must_be_fresh(context: Context) -> None:
    assert record_look(context.events, "tuned", "a", ROWS) == 1
    assert record_look(context.events, "tuned", "b", ROWS[:100] + [f"new {i}" for i in range(300)]) == 1


def test_a_small_split_is_known_again(context: Context) -> None:
    assert record_look(context.events, "tuned", "a", ROWS[:5]) == 1
    assert record_look(context.events, "tuned", "b", ROWS[:5]) == 2
