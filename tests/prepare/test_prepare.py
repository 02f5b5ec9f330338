"""The stage as a whole: a ledger that balances to the row, three files that share nothing, and limits that hold."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import polars as pl
import pytest
from frames import talks, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from thriftune.collect import collect
from thriftune.collect.options import CollectOptions, Source
from thriftune.collect.types import Corpus, LedgerEntry
from thriftune.context import Context
from thriftune.errors import BadInput
from thriftune.prepare.options import PrepareOptions
from thriftune.prepare.prepare import estimate, prepare, run, serving_steps
from thriftune.prepare.types import SIDES

OPTIONS = PrepareOptions()
GOOD = [(f"text number {n}", "ab"[n % 2]) for n in range(300)]


def corpus(context: Context, base: Path, rows: list[tuple[str, str]]) -> Corpus:
    pl.DataFrame(rows, schema=["text", "label"], orient="row").write_csv(base / "rows.csv")
    source = Source(file="rows.csv", text="text", label="label")
    return collect.run([source], "classify", CollectOptions(), context, base)


def test_the_ledger_balances_from_the_file_to_the_splits(context: Context, tmp_path: Path) -> None:
    dirty = [("Text  number 1", "b"), ("text number 2", "b"), ("\u200b\ufeff", "a"), ("caf&eacute;", "a"), (" x ", "b")]
    splits = run(corpus(context, tmp_path, [*GOOD, *dirty]), OPTIONS, context)
    entries = {entry.step: entry for entry in splits.entries}
    assert list(entries) == [
        "collect", "overlong", "entities", "repair", "whitespace", "empty", "duplicates", "conflicts", "split",
    ]  # fmt: skip
    for before, after in itertools.pairwise(splits.entries):
        assert after.rows_in == before.kept
    assert entries["duplicates"].dropped == {"duplicate": 1}
    assert entries["conflicts"].dropped == {"same text, another label": 1}
    assert entries["whitespace"].changed == 1
    frames = [pl.read_parquet(path) for path in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, frames)) == splits.entries[-1].kept
    columns = ["id", "source", "row", "licence", "part", "group", "text", "target"]
    assert all(frame.columns == columns for frame in frames)
    everything = pl.concat(frames)
    assert everything["text"].n_unique() == len(everything)
    assert "café" in everything["text"]
    assert sum(splits.proportions.values()) == pytest.approx(1)
    assert splits.serving_steps == ("entities", "repair", "whitespace")


def test_one_text_in_two_tasks_stays_in_both_and_on_one_side() -> None:
    tone, size = (texts([(text, f"{label}{end}") for text, label in GOOD]) for end in ("", "-size"))
    frame = pl.concat([tone.with_columns(part=pl.lit("tone")), size.with_columns(part=pl.lit("size"))])
    assigned, _, report = prepare(frame, "classify", OPTIONS, "auto")
    assert report["heads"]["chosen"] == "by_part" and "different labels" in report["heads"]["because"]
    assert len(assigned) == 600
    sides = assigned.group_by("text").agg(pl.col("_side").n_unique().alias("sides"), pl.len().alias("rows"))
    assert sides.select("sides", "rows").unique().rows() == [(1, 2)]
    assert set(report["labels"]) == {"tone: a", "tone: b", "size: a-size", "size: b-size"}
    with pytest.raises(BadInput, match="the step conflicts would drop 300 of 600 rows"):
        prepare(frame, "classify", OPTIONS, "shared")


def test_a_class_that_one_part_cannot_learn_is_refused_though_another_part_has_it() -> None:
    rare = texts([(f"other text {n}", "cd"[n % 2]) for n in range(300)])
    held_out, _, _ = prepare(texts(GOOD), "classify", OPTIONS)
    (text, *_) = held_out.filter(pl.col("_side") == "test")["text"].to_list()
    rare = pl.concat([rare, texts([(text + " ", "a")])]).with_columns(part=pl.lit("rare"))
    frame = pl.concat([texts(GOOD).with_columns(part=pl.lit("usual")), rare])
    prepare(frame, "classify", PrepareOptions(conflicts="keep_all"), "shared")
    with pytest.raises(BadInput, match="no row to train on") as refused:
        prepare(frame, "classify", PrepareOptions(conflicts="keep_all"), "auto")
    assert "'rare: a' (1 row)" in refused.value.found


def test_the_data_report_counts_rows_by_label_and_side(context: Context, tmp_path: Path) -> None:
    splits = run(corpus(context, tmp_path, [*GOOD, ("text number 2", "b")]), OPTIONS, context)
    report = splits.report
    assert sum(report["rows"].values()) == 300
    assert sum(report["labels"]["a"].values()) == 150
    assert report["characters"]["train"]["max"] == 15
    assert report["conflicts"]["examples"][0]["text"] == "text number 2"
    assert report["warnings"] == []
    assert {(each["side"], each["label"]) for each in report["balance"]} == {
        (s, c) for s in SIDES for c in (None, "a", "b")
    }
    assert json.loads((splits.folder / "preparation.json").read_text())["report"] == report


def test_equal_corpora_are_prepared_once(context: Context, tmp_path: Path) -> None:
    made = corpus(context, tmp_path, GOOD)
    first = run(made, OPTIONS, context)
    assert run(made, OPTIONS, context) == first
    assert len(context.events.read(kinds=["data.entry"])) == 9
    other = run(made, PrepareOptions(conflicts="drop_all"), context)
    assert other.folder != first.folder
    assert other.content_hash == first.content_hash or other.report != first.report


def test_rows_added_later_move_no_row_between_the_files(context: Context, tmp_path: Path) -> None:
    before = run(corpus(context, tmp_path, GOOD), OPTIONS, context)
    more = [(f"another text {n}", "ab"[n % 2]) for n in range(200)]
    after = run(corpus(context, tmp_path, [*more, *GOOD]), OPTIONS, context)
    for old, new in ((before.train, after.train), (before.validation, after.validation), (before.test, after.test)):
        assert set(pl.read_parquet(old)["text"]) <= set(pl.read_parquet(new)["text"])


def test_a_chat_is_prepared_without_touching_entities() -> None:
    rows = [(f"Ask &amp; {n} ", f"Say &amp; {n} ") for n in range(200)]
    assigned, entries, report = prepare(talks(rows), "chat", OPTIONS)
    assert assigned["target"][0] == "Say &amp; 0"
    assert assigned["messages"].to_list()[0] == [{"role": "user", "content": "Ask &amp; 0"}]
    assert [entry.step for entry in entries][1:3] == ["repair", "whitespace"]
    assert "labels" not in report
    assert serving_steps("chat", PrepareOptions(entities=True)) == ("entities", "repair", "whitespace")


@pytest.mark.parametrize(
    ("rows", "options", "step", "option"),
    [
        ([*GOOD[:100], *[("long " * 100, "a")] * 30], PrepareOptions(longest_row=100), "overlong", "drop_limit"),
        ([*GOOD[:30], *GOOD[:1] * 80], OPTIONS, "duplicates", "duplicate_limit"),
        ([*GOOD[:60], *[(text, "c") for text, _ in GOOD[:60]]], OPTIONS, "conflicts", "drop_limit"),
        ([*GOOD[:60], *[("\u200b\ufeff", "c")] * 30], PrepareOptions(drop_limit=0.1), "empty", "drop_limit"),
    ],
)
def test_a_step_that_drops_too_much_stops_the_line(rows, options, step: str, option: str) -> None:
    with pytest.raises(BadInput) as caught:
        prepare(texts(rows), "classify", options)
    assert f"step {step} would drop" in caught.value.what
    assert caught.value.where == "rows.csv"
    assert option in caught.value.way_out


def test_a_refusal_leaves_nothing_behind(context: Context, tmp_path: Path) -> None:
    made = corpus(context, tmp_path, [("one", "a"), ("two", "b"), ("three", "a"), ("four", "b")])
    with pytest.raises(BadInput, match="too few rows"):
        run(made, OPTIONS, context)
    assert not list((tmp_path / ".thriftune" / "artifacts" / "prepare").rglob("*.parquet"))


def test_an_unbalanced_split_is_a_warning(context: Context, tmp_path: Path) -> None:
    rows = [(f"text {n}", "ab"[n % 2], "6" if n < 600 else str(n)) for n in range(1000)]
    pl.DataFrame(rows, schema=["text", "label", "user"], orient="row").write_csv(tmp_path / "rows.csv")
    source = Source(file="rows.csv", text="text", label="label", group="user")
    made = collect.run([source], "classify", CollectOptions(), context, tmp_path)
    splits = run(made, OPTIONS, context)
    warnings = [event.data["what"] for event in context.events.read(kinds=["warning"])]
    assert warnings == splits.report["warnings"]
    assert warnings


def test_an_entry_that_does_not_balance_is_a_defect() -> None:
    with pytest.raises(ValueError, match="does not balance"):
        LedgerEntry("step", 10, 8, {"reason": 1})


DIRTY = st.lists(
    st.tuples(
        st.sampled_from(["a", " A", "b\r\n", "&amp;", "c\u0301", "\ufeff", "long" * 30, "Ã©", "<i>"]),
        st.sampled_from("ab"),
    ),
    max_size=15,
)


@given(DIRTY)
@settings(deadline=None, max_examples=40)
def test_any_rows_leave_a_balanced_ledger(dirty: list[tuple[str, str]]) -> None:
    options = PrepareOptions(longest_row=100, drop_limit=1, duplicate_limit=1)
    frame = texts([*GOOD, *dirty])
    assigned, entries, report = prepare(frame, "classify", options)
    assert entries[0].rows_in == len(frame)
    for before, after in itertools.pairwise(entries):
        assert after.rows_in == before.kept
    assert entries[-1].kept == len(assigned) == sum(report["rows"].values())


def test_the_forecast_grows_with_the_text() -> None:
    assert estimate(10**9).p50 > estimate(1000).p50 > 0
