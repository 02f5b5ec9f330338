"""What a file is for, as `thriftune init` infers it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from thriftune.collect.infer import Inference, infer
from thriftune.errors import BadInput

WORDS = ["the", "plot", "moves", "slowly", "but", "every", "scene", "has", "a", "reason", "to", "be", "there"]


def sentence(seed: int, words: int = 12) -> str:
    return " ".join(WORDS[(seed * 7 + n * (seed % 5 + 1)) % len(WORDS)] for n in range(words)) + f" {seed}"


def inferred(
    folder: Path, rows: list[dict[str, object]], text: str | None = None, label: str | None = None
) -> Inference:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return infer(path, text, label)


def test_labels_repeat_and_text_is_long(tmp_path: Path) -> None:
    rows = [{"id": n, "title": sentence(n, 3), "body": sentence(n), "stars": n % 5 + 1} for n in range(100)]
    found = inferred(tmp_path, rows)
    assert (found.task, dict(found.columns)) == ("classify", {"text": "body", "label": "stars"})
    assert any("'title'" in reason for reason in found.reasons), "what else was considered is told"
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("prompt", "completion"), {"prompt": "prompt", "completion": "completion"}),
        (("question", "answer"), {"prompt": "question", "completion": "answer"}),
        (("Answer", "Question"), {"prompt": "Question", "completion": "Answer"}),
        (("customer_query", "bot reply"), {"prompt": "customer_query", "completion": "bot reply"}),
        (("left", "right"), {"prompt": "left", "completion": "right"}),
    ],
)
def test_two_columns_of_free_text_are_a_chat(tmp_path: Path, names: tuple[str, str], columns: dict[str, str]) -> None:
    rows = [{names[0]: sentence(n, 6), names[1]: sentence(n + 1000, 15)} for n in range(50)]
    found = inferred(tmp_path, rows)
    assert (found.task, dict(found.columns)) == ("chat", columns)


def test_alpaca_and_messages_are_known_by_name(tmp_path: Path) -> None:
    alpaca = [{"instruction": sentence(n), "input": "", "output": sentence(n + 1), "label": n % 2} for n in range(20)]
    found = inferred(tmp_path, alpaca)
    assert dict(found.columns) == {"instruction": "instruction", "input": "input", "output": "output"}
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    for name in ("messages", "conversation"):
        found = inferred(tmp_path, [{name: talk, "n": n} for n in range(10)])
        assert (found.task, dict(found.columns)) == ("chat", {"messages": name})


def test_conversations_are_found_in_csv_and_parquet(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi, there"}, {"role": "assistant", "content": "Hello"}]
    pl.DataFrame({"talk": [talk] * 5}).write_parquet(tmp_path / "rows.parquet")
    pl.DataFrame({"talk": [json.dumps(talk)] * 5, "n": range(5)}).write_csv(tmp_path / "rows.csv")
    for name in ("rows.parquet", "rows.csv"):
        assert dict(infer(tmp_path / name).columns) == {"messages": "talk"}


def test_what_the_user_names_is_taken(tmp_path: Path) -> None:
    rows = [{"a": sentence(n, 20), "b": sentence(n + 9), "c": n % 3, "d": n % 2} for n in range(60)]
    assert dict(inferred(tmp_path, rows, "b", "c").columns) == {"text": "b", "label": "c"}
    assert dict(inferred(tmp_path, rows, text="a", label="b").columns) == {"prompt": "a", "completion": "b"}
    assert dict(inferred(tmp_path, rows, label="d").columns) == {"text": "a", "label": "d"}
    with pytest.raises(BadInput, match="no column 'e'"):
        inferred(tmp_path, rows, text="e")


def test_several_possible_labels_are_named_and_the_option_too(tmp_path: Path) -> None:
    rows = [{"a": sentence(n), "c": n % 3, "d": n % 2} for n in range(60)]
    with pytest.raises(BadInput) as caught:
        inferred(tmp_path, rows)
    assert "'c', 'd'" in caught.value.found
    assert "--label c" in caught.value.way_out


def test_a_name_decides_between_possible_labels(tmp_path: Path) -> None:
    rows = [{"a": sentence(n), "year": 2000 + n % 3, "sentiment": n % 2} for n in range(60)]
    found = inferred(tmp_path, rows)
    assert found.columns["label"] == "sentiment"
    assert any("'year'" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    "rows",
    [
        [{"key": f"k{n:06d}", "price": n * 1.5} for n in range(50)],
        [{"text": f"so {n}"} for n in range(50)],
        [{"a": sentence(n), "b": sentence(n + 99), "c": sentence(n + 999)} for n in range(50)],
    ],
)
def test_a_file_that_does_not_show_what_it_is_for_is_a_question(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    with pytest.raises(BadInput) as caught:
        inferred(tmp_path, rows)
    assert all(f"'{name}'" in caught.value.found for name in rows[0])
    assert "--label" in caught.value.way_out


def test_preferences_are_known_by_name(tmp_path: Path) -> None:
    rows = [{"prompt": sentence(n), "chosen": sentence(n + 1), "rejected": sentence(n + 2)} for n in range(20)]
    found = inferred(tmp_path, rows)
    assert (found.task, set(found.columns)) == ("prefer", {"prompt", "chosen", "rejected"})


def test_one_column_of_text_and_no_label_is_raw_text(tmp_path: Path) -> None:
    found = inferred(tmp_path, [{"n": n, "body": sentence(n)} for n in range(50)])
    assert (found.task, dict(found.columns)) == ("pretrain", {"text": "body"})


def test_a_user_or_thread_becomes_the_group(tmp_path: Path) -> None:
    rows = [{"text": sentence(n), "label": n % 2, "user_id": f"u{n // 4}"} for n in range(60)]
    assert inferred(tmp_path, rows).columns["group"] == "user_id"
    unique = [row | {"user_id": f"u{n}"} for n, row in enumerate(rows)]
    assert "group" not in inferred(tmp_path, unique).columns


def test_a_rare_class_is_a_warning(tmp_path: Path) -> None:
    rows = [{"text": sentence(n), "label": "rare" if n < 3 else "ab"[n % 2]} for n in range(60)]
    assert "3 rows" in inferred(tmp_path, rows).warnings[0]


def test_keys_and_addresses_are_no_text(tmp_path: Path) -> None:
    rows = [
        {"url": f"https://example.org/a/very/long/address/{n:040d}", "text": f"fine {n}", "label": n % 2}
        for n in range(40)
    ]
    assert dict(inferred(tmp_path, rows).columns) == {"text": "text", "label": "label"}


def test_a_script_without_blanks_is_text(tmp_path: Path) -> None:
    rows = [{"评论": "这部电影非常好看我很喜欢" + chr(0x4E00 + n), "标签": n % 2} for n in range(40)]
    assert dict(inferred(tmp_path, rows).columns) == {"text": "评论", "label": "标签"}


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n")
    with pytest.raises(BadInput, match="no rows"):
        infer(tmp_path / "rows.csv")
