"""The stage as a whole: one corpus of all sources, its ledger, and each way in which data can be unusable."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from thriftune.collect import collect
from thriftune.collect.options import CollectOptions, Source
from thriftune.context import Context
from thriftune.errors import BadInput, OutOfBudget

ROWS = "text,label\n" + "".join(f"text number {n},{'ab'[n % 2]}\n" for n in range(200))
OPTIONS = CollectOptions()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "more.jsonl").write_text('{"body": "more", "stars": 1}\n{"body": "and more", "stars": null}\n')
    return tmp_path


SOURCES = [
    Source(file="rows.csv", text="text", label="label", licence="MIT"),
    Source(file="more.jsonl", text="body", label="stars"),
]


def test_all_sources_become_one_corpus_with_its_provenance(base: Path, context: Context) -> None:
    corpus = collect.run(SOURCES, "classify", OPTIONS, context, base)
    frame = corpus.frame()
    assert frame.columns == ["id", "source", "row", "licence", "part", "group", "text", "target"]
    assert corpus.rows == len(frame) == 201
    assert frame["id"].n_unique() == 201
    assert frame.select("source", "row", "licence").row(200) == ("more.jsonl", 1, "unknown")
    (entry,) = corpus.entries
    assert (entry.step, entry.rows_in, entry.kept, entry.dropped) == ("collect", 202, 201, {"no label": 1})
    assert corpus.characters == int(frame["text"].str.len_chars().sum())


def test_the_ledger_is_an_event_and_the_time_is_charged(base: Path, context: Context) -> None:
    collect.run(SOURCES, "classify", OPTIONS, context, base)
    (entry,) = context.events.read(kinds=["data.entry"])
    assert entry.data["rows_in"] == 202
    charges = context.events.read(kinds=["charge"])
    assert [(charge.data["phase"], charge.data["unit"]) for charge in charges] == [("collection", "collect")]


def test_equal_sources_are_read_once_and_a_changed_file_again(base: Path, context: Context) -> None:
    first = collect.run(SOURCES, "classify", OPTIONS, context, base)
    again = collect.run(SOURCES, "classify", OPTIONS, context, base)
    assert again == first
    assert len(context.events.read(kinds=["data.entry"])) == 1
    (base / "rows.csv").write_text(ROWS + "one more,a\n")
    changed = collect.run(SOURCES, "classify", OPTIONS, context, base)
    assert changed.content_hash != first.content_hash
    assert changed.rows == 202


def test_a_budget_that_does_not_hold_it_refuses_before_reading(base: Path, tmp_path: Path) -> None:
    from real_context import open_context

    root = tmp_path / "poor"
    root.mkdir()
    with open_context(root, "collection", budget="0.001") as context, pytest.raises(OutOfBudget):
        collect.run(SOURCES, "classify", OPTIONS, context, base)


def refusal(base: Path, context: Context, name: str, content: str | bytes | None = None, **columns: str) -> BadInput:
    if content is not None:
        (base / name).write_bytes(content.encode() if isinstance(content, str) else content)
    source = Source(file=name, **(columns or {"text": "text", "label": "label"}))
    with pytest.raises(BadInput) as caught:
        collect.run([source], source.task, OPTIONS, context, base)
    error = caught.value
    assert name in error.where
    assert all((error.what, error.found, error.expected, error.way_out))
    assert not list((base / ".thriftune").rglob("*.parquet")), "half a corpus was left behind"
    return error


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("missing.csv", None, "does not exist"),
        ("empty.csv", "", "empty"),
        ("blank.csv", "\n\n  \n", "no column"),
        ("header.csv", "text,label\n", "no rows"),
        ("rows.xlsx", "PK", "kind of file is unknown"),
        ("rows", "text,label\na,b\n", "kind of file is unknown"),
        ("one.csv", "text,label\na,x\nb,x\n", "one class only"),
        ("nolabel.csv", "text,label\na,\nb, \n", "no usable value"),
        ("notext.csv", "text,label\n,x\n ,y\n", "no usable value"),
        ("free.csv", "text,label\n" + "".join(f"a{n},value {n}\n" for n in range(10)), "hardly repeat"),
        ("mostly.csv", "text,label\na,x\nb,y\n" + "c,\n" * 5, "most rows lack a value"),
        ("rows.json", "{}", "no column"),
        ("binary.csv", bytes(range(256)) * 10, ""),
    ],
)
def test_unusable_data_is_one_clear_message(
    base: Path, context: Context, name: str, content: str | bytes | None, what: str
) -> None:
    assert what in refusal(base, context, name, content).what


def test_a_folder_is_no_file(base: Path, context: Context) -> None:
    (base / "folder.csv").mkdir()
    assert "folder" in refusal(base, context, "folder.csv").what


def test_a_column_without_a_value_is_named(base: Path, context: Context) -> None:
    error = refusal(base, context, "nolabel.csv", "text,label\na,\nb,\n")
    assert error.where == "nolabel.csv, column 'label'"
    assert error.found == "2 of 2 rows with no label"


@pytest.fixture
def unprivileged(base: Path) -> Iterator[None]:
    """Whoever runs the tests, files without permission cannot be read: root becomes nobody for a while."""
    for folder in (base, *list(base.parents)[:3]):
        if folder.owner() == "root" and os.geteuid() == 0 and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    yield
    os.seteuid(me)


def test_a_file_without_permission_is_an_error(base: Path, request: pytest.FixtureRequest) -> None:
    (base / "rows.csv").chmod(0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(BadInput) as caught:
        collect.check(SOURCES, "classify", base)
    assert "Permission denied" in caught.value.found
    assert caught.value.where == "rows.csv"


def test_columns_of_another_task_are_an_error(base: Path, context: Context) -> None:
    with pytest.raises(BadInput) as caught:
        collect.run(SOURCES[:1], "chat", OPTIONS, context, base)
    assert "classify" in caught.value.what
    assert caught.value.where == "rows.csv"


def test_the_forecast_grows_with_the_file(base: Path) -> None:
    small = collect.estimate(SOURCES, base)
    (base / "rows.csv").write_text(ROWS * 1000)
    assert collect.estimate(SOURCES, base).p50 > small.p50
    assert small.p5 < small.p50 < small.p95


def test_a_source_names_the_columns_of_one_form() -> None:
    for columns in ({}, {"label": "a"}, {"text": "a", "label": "b", "prompt": "c"}, {"input": "a", "output": "b"}):
        with pytest.raises(ValueError, match="the columns of one form"):
            Source(file="rows.csv", **columns)
