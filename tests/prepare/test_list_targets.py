"""Preparing keeps each word beside its tag and each label in its set."""

from __future__ import annotations

import json

import polars as pl
from frames import keyed, tagged, texts
from hypothesis import given
from hypothesis import strategies as st
from test_cleaning import NAMES, TEXT, clean

from thriftune.prepare.options import PrepareOptions
from thriftune.prepare.prepare import prepare
from thriftune.prepare.serving import STEPS, clean_frame
from thriftune.prepare.split import SIDE
from thriftune.prepare.steps.conflicts import conflicts
from thriftune.prepare.steps.duplicates import duplicates
from thriftune.prepare.steps.empty import empty
from thriftune.tasks.targets import classes_of, write_labels

SENTENCE = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6)


@given(st.lists(SENTENCE, min_size=1, max_size=4))
def test_each_word_is_cleaned_for_itself_and_keeps_its_place_beside_its_tag(sentences) -> None:
    frame = tagged([([word for word, _ in row], [tag for _, tag in row]) for row in sentences])
    changed = 0
    for name in NAMES:
        frame, count = clean_frame(frame, STEPS[name], "tags")
        changed += count
    words, tags = frame["tokens"].to_list(), [json.loads(target) for target in frame["target"]]
    assert words == [[clean(word) for word, _ in row] for row in sentences]
    assert tags == [[clean(tag) for _, tag in row] for row in sentences]
    dirty = any(clean(piece) != piece for row in sentences for pair in row for piece in pair)
    assert dirty <= (changed > 0)


@given(st.lists(st.lists(TEXT, max_size=4), min_size=1, max_size=4))
def test_each_label_is_cleaned_for_itself_and_the_set_stays_one(sets) -> None:
    frame = texts([("t", write_labels(labels)) for labels in sets])
    for name in NAMES:
        frame, _ = clean_frame(frame, STEPS[name], "labels")
    for target, labels in zip(frame["target"], sets, strict=True):
        cleaned = {clean(label) for label in labels}
        found = json.loads(target)
        assert found == sorted(set(found)) and set(found) - {""} == cleaned - {""}


def test_tagged_duplicates_go_and_conflicts_are_treated_by_the_policy() -> None:
    rows = [(["A", "b"], ["O", "O"]), (["a", "B"], ["O", "O"]), (["a", "b"], ["O", "B-x"]), (["a b"], ["O"])]
    frame = duplicates(keyed(tagged(rows))).frame
    assert frame["tokens"].to_list() == [["A", "b"], ["a", "b"], ["a b"]], "blanks inside a word make it another"
    kept = conflicts(frame, "keep_first")
    assert kept.frame["tokens"].to_list() == [["A", "b"], ["a b"]]
    assert kept.examples[0]["text"] == "A b"


def test_rows_without_a_word_that_can_be_seen_go() -> None:
    done = empty(tagged([(["\u200b", ""], ["O", "O"]), (["\u200b", "a"], ["O", "O"])]))
    assert done.frame["tokens"].to_list() == [["\u200b", "a"]]
    assert done.reasons == {"no words": 1}


def test_texts_without_labels_stay() -> None:
    assert len(empty(texts([("t", "[]")])).frame) == 1


def test_classes_are_labels_and_tags_counted_once_a_row() -> None:
    frame = texts([(f"t{n}", write_labels(["ab"[n % 2], "c"] if n % 5 else [])) for n in range(400)])
    assigned, entries, report = prepare(frame, "multilabel", PrepareOptions())
    assert set(report["labels"]) == {"a", "b", "c"}
    assert sum(report["labels"]["c"].values()) == 320
    assert {each["label"] for each in report["balance"]} == {None, "a", "b", "c"}
    assert len(assigned) == 400 and set(assigned[SIDE]) == {"train", "validation", "test"}
    assert all(entry.rows_in == entry.kept + sum(entry.dropped.values()) for entry in entries)
    sentences = tagged([([f"w{n}", "x", "y"], ["B-a", "O", "O"]) for n in range(100)])
    assert prepare(sentences, "tag", PrepareOptions())[2]["labels"].keys() == {"B-a", "O"}


def test_a_label_that_no_training_row_has_is_a_warning() -> None:
    frame = texts(
        [(f"t{n}", write_labels(["ab"[n % 2], f"rare {n}"] if n < 40 else ["ab"[n % 2]])) for n in range(300)]
    )
    assigned, _, report = prepare(frame, "multilabel", PrepareOptions())
    outside = assigned.filter((pl.col(SIDE) != "train") & pl.col("target").str.contains("rare"))
    assert len(outside) > 0, "some of the forty labels of one row each are not in train"
    warned = [warning for warning in report["warnings"] if "no row to train on" in warning]
    assert len(warned) == len(outside) and "(1 row)" in warned[0]


def test_classes_of_each_form_of_target() -> None:
    targets = pl.Series("target", ['["b", "a"]', "[]", '["b", "b"]'])
    assert classes_of(targets, "multilabel").to_list() == [["a", "b"], [], ["b"]]
    assert classes_of(targets, "classify").to_list() == [[target] for target in targets]
    assert classes_of(targets.head(0), "tag").to_list() == []
