"""Lists as targets: a text's labels, and the tags of a sentence's words."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from thriftune.collect.collect import read_source, run
from thriftune.collect.infer import infer
from thriftune.collect.options import CollectOptions, Source
from thriftune.context import Context
from thriftune.errors import BadInput

LABELS = {"text": "text", "labels": "labels"}
TAGS = {"tokens": "tokens", "tags": "tags"}


def lines(*records: object) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def sentence(seed: int) -> str:
    return " ".join(f"word{(seed * 7 + n) % 50}" for n in range(9))


def test_labels_are_a_set_in_one_form(read) -> None:
    given = [["b", " a ", "b"], [], ["c;d"], "b; a ;", "", '["x", "é"]', [1, True], None]
    rows, collected = read(
        "rows.jsonl", lines(*[{"text": f"t{n}", "labels": g} for n, g in enumerate(given)]), **LABELS
    )
    expected = [["a", "b"], [], ["c;d"], ["a", "b"], [], ["x", "é"], ["1", "true"]]
    assert [json.loads(row["target"]) for row in rows] == expected
    assert rows[0]["target"] == rows[3]["target"], "equal sets are equal texts"
    assert collected.dropped == {"no label": 1}


def test_labels_in_a_delimited_file(read) -> None:
    rows, _ = read("rows.csv", 'text,labels\none,a;b\ntwo,\nthree,"[""b"", ""a""]"\nfour,a\n', **LABELS)
    assert [json.loads(row["target"]) for row in rows] == [["a", "b"], [], ["a", "b"], ["a"]]


@pytest.mark.parametrize("labels", [{"a": 1}, [["a"]], [None], "[broken", 7])
def test_what_is_no_list_of_labels_is_a_bad_row(read, labels: object) -> None:
    good = [{"text": f"t{n}", "labels": ["a"]} for n in range(200)]
    _, collected = read("rows.jsonl", lines(*good, {"text": "x", "labels": labels}), **LABELS)
    assert [bad.row for bad in collected.bad_rows] == [201]


def test_words_keep_their_tags_and_unequal_lengths_are_bad_rows(read) -> None:
    good = [{"tokens": ["Ann", "ran", str(n)], "tags": ["B-PER", " O", "O"]} for n in range(300)]
    odd = [
        {"tokens": ["a", "b"], "tags": ["O"]},
        {"tokens": ["a"], "tags": [""]},
        {"tokens": ["a", None], "tags": ["O", "O"]},
        {"tokens": [], "tags": []},
        {"tokens": ["a"], "tags": None},
        {"tokens": [" "], "tags": ["O"]},
    ]
    rows, collected = read("rows.jsonl", lines(*good, *odd), **TAGS)
    assert len(rows) == 300
    assert rows[7]["tokens"] == ["Ann", "ran", "7"]
    assert json.loads(rows[7]["target"]) == ["B-PER", "O", "O"]
    assert [(bad.row, bad.reason) for bad in collected.bad_rows] == [
        (301, "unequal lengths"),
        (302, "blank tag"),
        (303, "a gap in a list"),
    ]
    assert collected.dropped == {
        "unequal lengths": 1, "blank tag": 1, "a gap in a list": 1, "no words": 2, "no tags": 1
    }  # fmt: skip


def test_parquet_lists_are_the_same_rows_as_json_ones(read, tmp_path: Path) -> None:
    table = {"tokens": [["Ann", "ran"], ["No"]], "tags": [["B-PER", "O"], ["O"]], "labels": [["b", "a"], []],
             "text": ["x", "y"]}  # fmt: skip
    pl.DataFrame(table).write_parquet(tmp_path / "rows.parquet")
    from_json = lines(*[dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)])
    for columns in (LABELS, TAGS):
        frame, _ = read_source(Source(file="rows.parquet", **columns), CollectOptions(), tmp_path)
        rows, _ = read("rows.jsonl", from_json, **columns)
        ignored = {"id", "source"}
        assert [{k: v for k, v in row.items() if k not in ignored} for row in frame.to_dicts()] == [
            {k: v for k, v in row.items() if k not in ignored} for row in rows
        ]


def test_the_corpus_holds_words_as_lists_and_every_row_has_an_id_of_its_own(context: Context, tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["O", "B-x"]}, {"tokens": ["a b"], "tags": ["O"]}] * 2
    (tmp_path / "rows.jsonl").write_text(lines(*rows))
    corpus = run([Source(file="rows.jsonl", **TAGS)], "tag", CollectOptions(), context, tmp_path)
    frame = corpus.frame()
    assert frame.schema["tokens"] == pl.List(pl.String)
    assert frame["id"].n_unique() == 4
    assert (corpus.task, corpus.characters) == ("tag", 10)


def test_one_set_of_labels_or_labels_that_name_things_are_bad_input(context: Context, tmp_path: Path) -> None:
    for rows, match in (
        ([{"text": sentence(n), "labels": ["a", "b"]} for n in range(20)], "one class only"),
        ([{"text": sentence(n), "labels": [f"name {n}"]} for n in range(20)], "hardly repeat"),
    ):
        (tmp_path / "rows.jsonl").write_text(lines(*rows))
        with pytest.raises(BadInput, match=match) as caught:
            run([Source(file="rows.jsonl", **LABELS)], "multilabel", CollectOptions(), context, tmp_path)
        assert "'labels'" in caught.value.where


def test_lists_of_short_texts_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*[{"body": sentence(n), "topics": ["ab"[n % 2], "cde"[n % 3]], "n": n} for n in range(60)]))
    found = infer(path)
    assert (found.task, dict(found.columns)) == ("multilabel", {"text": "body", "labels": "topics"})


def test_semicolons_set_labels_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    cells = ["a", "a;b", "", "b;c;a"]
    path.write_text("text,marks\n" + "".join(f"{sentence(n)},{cells[n % 4]}\n" for n in range(60)))
    found = infer(path)
    assert (found.task, dict(found.columns)) == ("multilabel", {"text": "text", "labels": "marks"})
    prose = "text,stars\n" + "".join(f"{sentence(n)}; {sentence(n + 9)},{n % 3}\n" for n in range(60))
    path.write_text(prose)
    assert dict(infer(path).columns) == {"text": "text", "label": "stars"}, "prose has semicolons too"


def test_two_columns_of_lists_of_one_length_are_words_and_tags(tmp_path: Path) -> None:
    rows = [{"ner": ["O"] * 8 + [["B-x", "I-x", "O"][n % 3]], "id": n, "words": sentence(n).split()} for n in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*rows))
    found = infer(path)
    assert (found.task, dict(found.columns)) == ("tag", {"tokens": "words", "tags": "ner"})
    assert infer(path, "words", "ner").columns == found.columns
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    assert infer(tmp_path / "rows.parquet").columns == found.columns


def test_a_column_called_label_is_believed_before_lists(tmp_path: Path) -> None:
    rows = [{"text": sentence(n), "label": "ab"[n % 2], "keywords": ["x", "yz"[n % 2]]} for n in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*rows))
    assert infer(path).task == "classify"
    assert dict(infer(path, label="keywords").columns) == {"text": "text", "labels": "keywords"}
