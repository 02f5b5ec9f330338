from pathlib import Path

import polars as pl
import pytest
import torch

from models_for_tests import llama_folder
from thriftune.deploy.protocols import StreamingPredictor
from thriftune.models.reference import resolve
from thriftune.tasks.chat import PLAIN_TEMPLATE, ChatTask, DecoderPredictor
from thriftune.tasks.saved import open_saved


@pytest.fixture
def task(tmp_path: Path) -> ChatTask:
    return ChatTask(resolve(str(llama_folder(tmp_path / "llama"))), max_tokens=200, max_new_tokens=24)


@pytest.fixture
def predictor(task: ChatTask) -> DecoderPredictor:
    return task.untuned()


@pytest.mark.parametrize("question", ["how do i", "ünïcode 😀", "x" * 50])
def test_a_stream_joined_is_the_answer(predictor: DecoderPredictor, question: str) -> None:
    assert isinstance(predictor, StreamingPredictor)
    whole = predictor.predict([question])[0]
    assert "".join(predictor.stream(question, 24)).strip() == whole.output


def test_sampling_repeats_with_its_seed_while_streams_take_turns(predictor: DecoderPredictor) -> None:
    alone = list(predictor.stream("what is it", 20, temperature=1.0, seed=7))
    streams = [predictor.stream("what is it", 20, temperature=1.0, seed=seed) for seed in (7, 8)]
    mixed: list[list[str]] = [[], []]
    for _ in range(21):
        for pieces, stream in zip(mixed, streams, strict=True):
            pieces.extend(piece for piece in [next(stream, None)] if piece is not None)
    assert mixed[0] == alone != mixed[1]


def test_answers_do_not_depend_on_what_they_are_batched_with(predictor: DecoderPredictor) -> None:
    questions = ["a", "how do i do it", "what was the film, a good or a bad one, and why"]
    together = [answer.output for answer in predictor.predict(questions)]
    assert together == [predictor.predict([question])[0].output for question in questions]


def test_a_model_without_a_template_gets_the_plain_one(task: ChatTask) -> None:
    assert task.describe()["template"] == PLAIN_TEMPLATE
    assert task.prompt([{"role": "user", "content": "hello"}]) == "user: hello\nassistant: "


def test_a_saved_model_answers_as_it_did(task: ChatTask, tmp_path: Path) -> None:
    model = task.build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    (tmp_path / "saved").mkdir()
    task.save(model, tmp_path / "saved")
    _, loaded = open_saved(tmp_path / "saved")
    questions = ["how do i", "why is it slow"]
    before = task.predictor(model, "tuned").predict(questions)
    assert [a.output for a in task.predictor(loaded, "tuned").predict(questions)] == [a.output for a in before]
    assert before != task.untuned().predict(questions)


def test_a_conversation_with_a_system_turn_counts_its_last_answer_only(task: ChatTask) -> None:
    turns = [("system", "be brief"), ("user", "why"), ("assistant", "it is slow"), ("user", "how slow")]
    messages = [{"role": role, "content": content} for role, content in turns]
    encoded = task.encode(pl.DataFrame({"messages": [messages], "target": ["very"]}))
    read = task._tokenizer.decode(encoded.tokens)
    assert read == "system: be brief\nuser: why\nassistant: it is slow</s>\nuser: how slow\nassistant: very</s>"
    assert task._tokenizer.decode(encoded.tokens[encoded.labels != -100]) == "very</s>"
