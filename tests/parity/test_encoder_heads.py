"""Any number of labels a text, and a tag a word: loss and gradients equal Transformers' own on one padded batch."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from test_loss_and_gradients import assert_equal, flat_gradients, our_gradients, sentences

from models_for_tests import bert_folder
from thriftune.models.reference import resolve
from thriftune.tasks.multilabel import MultilabelTask
from thriftune.tasks.tag import TagTask
from thriftune.tasks.targets import write_labels

DTYPES = [torch.float64, torch.float32]
BUDGETS = pytest.mark.parametrize("budget", [None, 100], ids=["whole", "accumulated"])


@pytest.fixture
def bert(tmp_path: Path):
    return resolve(str(bert_folder(tmp_path / "bert")))


@pytest.mark.parametrize("dtype", DTYPES)
@BUDGETS
def test_several_labels_equal_transformers_multi_label_classification(bert, dtype, budget):
    texts, labels = sentences(24), ("bad", "film", "good", "slow")
    targets = [write_labels(label for label in labels if label in text.split()) for text in texts]
    task = MultilabelTask(bert, labels, dropout=0.0, max_tokens=64)
    model = task.build().to(dtype).train()
    assert model.config.problem_type == "multi_label_classification"
    ours = our_gradients(task, model, task.encode(pl.DataFrame({"text": texts, "target": targets})), budget)

    model.zero_grad()
    inputs = task._tokenizer(texts, padding=True, return_tensors="pt")
    wanted = torch.tensor([[float(label in json.loads(target)) for label in labels] for target in targets])
    assert 0 < wanted.mean() < 1 and (wanted.sum(dim=1) == 0).any(), "some texts have no label"
    loss = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=wanted.to(dtype)).loss
    loss.backward()
    assert_equal(ours, (loss.item(), flat_gradients(model)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@BUDGETS
def test_tagging_equals_transformers_token_classification(bert, dtype, budget):
    words = [text.split() for text in sentences(24)]
    tags = [["B-x" if len(word) > 4 else "O" for word in row] for row in words]
    task = TagTask(bert, ("B-x", "O"), dropout=0.0, max_tokens=64)
    model = task.build().to(dtype).train()
    frame = pl.DataFrame({"tokens": words, "target": [json.dumps(row) for row in tags]})
    encoded = task.encode(frame)
    assert encoded.weights.tolist() == [len(row) for row in words]
    ours = our_gradients(task, model, encoded, budget)

    model.zero_grad()
    inputs = task._tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
    labels = torch.full(inputs["input_ids"].shape, -100)
    for row in range(len(words)):
        seen = set()
        for place, word in enumerate(inputs.word_ids(row)):
            if word is not None and word not in seen:
                labels[row, place] = task.labels.index(tags[row][word])
                seen.add(word)
    given = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": labels}
    loss = model(**given).loss
    loss.backward()
    assert_equal(ours, (loss.item(), flat_gradients(model)), dtype)


def test_smoothing_moves_both_targets_towards_a_half(bert):
    texts = sentences(8)
    frame = pl.DataFrame({"text": texts, "target": ['["a"]', '["a", "b"]', "[]", '["b"]'] * 2})
    task = MultilabelTask(bert, ("a", "b"), dropout=0.0, max_tokens=64, label_smoothing=0.2)
    model, encoded = task.build().double().eval(), task.encode(frame)
    batch = task.batch(encoded, np.arange(8))
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    smooth = 0.1 + 0.8 * batch["labels"].double()
    expected = -(smooth * logits.sigmoid().log() + (1 - smooth) * (1 - logits.sigmoid()).log()).mean(dim=1).sum()
    assert task.loss(model, batch).item() == pytest.approx(expected.item(), rel=1e-9)
