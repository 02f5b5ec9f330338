from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from thriftune.metrics import text
from thriftune.metrics.statistics import draws

REAL = [
    ("Have you tried turning it off and on again?", "Have you tried to turn it off, and on again?"),
    ("Check that the cable is plugged in.", "Check the cable."),
    ("The printer's driver is out-of-date (v2.1); update it.", "Update the driver of the printer to v2.1."),
    ('Open Settings > Network, then click "Reset".', "open settings > network then click reset"),
    ("Reboot.", ""),
    ("It costs $19.99 a month, i.e. 0.66 a day.", "It costs $19.99 a month, i.e. 0.66 a day."),
]
TOKENS = ["the", "cat", "sat", "on", "a", "mat", ",", ".", "it's", "3.5", "A-b", "of"]
words = st.lists(st.sampled_from(TOKENS), max_size=12).map(" ".join)
answers = st.lists(st.tuples(words, words), min_size=1, max_size=12)


def check_against_references(rows: list[tuple[str, str]]) -> None:
    targets, outputs = [t for t, _ in rows], [o for _, o in rows]
    found = text.scores(targets, outputs)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(outputs, [targets]).score / 100, abs=1e-9)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(outputs, [targets]).score / 100, abs=1e-9)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for name in ("rouge1", "rouge2", "rougeL"):
        expected = np.mean([scorer.score(t, o)[name].fmeasure for t, o in rows])
        assert found[name] == pytest.approx(expected, abs=1e-12)


@given(answers)
@settings(max_examples=60, deadline=None)
def test_answer_metrics_equal_sacrebleu_and_rouge_score(rows: list[tuple[str, str]]) -> None:
    check_against_references(rows)


def test_answer_metrics_equal_sacrebleu_and_rouge_score_on_real_sentences() -> None:
    check_against_references(REAL)
    for row in REAL:
        check_against_references([row])


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_character_and_word_matches_equal_sacrebleu_on_any_text(rows: list[tuple[str, str]]) -> None:
    targets, outputs = [t for t, _ in rows], [o for _, o in rows]
    found = text.scores(targets, outputs)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(outputs, [targets]).score / 100, abs=1e-9)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(outputs, [targets]).score / 100, abs=1e-9)


def test_a_resample_has_the_metrics_of_its_repeated_rows() -> None:
    statistics = text.answer_statistics([t for t, _ in REAL], [o for _, o in REAL])
    weights = next(iter(draws(statistics.counts(), 5, 0)))
    measured = statistics.measure(weights)
    row_of_kind = dict(zip(statistics.kinds, REAL, strict=True))
    for sample, weight in enumerate(weights):
        repeated = [row_of_kind[kind] for kind, times in enumerate(weight) for _ in range(int(times))]
        expected = text.scores([t for t, _ in repeated], [o for _, o in repeated])
        assert {name: values[sample] for name, values in measured.items()} == pytest.approx(expected, abs=1e-9)


def test_exact_match_overlooks_case_spacing_and_composition() -> None:
    assert text.scores(["Café  au lait"], ["  cafe\u0301 AU\nlait "])["exact_match"] == 1
    assert text.scores(["no"], ["no."])["exact_match"] == 0


def test_rouge_reads_every_script() -> None:
    assert text.scores(["Перезавантажте роутер"], ["Перезавантажте роутер!"])["rougeL"] == 1


def test_perplexity_is_over_tokens_not_rows() -> None:
    statistics = text.likelihood_statistics(np.array([4.0, 2.0]), np.array([3.0, 1.0]))
    assert statistics.values()["perplexity"] == pytest.approx(math.exp(6 / 4))


SQUAD = [
    # Target, answer, exact match and F1 of SQuAD's official functions (version 2.0 of the script).
    ("The Andromeda Galaxy.", "andromeda galaxy", 1, 1.0),
    ("A gyroscope.", "It is called a gyroscope", 0, 0.4),
    ("The United Kingdom of Great Britain", "Great Britain", 0, 0.571428571429),
    ("Arizona and Hawaii", "Hawaii and Arizona", 0, 1.0),
    ("Mr. Potato Head", "mr potato-head", 0, 0.4),
    ("1963", "In 1963.", 0, 0.666666666667),
    ("1963", "1964", 0, 0.0),
    ("Fort Knox", "", 0, 0.0),
    ("the", "a", 1, 1.0),
    ("", "", 1, 1.0),
    ("A. A. Milne", "A.A. Milne", 0, 0.666666666667),
    ("Twenty-four", "twenty four", 0, 0.0),
    ("’Hamlet’", "Hamlet", 0, 0.0),
    ("Кордова, Испания", "кордова испания", 1, 1.0),
    ("The Great Dane", "a great great dane", 0, 0.8),
    ("theatre", "the atre", 0, 0.0),
    ("An  aglet\n", "aglet", 1, 1.0),
]


@pytest.mark.parametrize(("target", "answer", "exact", "f1"), SQUAD)
def test_short_answers_are_compared_as_squads_script_does(target: str, answer: str, exact: int, f1: float) -> None:
    found = text.scores([target], [answer])
    assert (found["squad_exact"], found["squad_f1"]) == (exact, pytest.approx(f1, abs=1e-11))


def test_short_answers_are_averaged_over_rows() -> None:
    targets, outputs, exact, f1 = zip(*SQUAD, strict=True)
    found = text.scores(targets, outputs)
    assert (found["squad_exact"], found["squad_f1"]) == pytest.approx((np.mean(exact), np.mean(f1)))
