from __future__ import annotations

from pathlib import Path

from thriftune.select.majority import MajorityPredictor


def test_the_most_frequent_label_comes_with_every_labels_share() -> None:
    predictor = MajorityPredictor.fit(["b", "a", "b", "c"], labels=True)
    answers = predictor.predict(["x", "y"])
    assert [answer.output for answer in answers] == ["b", "b"]
    assert answers[0].scores == {"a": 0.25, "b": 0.5, "c": 0.25}


def test_equally_frequent_answers_give_the_first_in_the_alphabet() -> None:
    assert MajorityPredictor.fit(["b", "a"], labels=False).answer == "a"
    assert MajorityPredictor.fit(["a", "b"], labels=False).predict(["x"])[0].scores == {}


def test_what_is_saved_answers_alike(tmp_path: Path) -> None:
    predictor = MajorityPredictor.fit(["é", "é", "ß"], labels=True)
    predictor.save(tmp_path)
    assert MajorityPredictor.load(tmp_path) == predictor
