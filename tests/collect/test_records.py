"""JSON Lines, JSON arrays and Parquet, and how their rows become the corpus's."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from thriftune.collect.collect import read_source
from thriftune.collect.options import CollectOptions, Source
from thriftune.errors import BadInput


def lines(*records: object) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def test_json_lines_are_read_and_broken_ones_counted(read) -> None:
    good = [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(10)]
    content = (
        lines(*good[:5]) + '{"text": "cut off\n\n' + "[1]\n" + '{"text": 1e999999, "label": NaN}\n' + lines(*good[5:])
    )
    rows, collected = read("rows.jsonl", content, limit=0.5)
    assert [row["text"] for row in rows] == [f"t{n}" for n in range(10)]
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 10, 11, 12, 13, 14]
    assert collected.dropped == {"not JSON": 1, "not an object": 1, "no label": 1}
    assert [bad.row for bad in collected.bad_rows] == [6, 8]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a\0b", "label": "x"}', "NUL byte"),
        (b'{"text": "a\xff\xfeb", "label": "x"}', "invalid encoding"),
        (b'{"text": "half \\ud83d", "label": "x"}', "half a character"),
        (b'{"text": ["a"], "label": "x"}', "not text"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_no_row_can_hold_makes_a_bad_row(read, line: bytes, reason: str) -> None:
    good = lines(*[{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(200)]).encode()
    rows, collected = read("rows.jsonl", good + line + b"\n")
    assert len(rows) == 200
    assert [(bad.row, bad.reason) for bad in collected.bad_rows] == [(201, reason)]


def test_a_json_array_is_read_and_a_broken_one_says_where(read) -> None:
    rows, _ = read("rows.json", json.dumps([{"text": "a", "label": 1}, {"text": "b", "label": 2}], indent=2))
    assert [(row["text"], row["target"], row["row"]) for row in rows] == [("a", "1", 1), ("b", "2", 2)]
    with pytest.raises(BadInput) as caught:
        read("broken.json", '[{"text": "a"},\n{"text": ]')
    assert caught.value.where == "broken.json"
    assert "line 2" in caught.value.found


def test_a_key_that_no_record_has_is_a_missing_column(read) -> None:
    with pytest.raises(BadInput) as caught:
        read("rows.jsonl", lines({"text": "a", "labels": 1}))
    assert "'labels', the nearest" in caught.value.way_out


def test_parquet_numbers_and_gaps(tmp_path: Path) -> None:
    pl.DataFrame({"body": ["a", "b", None, "d"], "stars": [1.0, 2.0, 3.0, None], "user": [7, 7, 8, 9]}).write_parquet(
        tmp_path / "rows.parquet"
    )
    source = Source(file="rows.parquet", text="body", label="stars", group="user", licence="MIT")
    frame, collected = read_source(source, CollectOptions(), tmp_path)
    assert frame.select("source", "row", "licence", "group", "text", "target").rows() == [
        ("rows.parquet", 1, "MIT", "7", "a", "1"),
        ("rows.parquet", 2, "MIT", "7", "b", "2"),
    ]
    assert collected.dropped == {"no text": 1, "no label": 1}


def test_a_damaged_parquet_file_is_an_error(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pl.DataFrame({"text": ["a"] * 1000, "label": ["b"] * 1000}).write_parquet(whole)
    for name, data in (("cut.parquet", whole.read_bytes()[:-20]), ("no.parquet", b"no parquet at all")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput) as caught:
            read_source(Source(file=name, text="text", label="label"), CollectOptions(), tmp_path)
        assert caught.value.where == name


MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "How?"},
    {"role": "assistant", "content": "So."},
]


@pytest.mark.parametrize(
    ("record", "columns", "turns", "target"),
    [
        ({"q": "Why?", "a": "So."}, {"prompt": "q", "completion": "a"}, [("user", "Why?")], "So."),
        (
            {"instruction": "Sum up", "input": "a text", "output": "short"},
            {"instruction": "instruction", "input": "input", "output": "output"},
            [("user", "Sum up\n\na text")],
            "short",
        ),
        (
            {"instruction": "Say hi", "input": "", "output": "hi"},
            {"instruction": "instruction", "input": "input", "output": "output"},
            [("user", "Say hi")],
            "hi",
        ),
        (
            {"talk": MESSAGES},
            {"messages": "talk"},
            [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "How?")],
            "So.",
        ),
        ({"talk": json.dumps(MESSAGES[1:3])}, {"messages": "talk"}, [("user", "Hi")], "Hello"),
    ],
)
def test_every_form_of_conversation_becomes_turns_and_an_answer(read, record, columns, turns, target) -> None:
    rows, _ = read("rows.jsonl", lines(record), **columns)
    assert [(turn["role"], turn["content"]) for turn in rows[0]["messages"]] == turns
    assert rows[0]["target"] == target


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        ([{"role": "user", "content": "Hi"}], "no final answer"),
        ([{"role": "tool", "content": "x"}, MESSAGES[2]], "unknown role"),
        ([{"role": "user", "content": None}, MESSAGES[2]], "message without text"),
        ("no list", "not a conversation"),
        ([MESSAGES[2]], "no prompt"),
        ([], "no prompt"),
        ([MESSAGES[1], {"role": "assistant", "content": " "}], "no answer"),
    ],
)
def test_a_conversation_without_an_answer_to_learn_is_counted(read, talk: object, reason: str) -> None:
    rows, collected = read("rows.jsonl", lines({"talk": MESSAGES}, {"talk": talk}), limit=0.5, messages="talk")
    assert len(rows) == 1
    assert collected.dropped == {reason: 1}


def test_ids_are_stable_and_differ_between_equal_rows(read) -> None:
    record = {"text": "same", "label": "x", "key": 1}
    first, _ = read("rows.jsonl", lines(record, record, record | {"label": "y"}))
    longer, _ = read("rows.jsonl", lines(record, record, record | {"label": "y"}, record))
    ids = [row["id"] for row in first]
    assert len(set(ids)) == 3
    assert [row["id"] for row in longer][:3] == ids
    assert all(len(row["id"]) == 16 for row in longer)


def test_a_named_row_keeps_its_id_when_its_text_is_edited(read) -> None:
    columns = {"text": "text", "label": "label", "id": "key"}
    before, _ = read("rows.jsonl", lines({"text": "a", "label": "x", "key": 1}), **columns)
    after, _ = read("rows.jsonl", lines({"text": "b", "label": "x", "key": 1}), **columns)
    assert before[0]["id"] == after[0]["id"]
