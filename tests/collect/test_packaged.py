"""The example data sets come out of their packages whole, in order, and the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thriftune.collect.packaged import DATA_SETS, main, write_packaged
from thriftune.errors import BadInput

RATED = {"movie": (10_605, 10_043), "amazon": (3_708, 2_943), "nyt": (5_190, 2_788), "tweets": (4_200, 3_362)}


@pytest.mark.parametrize("name", RATED)
def test_rated_sentences_are_labelled_by_their_clear_mean(name: str, tmp_path: Path) -> None:
    entry = write_packaged(name, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (entry.rows_in, entry.kept) == RATED[name]
    assert len(rows) == entry.kept
    for row in rows:
        assert list(row) == ["text", "label", "score", "id"]
        assert row["text"].strip()
        assert (row["label"], abs(row["score"]) > 0.5) == ("positive" if row["score"] > 0 else "negative", True)
    assert len({row["id"] for row in rows}) == len(rows)


def test_support_pairs_are_questions_with_answers(tmp_path: Path) -> None:
    entry = write_packaged("support", tmp_path / "support.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "support.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (entry.rows_in, entry.kept, len(rows)) == (2_026, 898, 898)
    assert len({(row["prompt"], row["completion"]) for row in rows}) == 898
    assert {
        "prompt": "My system is overheating.",
        "completion": "Ensure air vents aren't blocked and clean any dust.",
    } in rows
    assert all(row["prompt"].strip() and row["completion"].strip() for row in rows)


def test_the_file_is_the_same_each_time_and_replaces_an_older_one(tmp_path: Path) -> None:
    write_packaged("tweets", tmp_path / "a" / "one.jsonl")
    (tmp_path / "two.jsonl").write_text("older")
    write_packaged("tweets", tmp_path / "two.jsonl")
    assert (tmp_path / "a" / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "two.jsonl"]


def test_the_command_says_what_it_kept_and_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["amazon", str(tmp_path / "amazon.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "2,943 of 3,708 rows" in said and "licence MIT" in said
    assert "dropped 765: mean score from -0.5 to 0.5" in said


def test_bad_arguments_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["movie"]) == 2
    assert "usage" in capsys.readouterr().err
    assert main(["films", str(tmp_path / "x")]) == 2
    assert all(name in capsys.readouterr().err for name in ["films"])
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        write_packaged("tweets", tmp_path / "file" / "x.jsonl")
    assert set(DATA_SETS) == {*RATED, "support"}
