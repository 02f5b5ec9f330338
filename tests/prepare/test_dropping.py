"""The steps that leave rows out: each row that goes has a reason, and the rest stay in their order."""

from __future__ import annotations

import polars as pl
import pytest
from frames import keyed, talks, texts
from hypothesis import given
from hypothesis import strategies as st

from thriftune.prepare.steps.conflicts import conflicts
from thriftune.prepare.steps.duplicates import duplicates
from thriftune.prepare.steps.empty import empty
from thriftune.prepare.steps.overlong import overlong

ROWS = st.lists(st.tuples(st.sampled_from(["a", "A ", "b", " a  b", "A B", ""]), st.sampled_from("xyz")), max_size=12)


def rows(frame) -> list[tuple[str, str]]:
    return frame.select("text", "target").rows()


def test_overlong_rows_go() -> None:
    done = overlong(texts([("a" * 10, "x"), ("ä" * 11, "y")]), longest_row=10)
    assert rows(done.frame) == [("a" * 10, "x")]
    assert done.reasons == {"longer than the limit": 1}
    talk = overlong(talks([("a" * 5, "b" * 5), ("a" * 5, "b" * 6)]), longest_row=10)
    assert len(talk.frame) == 1


def test_rows_that_cleaning_emptied_go() -> None:
    done = empty(texts([("", "x"), ("a", ""), ("", ""), ("b", "y")]))
    assert rows(done.frame) == [("b", "y")]
    assert done.reasons == {"empty text": 2, "empty label": 1}
    talk = empty(talks([("", "x"), ("a", ""), ("b", "y")]))
    assert talk.reasons == {"empty turn": 1, "empty answer": 1}
    assert talk.frame["target"].to_list() == ["y"]


def test_the_first_of_equal_rows_stays() -> None:
    done = duplicates(keyed(texts([("Good  film", "x"), ("bad", "y"), ("good film\n", "x"), ("good film", "y")])))
    assert rows(done.frame) == [("Good  film", "x"), ("bad", "y"), ("good film", "y")]
    assert done.reasons == {"duplicate": 1}


@pytest.mark.parametrize(
    ("policy", "kept", "gone"),
    [
        ("keep_first", [("a", "x"), ("b", "x"), ("c", "z")], 2),
        ("drop_all", [("b", "x"), ("c", "z")], 3),
        ("keep_all", [("a", "x"), ("b", "x"), ("A", "y"), ("a", "z"), ("c", "z")], 0),
    ],
)
def test_one_text_under_several_labels_is_reported(policy, kept, gone) -> None:
    frame = keyed(texts([("a", "x"), ("b", "x"), ("A", "y"), ("a", "z"), ("c", "z")]))
    done = conflicts(frame, policy)
    assert rows(done.frame) == kept
    assert sum(done.reasons.values()) == gone
    assert done.notes[0].startswith("1 text has several labels")
    assert done.examples == (
        {
            "text": "a",
            "labels": [
                {"label": "x", "source": "rows.csv", "row": 2},
                {"label": "y", "source": "rows.csv", "row": 4},
                {"label": "z", "source": "rows.csv", "row": 5},
            ],
        },
    )


def test_rows_of_parts_with_heads_of_their_own_are_compared_within_them() -> None:
    frame = keyed(texts([("a", "x"), ("A", "x"), ("a", "y"), ("b", "y"), ("a", "y")]))
    frame = frame.with_columns(pl.Series("part", ["one", "two", "two", "two", "one"]))
    assert duplicates(frame).reasons == {"duplicate": 2}
    assert duplicates(frame, ["part"]).reasons == {}
    done = conflicts(frame, "keep_first", ["part"])
    assert rows(done.frame) == [("a", "x"), ("A", "x"), ("b", "y")]
    assert done.notes[0].startswith("2 texts have several labels")


def test_several_answers_to_one_prompt_are_no_conflict() -> None:
    done = conflicts(keyed(talks([("Hi", "Hello"), ("hi", "Hey"), ("Bye", "See you")])), "keep_first")
    assert len(done.frame) == 3
    assert "1 prompts have several answers" in done.notes[0]


@given(ROWS)
def test_each_step_balances_and_keeps_the_order(data: list[tuple[str, str]]) -> None:
    frame = keyed(texts(data))
    steps = [
        lambda f: overlong(f, 3),
        empty,
        duplicates,
        lambda f: conflicts(f, "keep_first"),
        lambda f: conflicts(f, "drop_all"),
    ]
    for step in steps:
        done = step(frame)
        assert len(frame) == len(done.frame) + sum(done.reasons.values())
        assert done.frame["row"].is_sorted()
        assert all(count > 0 for count in done.reasons.values())
