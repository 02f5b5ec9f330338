from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from thriftune.metrics import tagging
from thriftune.metrics.statistics import draws

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-PER", "noun"]
sentences = st.lists(
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=9), min_size=1, max_size=12
)
Rows = list[list[tuple[str, str]]]


def sides(rows: Rows) -> tuple[list[list[str]], list[list[str]]]:
    return [[t for t, _ in row] for row in rows], [[o for _, o in row] for row in rows]


def conlleval(tags: list[str]) -> list[tuple[str, int, int]]:
    """The chunks by the rules of conlleval.pl, told as it tells them: by where a chunk ends and where one starts."""

    def parted(tag: str) -> tuple[str, str]:
        if tag == "O":
            return "O", ""
        return (tag[0], tag[2:]) if tag[1:2] == "-" else ("S", tag)

    def ends(before: tuple[str, str], now: tuple[str, str]) -> bool:
        if before[0] in "ESLU":
            return True
        return before[0] != "O" and (now[0] in "OBSU" or before[1] != now[1])

    def starts(before: tuple[str, str], now: tuple[str, str]) -> bool:
        if now[0] in "BSU":
            return True
        return now[0] != "O" and (before[0] in "OESLU" or before[1] != now[1])

    chunks, begun, before = [], 0, ("O", "")
    for place, tag in enumerate([*tags, "O"]):
        now = parted(tag)
        if before[0] != "O" and ends(before, now):
            chunks.append((before[1], begun, place - 1))
        if starts(before, now):
            begun = place
        before = now
    return chunks


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], [("PER", 0, 1), ("LOC", 3, 3)]),
        (["B-PER", "B-PER"], [("PER", 0, 0), ("PER", 1, 1)]),
        (["I-PER", "I-PER", "I-LOC"], [("PER", 0, 1), ("LOC", 2, 2)]),
        (["O", "I-PER", "O"], [("PER", 1, 1)]),
        (["B-PER", "I-LOC"], [("PER", 0, 0), ("LOC", 1, 1)]),
        (["B-PER", "E-PER", "I-PER"], [("PER", 0, 1), ("PER", 2, 2)]),
        (["S-PER", "I-PER"], [("PER", 0, 0), ("PER", 1, 1)]),
        (["noun", "noun", "B-", "X-y"], [("noun", 0, 0), ("noun", 1, 1), ("B-", 2, 2), ("X-y", 3, 3)]),
        (["O", "O"], []),
        ([], []),
    ],
)
def test_spans_by_hand(tags: list[str], spans: list[tuple[str, int, int]]) -> None:
    assert tagging.spans(tags) == spans


@given(st.lists(st.sampled_from(TAGS), max_size=14))
@settings(max_examples=300)
def test_spans_are_those_of_conlleval(tags: list[str]) -> None:
    assert tagging.spans(tags) == conlleval(tags)


def reference(rows: Rows) -> dict[str, float]:
    """Counts of chunks by hand, and scikit-learn's figures of all words."""
    targets, outputs = sides(rows)
    right = sum(len(set(conlleval(t)) & set(conlleval(o))) for t, o in zip(targets, outputs, strict=True))
    wanted, given_ = (sum(len(conlleval(tags)) for tags in side) for side in (targets, outputs))
    flat = [[tag for tags in side for tag in tags] for side in (targets, outputs)]
    macro = precision_recall_fscore_support(*flat, average="macro", zero_division=0)
    return {
        "precision_span": right / given_ if given_ else 0.0,
        "recall_span": right / wanted if wanted else 0.0,
        "f1_span": 2 * right / (wanted + given_) if wanted + given_ else 0.0,
        "accuracy": accuracy_score(*flat),
        **dict(zip(("precision_macro", "recall_macro", "f1_macro"), macro, strict=False)),
        "exact_match": float(np.mean([t == o for t, o in zip(targets, outputs, strict=True)])),
    }


@given(sentences)
@settings(max_examples=100, deadline=None)
def test_metrics_equal_conlleval_and_scikit_learn(rows: Rows) -> None:
    assert tagging.scores(*sides(rows)) == pytest.approx(reference(rows), abs=1e-12)


@given(sentences, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_weighting_equals_the_metrics_of_repeated_sentences(rows: Rows, seed: int) -> None:
    statistics = tagging.tag_statistics(*sides(rows))
    row_of_kind = dict(zip(statistics.kinds, rows, strict=True))
    measured_kinds = {kind: tagging.scores(*sides([row])) for kind, row in row_of_kind.items()}
    assert len(measured_kinds) == statistics.kind_count
    weights = next(iter(draws(statistics.counts(), 3, seed)))
    measured = statistics.measure(weights)
    for sample, weight in enumerate(weights):
        repeated = [row_of_kind[kind] for kind, times in enumerate(weight) for _ in range(int(times))]
        expected = reference(repeated)
        assert {name: values[sample] for name, values in measured.items()} == pytest.approx(expected, abs=1e-12)


def test_a_missing_answer_is_outside_and_a_surplus_one_is_not_read() -> None:
    targets, outputs = [["B-x", "O"], ["B-x"]], [["B-x"], ["B-x", "B-x"]]
    assert tagging.scores(targets, outputs)["f1_span"] == 1.0
    assert tagging.scores(targets, [[], []])["recall_span"] == 0.0
    assert tagging.scores(targets, [[], []])["accuracy"] == pytest.approx(1 / 3)


def test_figures_by_kind_are_of_spans() -> None:
    targets, outputs = [["B-x", "I-x", "B-y"]], [["B-x", "O", "B-y"]]
    assert tagging.kinds(targets, outputs) == ["x", "y"]
    np.testing.assert_allclose(tagging.kind_statistics(targets, outputs).arrays()["f1"], [0.0, 1.0])
