from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from thriftune.collect.packaged import write_packaged
from thriftune.errors import BadInput
from thriftune.metrics.classification import scores
from thriftune.select.tfidf import TfidfPredictor, fit
from thriftune.select.vectors import TOKEN, TfidfVectors
from thriftune.tasks.targets import write_labels

WORDS = ["good", "bad", "fine", "awful", "great", "poor", "it", "is", "not", "the", "film", "!", ":(", "don't"]


def texts_of(rows: int, labels: list[str], seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    wanted = [labels[i] for i in rng.integers(len(labels), size=rows)]
    mark = {label: WORDS[i] for i, label in enumerate(labels)}
    texts = []
    for label in wanted:
        words = list(rng.choice(WORDS[5:], size=5))
        words.insert(int(rng.integers(5)), mark[label] if rng.random() < 0.8 else str(rng.choice(WORDS)))
        texts.append(" ".join(words))
    return texts, wanted


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    file = tmp_path_factory.mktemp("data") / "movie.jsonl"
    write_packaged("movie", file)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i]["text"] for i in order], [rows[i]["label"] for i in order]


@pytest.mark.parametrize("labels", [["neg", "pos"], ["a", "b", "c", "d"]])
def test_probabilities_equal_those_of_another_solver_at_its_optimum(labels: list[str]) -> None:
    texts, wanted = texts_of(200, labels, 0)
    held_out, right = texts_of(50, labels, 1)
    fitted = fit(texts, wanted, held_out, right, [3.0])
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)
    model = LogisticRegression(C=3.0, max_iter=3000, tol=1e-9).fit(vectorizer.fit_transform(texts), wanted)
    expected = model.predict_proba(vectorizer.transform(held_out))
    found = fitted.predictor.predict(held_out)
    assert [answer.output for answer in found] == list(model.predict(vectorizer.transform(held_out)))
    np.testing.assert_allclose([[a.scores[label] for label in model.classes_] for a in found], expected, atol=1e-4)


@pytest.mark.parametrize("labels", [["neg", "pos"], ["a", "b", "c"]])
def test_what_is_saved_gives_the_same_predictions_to_the_bit(labels: list[str], tmp_path: Path) -> None:
    texts, wanted = texts_of(150, labels, 0)
    predictor = fit(texts, wanted, texts, wanted, [10.0]).predictor
    predictor.save(tmp_path)
    unseen = [*texts_of(60, labels, 2)[0], "", "nothing known here", "ПРИВЕТ 你好 🙂"]
    assert TfidfPredictor.load(tmp_path).predict(unseen) == predictor.predict(unseen)
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".json", ".safetensors")]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=20), st.lists(st.text(max_size=30), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_a_rebuilt_transform_equals_the_fitted_one(texts: list[str], unseen: list[str]) -> None:
    fitted = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)
    known = ["a word", *texts]
    expected = fitted.fit(known).transform(unseen)
    assert (TfidfVectors.fit(known).of(unseen) != expected).nnz == 0


def test_the_strength_with_the_smallest_validation_cross_entropy_wins() -> None:
    texts, wanted = texts_of(150, ["a", "b"], 0)
    held_out, right = texts_of(150, ["a", "b"], 1)
    fitted = fit(texts, wanted, held_out, right, [0.01, 1.0, 1e4])
    assert fitted.c == min(fitted.cross_entropy, key=fitted.cross_entropy.__getitem__) == 1.0
    assert set(fitted.cross_entropy) == {0.01, 1.0, 1e4}


def test_a_label_that_only_validation_has_does_not_stop_it() -> None:
    texts, wanted = texts_of(60, ["a", "b"], 0)
    assert np.isfinite(list(fit(texts, wanted, [*texts[:5], "x"], [*wanted[:5], "new"], [1.0]).cross_entropy.values()))


def test_one_label_or_no_validation_is_bad_input() -> None:
    with pytest.raises(BadInput, match="two labels"):
        fit(["x", "y"], ["a", "a"], ["x"], ["a"], [1.0])
    with pytest.raises(BadInput, match="no rows to choose"):
        fit(["x", "y"], ["a", "b"], [], [], [1.0])


def test_several_labels_are_regressions_of_each_against_the_rest(tmp_path: Path) -> None:
    texts, wanted = texts_of(200, ["a", "b", "c"], 0)
    targets = [write_labels({mark for mark in "ab" if mark == label} | {"all"}) for label in wanted]
    assert set(map(len, map(json.loads, targets))) == {1, 2}
    fitted = fit(texts, targets, texts[:50], targets[:50], [3.0], several=True)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)
    rows = vectorizer.fit_transform(texts)
    answers = fitted.predictor.predict(texts)
    for label in "ab":
        has = [label in json.loads(target) for target in targets]
        model = LogisticRegression(C=3.0, max_iter=3000, tol=1e-9).fit(rows, has)
        found = [answer.scores[label] for answer in answers]
        np.testing.assert_allclose(found, model.predict_proba(rows)[:, 1], atol=1e-4)
    assert all("all" in json.loads(answer.output) for answer in answers)
    assert all(json.loads(a.output) == sorted(x for x, p in a.scores.items() if p >= 0.5) for a in answers)
    fitted.predictor.save(tmp_path)
    assert TfidfPredictor.load(tmp_path).predict([*texts, "", "nothing known"]) == fitted.predictor.predict(
        [*texts, "", "nothing known"]
    )


def test_texts_that_share_no_term_are_read_too() -> None:
    texts = [f"word{i}" for i in range(1_000)]
    assert len(TfidfVectors.fit(texts).terms) == 1_000


def test_it_is_a_strong_baseline_on_real_reviews(movie: tuple[list[str], list[str]]) -> None:
    texts, labels = movie
    fitted = fit(texts[:8000], labels[:8000], texts[8000:9000], labels[8000:9000], (3.0, 10.0, 30.0))
    outputs = [answer.output for answer in fitted.predictor.predict(texts[9000:])]
    ours = scores(labels[9000:], outputs)["f1_macro"]
    plain = TfidfVectorizer()
    model = LogisticRegression(max_iter=300).fit(plain.fit_transform(texts[:8000]), labels[:8000])
    theirs = scores(labels[9000:], list(model.predict(plain.transform(texts[9000:]))))["f1_macro"]
    assert ours > 0.78
    assert ours > theirs
