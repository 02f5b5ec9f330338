"""Precision, recall and F1 of spans, accuracy and macro F1 of tags, for sentences whose words are tagged.

A span is a maximal run of words that belong together by their tags. `B-x` begins one of the kind x, `I-x` goes on with
it, or begins one where there is none of that kind to go on with; `E-x` (or `L-x`) is its last word and `S-x` (or `U-x`)
its only one; `O` is outside; any other tag is a span of one word, of its own kind. This is how the evaluation of the
CoNLL-2000 shared task reads tags (Tjong Kim Sang and Buchholz, 2000), and with it the package seqeval. A span is right
when kind, first and last word are. A word without an answer counts as `O`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thriftune.metrics.counts import Counts, by_class, macro, micro, ratio
from thriftune.metrics.statistics import Statistics, Weights, summed

OUTSIDE = "O"
BEGINS, ENDS = frozenset("BSU"), frozenset("ELSU")
PREFIXES = frozenset("BIELSU")

Tags = Sequence[str]
Span = tuple[str, int, int]
"""Kind, first and last word."""


def scores(targets: Sequence[Tags], outputs: Sequence[Tags]) -> dict[str, float]:
    """Every metric of tags.

    Args:
        targets: (sentences,) the right tags of each one's words.
        outputs: (sentences,) the predicted ones.

    Returns:
        f1_span, precision_span and recall_span over all spans; accuracy over all words; f1_macro, precision_macro and
        recall_macro over the tags that occur; exact_match over sentences. Each 0…1.

    >>> round(scores([["B-x", "I-x", "O"]], [["B-x", "O", "O"]])["accuracy"], 4)
    0.6667
    """
    return tag_statistics(targets, outputs).values()


def spans(tags: Tags) -> list[Span]:
    """The spans of a sentence, in order.

    >>> spans(["B-x", "I-x", "I-y", "O"])
    [('x', 0, 1), ('y', 2, 2)]
    """
    found: list[Span] = []
    start, kind, open_ = 0, "", False
    for place, tag in enumerate(tags):
        prefix, this = _parts(tag)
        if open_ and (not this or prefix in BEGINS or this != kind):
            found.append((kind, start, place - 1))
            open_ = False
        if this and not open_:
            start, kind, open_ = place, this, True
        if open_ and prefix in ENDS:
            found.append((kind, start, place))
            open_ = False
    if open_:
        found.append((kind, start, len(tags) - 1))
    return found


def _parts(tag: str) -> tuple[str, str]:
    """Prefix and kind; no kind for what is outside."""
    if tag == OUTSIDE:
        return "", ""
    if tag[:1] in PREFIXES and tag[1:2] == "-" and len(tag) > 2:
        return tag[0], tag[2:]
    return "S", tag


def kinds(targets: Sequence[Tags], outputs: Sequence[Tags]) -> list[str]:
    """The kinds of spans that occur in the reference or among the outputs, sorted."""
    return sorted({_parts(tag)[1] for row in (*targets, *outputs) for tag in row} - {""})


def tag_statistics(targets: Sequence[Tags], outputs: Sequence[Tags]) -> Statistics:
    """The overall metrics of tags, ready to be resampled by sentences."""
    answered = [_fitted(output, len(target)) for target, output in zip(targets, outputs, strict=True)]
    by_span = np.concatenate(_span_counts(targets, answered), axis=1).reshape(len(targets), 3, -1).sum(axis=2)
    by_tag = np.concatenate(_tag_counts(targets, answered), axis=1)
    exact = [list(target) == output for target, output in zip(targets, answered, strict=True)]
    count = by_tag.shape[1] // 3

    def measure(sums: Weights) -> dict[str, NDArray[np.float64]]:
        tags = sums[:, 3 : 3 + count], sums[:, 3 + count : 3 + 2 * count], sums[:, 3 + 2 * count : -2]
        of_spans = by_class(sums[:, 0], sums[:, 1], sums[:, 2])
        return {
            **dict(zip(("precision_span", "recall_span", "f1_span"), of_spans, strict=True)),
            "accuracy": micro(*tags)["f1_micro"],
            **macro(*tags),
            "exact_match": ratio(sums[:, -2], sums[:, -1]),
        }

    return summed(np.column_stack([by_span, by_tag, exact, np.ones(len(exact))]), measure)


def kind_statistics(targets: Sequence[Tags], outputs: Sequence[Tags]) -> Statistics:
    """`precision`, `recall` and `f1` of the spans of each kind, each (samples, kinds) in the order of `kinds`."""
    answered = [_fitted(output, len(target)) for target, output in zip(targets, outputs, strict=True)]
    table = np.concatenate(_span_counts(targets, answered), axis=1)
    count = table.shape[1] // 3

    def measure(sums: Weights) -> dict[str, NDArray[np.float64]]:
        figures = by_class(sums[:, :count], sums[:, count : 2 * count], sums[:, 2 * count :])
        return dict(zip(("precision", "recall", "f1"), figures, strict=True))

    return summed(table, measure)


def _fitted(output: Tags, words: int) -> list[str]:
    """As many tags as there are words."""
    return [*output[:words], *[OUTSIDE] * (words - len(output))]


def _span_counts(targets: Sequence[Tags], outputs: Sequence[Tags]) -> tuple[Counts, Counts, Counts]:
    """(sentences, kinds) each: spans that are right, that should be, that were said."""
    column = {kind: place for place, kind in enumerate(kinds(targets, outputs))}
    hits, wanted, given = (np.zeros((len(targets), len(column))) for _ in range(3))
    for row, (target, output) in enumerate(zip(targets, outputs, strict=True)):
        right, said = set(spans(target)), set(spans(output))
        for table, some in ((hits, right & said), (wanted, right), (given, said)):
            for kind, _, _ in some:
                table[row, column[kind]] += 1
    return hits, wanted, given


def _tag_counts(targets: Sequence[Tags], outputs: Sequence[Tags]) -> tuple[Counts, Counts, Counts]:
    """(sentences, tags) each: words whose tag is right, that should have it, that were given it."""
    column = {tag: place for place, tag in enumerate(sorted({tag for row in (*targets, *outputs) for tag in row}))}
    hits, wanted, given = (np.zeros((len(targets), len(column))) for _ in range(3))
    for row, (target, output) in enumerate(zip(targets, outputs, strict=True)):
        for right, said in zip(target, output, strict=True):
            wanted[row, column[right]] += 1
            given[row, column[said]] += 1
            hits[row, column[right]] += right == said
    return hits, wanted, given
