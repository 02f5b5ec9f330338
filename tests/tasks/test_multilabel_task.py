"""Texts with any number of labels: encoding, thresholds, the zero-shot reading, saving; and heads trained alone."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from models_for_tests import bert_folder
from thriftune.models.reference import resolve
from thriftune.tasks.batches import take
from thriftune.tasks.multilabel import MultilabelTask
from thriftune.tasks.saved import open_saved
from thriftune.tasks.tag import TagTask
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.recipe import Recipe

TEXTS = ["a good film", "a bad film was slow", "the", "a good bad film"] * 4
TARGETS = ['["good"]', '["bad", "slow"]', "[]", '["bad", "good"]'] * 4
LABELS = ("bad", "good", "slow")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return resolve(str(bert_folder(tmp_path_factory.mktemp("models") / "bert")))


def frame() -> pl.DataFrame:
    return pl.DataFrame({"text": TEXTS, "target": TARGETS})


def test_labels_are_rows_of_zeros_and_ones(bert):
    encoded = MultilabelTask(bert, LABELS, max_tokens=64).encode(frame())
    assert encoded.labels[:4].tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0]]
    assert encoded.weights.tolist() == [1.0] * 16
    some = take(encoded, np.array([1, 3]))
    assert (some.labels.tolist(), some.targets) == ([[1, 0, 1], [1, 1, 0]], (TARGETS[1], TARGETS[3]))


def test_it_learns_the_labels_that_words_tell_and_answers_with_those_that_are_likely(bert):
    task = MultilabelTask(bert, LABELS, max_tokens=64)
    encoded = task.encode(frame())
    loop = Loop(task, task.build(), encoded, encoded, Recipe(epochs=500, rows_per_update=8, rate=3e-3), Machine(), None)
    losses = [loop.update(step).item() for step in range(1000)]
    assert np.mean(losses[-5:]) < 0.1 * losses[0]  # of six seeds the worst came to 0.011
    assert task.validate(loop.model, encoded, 512)["exact_match"] == 1.0
    answers = task.predictor(loop.model, "tuned").predict(TEXTS[:4])
    assert [answer.output for answer in answers] == TARGETS[:4]
    for answer in answers:
        assert json.loads(answer.output) == [label for label, p in answer.scores.items() if p >= 0.5]
        assert set(answer.scores) == set(LABELS)


def test_the_untuned_model_gives_labels_nearer_than_the_average(bert):
    task = MultilabelTask(bert, LABELS, max_tokens=64)
    for answer in task.untuned().predict(TEXTS[:4]):
        nearer = [label for label, p in answer.scores.items() if p >= 0.5]
        assert json.loads(answer.output) == nearer
        assert 0 < len(nearer) < len(LABELS)


def test_a_label_that_training_does_not_know_counts_against_the_model(bert):
    task = MultilabelTask(bert, LABELS, max_tokens=64)
    model = task.build()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([-9.0, 9.0, -9.0]))
    unknown = task.encode(pl.DataFrame({"text": ["a"] * 2, "target": ['["good"]', '["good", "new"]']}))
    assert task.validate(model, unknown, 512)["exact_match"] == 0.5


def test_what_is_saved_answers_the_same(bert, tmp_path):
    task = MultilabelTask(bert, LABELS, max_tokens=64)
    model = task.build()
    task.save(model, tmp_path)
    opened, again = open_saved(tmp_path)
    assert opened.name == "multilabel"
    for ours, theirs in zip(
        opened.predictor(again, "tuned").predict(TEXTS), task.predictor(model, "tuned").predict(TEXTS), strict=True
    ):
        assert ours.output == theirs.output
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-6)


@pytest.mark.parametrize("kind", [MultilabelTask, TagTask])
def test_a_head_alone_leaves_the_encoder_as_it_is(bert, kind):
    task = kind(bert, ("B-x", "O") if kind is TagTask else LABELS, max_tokens=64, head_only=True)
    words = [text.split() for text in TEXTS]
    tags = [json.dumps(["B-x" if word in LABELS else "O" for word in row]) for row in words]
    rows = pl.DataFrame({"tokens": words, "target": tags}) if kind is TagTask else frame()
    encoded = task.encode(rows)
    loop = Loop(task, task.build(), encoded, encoded, Recipe(epochs=20, rows_per_update=8, rate=1e-2), Machine(), None)
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    losses = [loop.update(step).item() for step in range(40)]
    assert np.mean(losses[-5:]) < losses[0]
    changed = {name for name, value in loop.model.state_dict().items() if not value.equal(before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
