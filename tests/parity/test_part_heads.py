"""A head for each part: the masked head over all labels is exactly a linear layer for each part."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from test_loss_and_gradients import assert_equal, flat_gradients, our_gradients, sentences
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from models_for_tests import bert_folder
from thriftune.models.reference import resolve
from thriftune.tasks.classify import ClassifyTask
from thriftune.tasks.heads import Heads
from thriftune.tasks.multilabel import MultilabelTask
from thriftune.tasks.targets import read_list, write_labels

DTYPES = [torch.float64, torch.float32]
HEADS = Heads(("tone", "kind"), (("bad", "good"), ("animal", "bad", "plant")))
BUDGETS = pytest.mark.parametrize("budget", [None, 100], ids=["whole", "accumulated"])


@pytest.fixture
def bert(tmp_path: Path):
    return resolve(str(bert_folder(tmp_path / "bert")))


def frame_of(task: str) -> pl.DataFrame:
    """Rows of both parts by turns; `bad` is a label of both, and means another thing in each."""
    random, texts = np.random.default_rng(1), sentences(24)
    parts = [HEADS.parts[row % 2] for row in range(24)]
    labels = [HEADS.labels[row % 2] for row in range(24)]
    if task == "classify":
        targets = [str(random.choice(own)) for own in labels]
    else:
        targets = [write_labels(label for label in own if random.random() < 0.5) for own in labels]
    return pl.DataFrame({"text": texts, "part": parts, "target": targets})


def apart(task: Any, model: Any, frame: pl.DataFrame, loss_of: Any) -> tuple[float, torch.Tensor]:
    """Loss and gradients of linear layers of their own over what the encoder tells of each part's rows."""
    model.zero_grad()
    told: list[torch.Tensor] = []
    hook = model.classifier.register_forward_pre_hook(lambda _, given: told.append(given[0]))
    inputs = task._tokenizer(frame["text"].to_list(), padding=True, return_tensors="pt")
    model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    hook.remove()
    layers, losses, first = [], [], 0
    for part, labels in zip(HEADS.parts, HEADS.labels, strict=True):
        layer = torch.nn.Linear(told[0].shape[1], len(labels)).to(told[0].dtype)
        with torch.no_grad():
            layer.weight.copy_(model.classifier.weight[first : first + len(labels)])
            layer.bias.copy_(model.classifier.bias[first : first + len(labels)])
        rows = np.flatnonzero((frame["part"] == part).to_numpy())
        losses.append(loss_of(layer(told[0][rows]), frame["target"].gather(rows).to_list(), labels, first))
        layers.append(layer)
        first += len(labels)
    loss = sum(losses) / len(frame)
    loss.backward()
    model.classifier.weight.grad = torch.cat([layer.weight.grad for layer in layers])
    model.classifier.bias.grad = torch.cat([layer.bias.grad for layer in layers])
    return loss.item(), flat_gradients(model)


@pytest.mark.parametrize("dtype", DTYPES)
@BUDGETS
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.5, 2.0, 1.5)])
def test_one_label_equals_a_linear_layer_for_each_part(bert, dtype, budget, smoothing, weights):
    task = ClassifyTask(
        bert,
        HEADS.columns,
        dropout=0.0,
        max_tokens=64,
        label_smoothing=smoothing,
        class_weights=weights,
        heads=HEADS,
    )
    model, frame = task.build().to(dtype).train(), frame_of("classify")
    encoded = task.encode(frame)

    def loss_of(logits: torch.Tensor, targets: list[str], labels: tuple[str, ...], first: int) -> torch.Tensor:
        own = None if weights is None else logits.new_tensor(weights[first : first + len(labels)])
        wanted = torch.tensor([labels.index(target) for target in targets])
        return cross_entropy(logits, wanted, weight=own, reduction="sum", label_smoothing=smoothing)

    loss, gradients = our_gradients(task, model, encoded, budget)
    scale = encoded.weights.sum() / len(frame)  # ours is over the weights, the reference's over rows
    assert_equal((loss * scale, gradients * scale), apart(task, model, frame, loss_of), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@BUDGETS
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels_equal_a_linear_layer_for_each_part(bert, dtype, budget, smoothing):
    task = MultilabelTask(bert, HEADS.columns, dropout=0.0, max_tokens=64, label_smoothing=smoothing, heads=HEADS)
    model, frame = task.build().to(dtype).train(), frame_of("multilabel")

    def loss_of(logits: torch.Tensor, targets: list[str], labels: tuple[str, ...], _: int) -> torch.Tensor:
        wanted = torch.tensor([[float(label in read_list(target)) for label in labels] for target in targets])
        wanted = wanted.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(labels)

    ours = our_gradients(task, model, task.encode(frame), budget)
    assert_equal(ours, apart(task, model, frame, loss_of), dtype)


@pytest.mark.parametrize("made", [ClassifyTask, MultilabelTask])
def test_a_row_moves_no_weight_of_another_part(bert, made):
    task = made(bert, HEADS.columns, dropout=0.0, max_tokens=64, label_smoothing=0.1, heads=HEADS)
    model, frame = task.build().train(), frame_of(made.name)
    encoded = task.encode(frame)
    task.loss(model, task.batch(encoded, np.flatnonzero(encoded.parts == 0))).backward()
    moved = model.classifier.weight.grad.abs().sum(dim=1)
    assert (moved[:2] > 0).all()
    assert (moved[2:] == 0).all() and torch.isfinite(moved).all()


@pytest.mark.parametrize("made", [ClassifyTask, MultilabelTask])
def test_one_part_gives_what_one_head_gives(bert, made):
    frame = frame_of(made.name).filter(pl.col("part") == "kind")
    plain = made(bert, HEADS.labels[1], dropout=0.0, max_tokens=64)
    headed = made(bert, ("kind: animal", "kind: bad", "kind: plant"), dropout=0.0, max_tokens=64,
                  heads=Heads(("kind",), HEADS.labels[1:]))  # fmt: skip
    ours, theirs = (
        our_gradients(task, task.build().double().train(), task.encode(frame), None) for task in (headed, plain)
    )
    assert_equal(ours, theirs, torch.float64)
