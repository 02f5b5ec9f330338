from __future__ import annotations

import json
from pathlib import Path

from thriftune.select.select import open_baseline
from thriftune.select.unigram import UnigramPredictor
from thriftune.tasks.targets import write_tags

SENTENCES = [["Run", "to", "the", "bank"], ["a", "run", "on", "the", "bank"], ["run", "!"]]
TAGS = [["B-motion", "O", "O", "O"], ["O", "O", "O", "O", "O"], ["B-motion", "O"]]


def fitted() -> UnigramPredictor:
    return UnigramPredictor.fit(SENTENCES, [write_tags(tags) for tags in TAGS])


def test_each_word_gets_the_tag_that_it_most_often_has() -> None:
    answers = fitted().predict([["run", "the", "Run", "RUN", "elsewhere"]])
    assert [json.loads(answer.output) for answer in answers] == [["B-motion", "O", "B-motion", "B-motion", "O"]]


def test_of_equally_frequent_tags_the_first_in_the_alphabet_wins() -> None:
    predictor = UnigramPredictor.fit([["x"], ["x"]], [write_tags(["b"]), write_tags(["a"])])
    assert json.loads(predictor.predict([["x"]])[0].output) == ["a"]


def test_what_is_saved_tags_the_same(tmp_path: Path) -> None:
    predictor = fitted()
    predictor.save(tmp_path)
    asked = [["Run", "é"], ["bank"]]
    assert open_baseline(tmp_path).predict(asked) == predictor.predict(asked)
