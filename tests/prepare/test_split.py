"""The split: stable, disjoint, balanced."""

from __future__ import annotations

from collections import defaultdict

import polars as pl
import pytest
from frames import keyed, talks, texts
from hypothesis import given
from hypothesis import strategies as st

from thriftune.errors import BadInput
from thriftune.prepare.keys import group_key, normalised, position, text_key
from thriftune.prepare.options import Proportions
from thriftune.prepare.split import SIDE, assign, balance, check, rows_needed, side_at
from thriftune.tasks.targets import classes_of

SHARES = Proportions()
GROUPED = st.lists(
    st.tuples(st.integers(0, 30).map(lambda n: f"text {n}"), st.sampled_from([None, *"abcdefgh"])),
    min_size=1,
    max_size=30,
)


def sides(rows: list[tuple[str, str | None]]) -> list[str]:
    frame = keyed(texts([(text, "x") for text, _ in rows], [group for _, group in rows]))
    return assign(frame, SHARES)[SIDE].to_list()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1), st.lists(st.text("ab "), max_size=20))
def test_rows_that_are_added_move_no_other(old: list[str], new: list[str]) -> None:
    before = sides([(text, None) for text in old])
    assert sides([(text, None) for text in [*old, *new]])[: len(old)] == before
    assert sides([(text, None) for text in [*new, *old]])[len(new) :] == before


@given(GROUPED, GROUPED)
def test_a_test_row_stays_whatever_is_added(old, new) -> None:
    ranks = {"test": 0, "validation": 1, "train": 2}
    before, after = sides(old), sides([*old, *new])
    assert all(ranks[later] <= ranks[earlier] for earlier, later in zip(before, after, strict=False))


@given(GROUPED)
def test_no_text_and_no_group_is_on_two_sides(rows) -> None:
    seen = defaultdict(set)
    for (text, group), side in zip(rows, sides(rows), strict=True):
        seen["text", text].add(side)
        if group is not None:
            seen["group", group].add(side)
    assert all(len(found) == 1 for found in seen.values())


@given(GROUPED, st.randoms())
def test_the_order_of_rows_does_not_matter(rows, random) -> None:
    shuffled = list(enumerate(rows))
    random.shuffle(shuffled)
    found = sides([row for _, row in shuffled])
    restored = [side for _, side in sorted(zip([n for n, _ in shuffled], found, strict=True))]
    assert restored == sides(rows)


def test_a_text_in_two_groups_joins_them_at_the_lower_position() -> None:
    by_side = {}
    for name in "abcdefghijklmnop":
        by_side.setdefault(side_at(position(group_key(name)), SHARES), name)
    train, test = by_side["train"], by_side["test"]
    assert sides([("one", train), ("two", test)]) == ["train", "test"]
    assert sides([("one", train), ("two", test), ("one", test)]) == ["test", "test", "test"]


def test_the_same_prompt_in_other_case_stays_together() -> None:
    frame = keyed(talks([(f"Ask  {n}", "a") for n in range(50)] + [(f"ask {n}", "b") for n in range(50)]))
    found = assign(frame, SHARES)[SIDE].to_list()
    assert found[:50] == found[50:]
    assert len(set(found)) == 3


def test_positions_are_pinned_from_day_one() -> None:
    assert normalised(" Straße\t NR ") == "strasse nr"
    assert text_key("Hello world") == text_key("hello\nWORLD")
    assert position(text_key("hello world")) == pytest.approx(0.46726391414423796, abs=1e-12)
    assert position(group_key("user-1")) == pytest.approx(0.7224478605181971, abs=1e-12)


def test_more_for_the_test_takes_no_row_from_it() -> None:
    larger = Proportions(train=0.7, validation=0.15, test=0.15)
    places = [position(text_key(str(n))) for n in range(2000)]
    assert all(side_at(place, larger) == "test" for place in places if side_at(place, SHARES) == "test")


@pytest.mark.parametrize("shares", [SHARES, Proportions(train=0.7, validation=0.15, test=0.15)])
def test_proportions_hold_within_the_stated_tolerance_for_each_class(shares: Proportions) -> None:
    frame = keyed(texts([(f"text {n}", "rare" if n % 50 == 0 else "ab"[n % 2]) for n in range(20_000)]))
    found = balance(assign(frame, shares), shares, classes_of(frame["target"], "classify"))
    assert len(found) == 3 * 4
    assert all(each.holds for each in found)
    by_side = {each.side: each for each in found if each.label is None}
    assert by_side["test"].rows == pytest.approx(20_000 * shares.test, rel=0.1)
    assert sum(each.rows for each in found if each.label == "rare") == 400


def test_one_group_with_most_rows_breaks_the_proportions_and_is_told() -> None:
    heavy = next(name for name in map(str, range(99)) if side_at(position(group_key(name)), SHARES) == "test")
    rows = [(f"text {n}", "x") for n in range(1000)]
    lone = keyed(texts(rows, [None] * 1000))
    grouped = keyed(texts(rows, [heavy if n < 600 else str(n) for n in range(1000)]))
    assert all(each.holds for each in balance(assign(lone, SHARES), SHARES, None))
    found = balance(assign(grouped, SHARES), SHARES, None)
    assert not next(each for each in found if each.side == "test").holds


def test_a_side_without_rows_is_an_error_that_says_how_many_are_needed() -> None:
    frame = assign(keyed(texts([("one", "x"), ("two", "y")])), SHARES)
    with pytest.raises(BadInput) as caught:
        check(frame, SHARES, classes_of(frame["target"], "classify"), "rows.csv")
    assert rows_needed(0.1) == 44
    assert "44" in caught.value.expected
    assert caught.value.where == "rows.csv"


def test_a_class_without_a_row_to_train_on_is_named() -> None:
    lost = next(text for text in map(str, range(99)) if side_at(position(text_key(text)), SHARES) == "test")
    frame = assign(keyed(texts([(f"t{n}", "ab"[n % 2]) for n in range(200)] + [(lost, "rare")])), SHARES)
    with pytest.raises(BadInput) as caught:
        check(frame, SHARES, classes_of(frame["target"], "classify"), "rows.csv")
    assert caught.value.found == "'rare' (1 row)"
    assert "at least 3" in caught.value.expected


def test_no_rows_at_all_are_an_error_too() -> None:
    with pytest.raises(BadInput):
        check(assign(keyed(texts([])), SHARES), SHARES, None, "rows.csv")


@pytest.mark.parametrize(
    "shares", [{"train": 0.9}, {"train": 0.75}, {"train": 0.7, "validation": 0.1, "test": 0.2}, {"tset": 0.1}]
)
def test_proportions_have_limits(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Proportions(**shares)


def test_a_frame_keeps_its_rows_and_columns() -> None:
    frame = keyed(texts([("a", "x"), ("b", "y")], ["g", None]))
    assert assign(frame, SHARES).select(frame.columns).equals(frame)
    assert isinstance(assign(frame, SHARES), pl.DataFrame)
