"""The loop's loss and gradients equal a plain Transformers computation on the same rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import cross_entropy

from models_for_tests import WORDS, bert_folder, llama_folder
from thriftune.models.reference import resolve
from thriftune.tasks.base import Encoded
from thriftune.tasks.batches import micro_batches
from thriftune.tasks.chat import ChatTask
from thriftune.tasks.classify import ClassifyTask

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


def sentences(rows: int) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(1, 30))) for _ in range(rows)]


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[ClassifyTask, pl.DataFrame]:
    task = ClassifyTask(resolve(str(bert_folder(tmp_path / "bert"))), ("no", "yes"), dropout=0.0, max_tokens=64)
    texts = sentences(24)
    return task, pl.DataFrame({"text": texts, "target": ["yes" if len(t) % 2 else "no" for t in texts]})


@pytest.fixture
def chatbot(tmp_path: Path) -> tuple[ChatTask, pl.DataFrame]:
    task = ChatTask(resolve(str(llama_folder(tmp_path / "llama"))), max_tokens=400)
    texts = sentences(24)
    messages = [[{"role": "user", "content": text}] for text in texts]
    return task, pl.DataFrame({"messages": messages, "target": [text[::-1] for text in texts]})


def our_gradients(task, model, encoded: Encoded, budget: int | None) -> tuple[float, torch.Tensor]:
    """As `Loop.update` computes them: a sum over micro-batches over the weight of the whole update."""
    model.zero_grad()
    rows, total = np.arange(len(encoded)), 0.0
    for part in micro_batches(encoded.lengths, rows, budget, encoded.packed):
        loss = task.loss(model, task.batch(encoded, part)) / encoded.weights.sum()
        loss.backward()
        total += loss.item()
    return total, flat_gradients(model)


def flat_gradients(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None])


def assert_equal(ours, reference, dtype):
    assert ours[0] == pytest.approx(reference[0], rel=TOLERANCE[dtype])
    difference = (ours[1] - reference[1]).norm() / reference[1].norm()
    assert difference < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("budget", [None, 100], ids=["whole", "accumulated"])
def test_classification_equals_transformers_on_one_padded_batch(classifier, dtype, budget):
    task, frame = classifier
    model = task.build().to(dtype).train()
    ours = our_gradients(task, model, task.encode(frame), budget)

    model.zero_grad()
    inputs = task._tokenizer(frame["text"].to_list(), padding=True, return_tensors="pt")
    labels = torch.tensor([task.labels.index(label) for label in frame["target"]])
    loss = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss
    loss.backward()
    assert_equal(ours, (loss.item(), flat_gradients(model)), dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("budget", [None, 700], ids=["whole", "accumulated"])
def test_chat_equals_transformers_with_the_prompt_masked(chatbot, dtype, budget):
    task, frame = chatbot
    model = task.build().to(dtype).train()
    perturb_adapters(model)
    encoded = task.encode(frame)
    ours = our_gradients(task, model, encoded, budget)

    model.zero_grad()
    batch = task.conversations(encoded, np.arange(len(encoded)))
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    # Transformers' own loss casts to fp32; this is its computation (shift, mask, mean over counted tokens) without.
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100)
    loss.backward()
    assert_equal(ours, (loss.item(), flat_gradients(model)), dtype)


def test_chunked_vocabulary_projection_changes_nothing(chatbot, monkeypatch):
    task, frame = chatbot
    model = task.build().double().train()
    perturb_adapters(model)
    encoded = task.encode(frame)
    whole = our_gradients(task, model, encoded, None)
    monkeypatch.setattr("thriftune.tasks.chat.LOGITS_CHUNK", 300 * 7)
    assert_equal(our_gradients(task, model, encoded, None), whole, torch.float64)


def test_only_the_answer_counts(chatbot):
    task, frame = chatbot
    encoded = task.encode(frame)
    counted = encoded.labels != -100
    for row in range(len(encoded)):
        span = slice(encoded.offsets[row], encoded.offsets[row + 1])
        answer = task._tokenizer.decode(encoded.tokens[span][counted[span]])
        assert answer == frame["target"][row] + task._tokenizer.eos_token


def test_rows_that_are_too_long_are_cut_and_counted(chatbot):
    task, frame = chatbot
    whole, cut = task.encode(frame), replace(task, max_tokens=50).encode(frame)
    assert cut.lengths.max() == 50
    assert cut.cut_tokens == whole.lengths.sum() - cut.lengths.sum() > 0
    assert cut.cut_rows == (whole.lengths > 50).sum()


def perturb_adapters(model: torch.nn.Module) -> None:
    """LoRA starts at zero, where half its gradients vanish; move away from there."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
