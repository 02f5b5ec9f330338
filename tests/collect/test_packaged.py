"""The example data sets come out of their packages whole, in order, and the same each time."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from thriftune.collect.packaged import DATA_SETS, main, write_packaged
from thriftune.collect.supersenses import HEADINGS, regular_forms
from thriftune.errors import BadInput
from thriftune.metrics.tagging import spans

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


FORMS = {
    "ukrainian": (465, 460, {"prompt", "completion"}),
    "persian": (773, 773, {"prompt", "completion"}),
    "trivia": (261, 261, {"prompt", "completion"}),
    "italian": (4_419, 752, {"prompt", "completion"}),
    "definitions": (207_235, 2_674, {"prompt", "completion"}),
    "kinds": (207_235, 2_674, {"text", "label"}),
    "editorials": (5_190, 498, {"text", "id"}),
    "tone": (3_708, 534, {"prompt", "chosen", "rejected", "review"}),
    "friendlier-first": (3_708, 1_218, {"prompt", "chosen", "rejected", "pair"}),
    "friendlier-second": (3_708, 1_218, {"prompt", "chosen", "rejected", "pair"}),
}


def read(name: str, folder: Path) -> list[dict[str, str]]:
    entry = write_packaged(name, folder / "out.jsonl")
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert entry.kept == len(rows) and entry.rows_in == entry.kept + sum(entry.dropped.values())
    return rows


@pytest.mark.parametrize("name", FORMS)
def test_texts_for_decoders_are_whole(name: str, tmp_path: Path) -> None:
    rows_in, kept, keys = FORMS[name]
    assert write_packaged(name, tmp_path / "out.jsonl").rows_in == rows_in
    rows = read(name, tmp_path)
    assert len(rows) == kept
    assert all(set(row) == keys and all(value.strip() for value in row.values()) for row in rows)


def test_glosses_are_all_that_there_are_of_nouns(tmp_path: Path) -> None:
    rows = read("glosses", tmp_path)
    assert (len(rows), len({row["id"] for row in rows}), len({row["label"] for row in rows})) == (82_192, 82_192, 26)
    assert {"text": "the quality of being able to perform", "label": "attribute"} in read("kinds", tmp_path)


def test_definitions_have_a_category_and_are_of_one_sense(tmp_path: Path) -> None:
    by_word = {row["prompt"]: row["completion"] for row in read("definitions", tmp_path)}
    assert by_word["Define: ability"] == "attribute: the quality of being able to perform"
    assert all(re.fullmatch(r"[a-z]+: .+", text) for text in by_word.values())


def test_translations_stand_at_the_same_place(tmp_path: Path) -> None:
    rows = read("italian", tmp_path)
    assert {"prompt": "Translate into Italian: Who is your father", "completion": "Chi è tuo padre"} in rows


def test_editorials_keep_their_sentences_in_order(tmp_path: Path) -> None:
    first = read("editorials", tmp_path)[0]
    assert first["id"] == "1"
    assert first["text"].index("On Dec. 19") < first["text"].index("Events include sprinting")


def test_the_friendlier_sentence_is_chosen_and_both_are_of_one_review(tmp_path: Path) -> None:
    labels = {row["text"]: (row["label"], row["id"]) for row in read("amazon", tmp_path)}
    for row in read("tone", tmp_path):
        (better, ours), (worse, theirs) = labels[row["chosen"]], labels[row["rejected"]]
        assert (better, worse) == ("positive", "negative")
        assert row["review"] in (ours.rpartition("_")[0], theirs.rpartition("_")[0])


def test_comparisons_hold_the_same_pairs_both_ways_round(tmp_path: Path) -> None:
    tones = {row["text"]: row["label"] for row in read("amazon", tmp_path)}
    places = {"friendlier-first": ("First", "Second"), "friendlier-second": ("Second", "First")}
    pairs = {}
    for name, (right, wrong) in places.items():
        for row in read(name, tmp_path):
            said = dict(re.findall(r'^(First|Second): "(.*)"$', row["prompt"], re.MULTILINE))
            assert (row["chosen"], row["rejected"]) == (right, wrong)
            assert (tones[said[right]], tones[said[wrong]]) == ("positive", "negative")
            pairs.setdefault(row["pair"], set()).add((said[right], said[wrong]))
    assert len(pairs) == 1_218 and all(len(both) == 1 for both in pairs.values())


def test_facets_are_all_that_the_raters_tell_of_a_sentence(tmp_path: Path) -> None:
    entry = write_packaged("facets", tmp_path / "facets.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "facets.jsonl").read_text(encoding="utf-8").splitlines()]
    assert entry.rows_in == sum(read for read, _ in RATED.values())
    assert (entry.kept, len(rows), len({row["id"] for row in rows})) == (2_400, 2_400, 2_400)
    domains = {"movie", "product", "news", "tweet"}
    for row in rows:
        assert len(domains & set(row["labels"])) == 1
        assert not {"positive", "negative"} <= set(row["labels"])
        assert "strong" not in row["labels"] or {"positive", "negative"} & set(row["labels"])
    counts = Counter(label for row in rows for label in row["labels"])
    assert {counts[domain] for domain in domains} == {600}
    assert all(counts[label] > 200 for label in ("positive", "negative", "strong", "disputed"))
    assert any(len(row["labels"]) == 1 for row in rows), "neither clear nor disputed"


def test_supersenses_mark_the_verbs_of_wordnets_examples(tmp_path: Path) -> None:
    entry = write_packaged("supersenses", tmp_path / "supersenses.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "supersenses.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (entry.rows_in, entry.kept, len(rows)) == (12_576, 6_000, 6_000)
    assert {"tokens": ["inhale", "the", "fresh", "mountain", "air"], "tags": ["B-body", *["O"] * 4]} in rows
    assert len({tuple(row["tokens"]) for row in rows}) == len(rows)
    kinds = Counter()
    for row in rows:
        assert len(row["tokens"]) == len(row["tags"])
        marked = spans(row["tags"])
        assert marked
        assert all(tag.startswith("B-") for tag in row["tags"] if tag[2:] and tag[0] != "I")
        kinds.update(kind for kind, _, _ in marked)
    assert set(kinds) == set(HEADINGS)


def test_regular_forms_of_verbs() -> None:
    assert {"carry", "carries", "carried", "carrying"} == regular_forms("carry")
    assert {"pushes", "goes", "plays", "making", "stopped"} <= set().union(
        *map(regular_forms, ("push", "go", "play", "make", "stop"))
    )


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
    assert set(DATA_SETS) == {*RATED, *FORMS, "glosses", "facets", "supersenses", "support"}
