from __future__ import annotations

import json
from pathlib import Path

import pytest

from thriftune.collect.packaged import write_packaged
from thriftune.metrics.text import scores
from thriftune.select.majority import MajorityPredictor
from thriftune.select.retrieval import RetrievalPredictor
from thriftune.tasks.base import Message, Request

QUESTIONS: list[Request] = ["How do I reset my password?", "My screen is black.", "The printer is out of paper."]
ANSWERS = ["Click on forgot password.", "Check the cable.", "Refill the tray."]


def test_the_answer_to_the_nearest_question_is_given() -> None:
    predictor = RetrievalPredictor.fit(QUESTIONS, ANSWERS)
    asked: list[Request] = ["password reset", "is my screen broken? it's black", "out of paper!"]
    assert [answer.output for answer in predictor.predict(asked)] == ANSWERS


def test_a_question_unlike_any_gets_the_first_answer() -> None:
    assert RetrievalPredictor.fit(QUESTIONS, ANSWERS).predict(["xyzzy"])[0].output == ANSWERS[0]


def test_all_that_the_user_said_counts_and_the_system_prompt_does_not() -> None:
    predictor = RetrievalPredictor.fit(QUESTIONS, ANSWERS)
    turns: list[Message] = [
        {"role": "system", "content": "You reset passwords. Password reset is all you do."},
        {"role": "user", "content": "My printer makes noise."},
        {"role": "assistant", "content": "Is the screen black?"},
        {"role": "user", "content": "No. It says paper."},
    ]
    assert predictor.predict([turns])[0].output == ANSWERS[2]


def test_what_is_saved_answers_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = RetrievalPredictor.fit(QUESTIONS, ANSWERS)
    predictor.save(tmp_path)
    asked: list[Request] = ["paper", "black", "password", "", "xyzzy"]
    expected = predictor.predict(asked)
    monkeypatch.setattr("thriftune.select.retrieval.CHUNK_ENTRIES", 4)
    assert RetrievalPredictor.load(tmp_path).predict(asked) == expected


def test_it_beats_the_most_frequent_answer_on_real_support_questions(tmp_path: Path) -> None:
    write_packaged("support", tmp_path / "support.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "support.jsonl").read_text(encoding="utf-8").splitlines()]
    train, test = [row for i, row in enumerate(rows) if i % 10], rows[::10]
    answers = [row["completion"] for row in train]
    retrieval = RetrievalPredictor.fit([row["prompt"] for row in train], answers)
    majority = MajorityPredictor.fit(answers, labels=False)
    wanted = [row["completion"] for row in test]
    found = {
        predictor.name: scores(wanted, [a.output for a in predictor.predict([row["prompt"] for row in test])])
        for predictor in (retrieval, majority)
    }
    assert found["retrieval"]["rougeL"] > found["majority"]["rougeL"] + 0.05
