"""Adapters: what they train, that they begin as the model was, and that a saved model answers as the tuned one."""

import numpy as np
import polars as pl
import pytest
import torch

from models_for_tests import bert_folder, llama_folder
from thriftune.errors import BadInput
from thriftune.models.adapters import LoraShape
from thriftune.models.load import parameters_by_block
from thriftune.models.quantised import require_quantisation
from thriftune.models.reference import resolve
from thriftune.tasks.chat import ChatTask
from thriftune.tasks.classify import ClassifyTask
from thriftune.tasks.saved import open_saved

SHAPES = {"lora": LoraShape(4, 8), "dora": LoraShape(4, 8, dora=True)}
TEXTS = ["good film", "the film was bad", "not very great", "dull and slow", "a fine film", "awful"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert", layers=3)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return llama_folder(tmp_path_factory.mktemp("models") / "llama")


def classifier(folder, shape, frozen: int = 0) -> ClassifyTask:
    return ClassifyTask(
        resolve(str(folder)), ("no", "yes"), max_tokens=60, dropout=0.0, lora=shape, frozen_layers=frozen
    )


def trained_steps(task, model, encoded, steps: int = 20) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = task.loss(model, task.batch(encoded, np.arange(len(encoded)))) / encoded.weights.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", sorted(SHAPES))
def test_a_classifier_s_adapters_and_head_are_trained_and_saved_as_a_whole_model(encoder, tmp_path, method):
    task = classifier(encoder, SHAPES[method])
    model = task.build()
    encoded = task.encode(pl.DataFrame({"text": TEXTS, "target": ["yes", "no", "no", "no", "yes", "no"]}))
    plain = ClassifyTask(task.model, task.labels, max_tokens=60, dropout=0.0).build()
    before = task.text_logits(model, encoded, 512)
    assert torch.allclose(before, task.text_logits(plain, encoded, 512), atol=1e-6)  # adapters begin as nothing

    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    kinds = ("lora_", "modules_to_save")
    assert trained
    assert all(any(kind in name for kind in kinds) for name in trained)
    assert {name.split(".modules_to_save")[0].rpartition(".")[2] for name in trained if kinds[1] in name} == {
        "classifier",
        "pooler",
    }
    assert ("lora_magnitude_vector" in str(trained)) == (method == "dora")

    kept = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    losses = trained_steps(task, model, encoded)
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.equal(kept[name]) for name, p in model.named_parameters() if not p.requires_grad)

    (tmp_path / "tuned").mkdir()
    tuned = task.text_logits(model, encoded, 512)
    task.save(model, tmp_path / "tuned")
    assert torch.equal(task.text_logits(model, encoded, 512), tuned)  # saving leaves the model as it is
    opened, loaded = open_saved(tmp_path / "tuned")
    assert torch.allclose(opened.text_logits(loaded, encoded, 512), tuned, atol=1e-5)


def test_frozen_layers_have_no_adapters(encoder):
    model = classifier(encoder, SHAPES["lora"], frozen=2).build()
    blocks = parameters_by_block(model)
    assert not any(p.requires_grad for block in ("embeddings", "layer.0", "layer.1") for p in blocks[block])
    assert sum(p.requires_grad for p in blocks["layer.2"]) == 12
    assert not any("lora_" in name for name, _ in model.named_parameters() if ".layer.0." in name)


def test_a_chat_model_s_dora_is_saved_and_answers_as_it_was_tuned(decoder, tmp_path):
    task = ChatTask(resolve(str(decoder)), max_tokens=120, lora=SHAPES["dora"])
    messages = [[{"role": "user", "content": f"mend {number}?"}] for number in range(8)]
    encoded = task.encode(pl.DataFrame({"messages": messages, "target": [f"off {number}" for number in range(8)]}))
    model = task.build()
    assert any("lora_magnitude_vector" in name for name, p in model.named_parameters() if p.requires_grad)
    untuned = ChatTask(task.model, max_tokens=120, lora=None).build()
    assert np.allclose(task.row_losses(model, encoded, 512), task.row_losses(untuned, encoded, 512), rtol=1e-5)
    losses = trained_steps(task, model, encoded)
    assert losses[-1] < losses[0] - 0.2
    (tmp_path / "tuned").mkdir()
    task.save(model, tmp_path / "tuned")
    opened, loaded = open_saved(tmp_path / "tuned")
    assert opened.lora == SHAPES["dora"]
    assert np.allclose(task.row_losses(loaded, encoded, 512), task.row_losses(model, encoded, 512), rtol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is asked for what it lacks")
def test_qlora_without_a_gpu_names_what_is_lacking_and_the_way_out(decoder):
    with pytest.raises(BadInput, match="4-bit weights cannot be used here") as refused:
        require_quantisation()
    assert "thriftune[gpu]" in str(refused.value)
    assert "no GPU" in str(refused.value)
    with pytest.raises(BadInput, match="4-bit"):
        ChatTask(resolve(str(decoder)), lora=LoraShape(quantised=True)).build()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="4-bit weights need a GPU")
def test_qlora_keeps_the_model_in_four_bits_and_learns(decoder):
    pytest.importorskip("bitsandbytes")
    task = ChatTask(resolve(str(decoder)), max_tokens=120, lora=LoraShape(4, 8, quantised=True))
    messages = [[{"role": "user", "content": f"mend {number}?"}] for number in range(8)]
    encoded = task.encode(pl.DataFrame({"messages": messages, "target": [f"off {number}" for number in range(8)]}))
    model = task.build().cuda()
    assert any(p.dtype == torch.uint8 for p in model.parameters())
    batch = {name: tensor.cuda() for name, tensor in task.batch(encoded, np.arange(8)).items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = task.loss(model, batch) / encoded.weights.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
