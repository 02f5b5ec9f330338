"""Models load whole, from local files, with the layers and blocks that training needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_models import LARGE_VOCABULARY, LAYERS

from thriftune.errors import BadInput
from thriftune.models.attention import ATTENTION
from thriftune.models.load import (
    body_of,
    head_modules,
    head_parameters,
    layer_list,
    load_decoder,
    load_encoder,
    load_encoder_classifier,
    load_tokenizer,
    parameters_by_block,
)
from thriftune.models.quiet import quiet_transformers
from thriftune.models.reference import ModelFolder, resolve

ENCODERS = ["roberta", "distilbert", "electra", "xlnet"]


def test_the_real_encoder_reads_a_sentence(minilm: ModelFolder) -> None:
    tokenizer = load_tokenizer(minilm.path)
    model = load_encoder_classifier(minilm.path, ["bad", "good"]).eval()
    with torch.inference_mode():
        logits = model(**tokenizer("a fine film", return_tensors="pt")).logits
    assert logits.shape == (1, 2) and logits.isfinite().all()
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config._attn_implementation == ("sdpa" if torch.cuda.is_available() else ATTENTION)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_untuned_encoder_knows_which_sentences_are_alike(minilm: ModelFolder) -> None:
    tokenizer, model = load_tokenizer(minilm.path), load_encoder(minilm.path).eval()
    texts = ["the film was wonderful", "a great movie", "the printer is out of paper"]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_the_head_is_drawn_from_the_seed(minilm: ModelFolder) -> None:
    def head(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return load_encoder_classifier(minilm.path, ["a", "b", "c"]).classifier.weight.detach()

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_dropout_replaces_every_rate(minilm: ModelFolder) -> None:
    def rates(dropout: float | None) -> set[float]:
        model = load_encoder_classifier(minilm.path, ["a", "b"], dropout)
        return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}

    assert rates(None) == {0.1}
    assert rates(0.0) == {0.0}


@pytest.mark.parametrize("family", ENCODERS)
def test_encoders_of_other_families_classify(small_models: Path, family: str) -> None:
    model = load_encoder_classifier(small_models / family, ["a", "b", "c"])
    tokenizer = load_tokenizer(small_models / family)
    batch = tokenizer(["one text", "and another, longer text"], return_tensors="pt", padding=True)
    model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.sum().backward()
    layers = layer_list(model)
    assert len(layers) == LAYERS
    assert all(any(p.grad is not None for p in layer.parameters()) for layer in layers)


@pytest.mark.parametrize("family", [*ENCODERS, "llama"])
def test_every_parameter_is_in_one_block(small_models: Path, family: str) -> None:
    folder = small_models / family
    model = load_decoder(folder) if family == "llama" else load_encoder_classifier(folder, ["a", "b"])
    blocks = parameters_by_block(model)
    assert list(blocks) == ["embeddings", *(f"layer.{i}" for i in range(LAYERS)), "head"]
    assert all(blocks.values())
    found = [id(parameter) for block in blocks.values() for parameter in block]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight
    assert any(parameter is embedding for parameter in blocks["embeddings"])


def test_a_decoder_with_a_very_large_vocabulary_loads(small_models: Path) -> None:
    model = load_decoder(small_models / "llama", torch.bfloat16)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight.shape[0] == LARGE_VOCABULARY
    assert model.dtype == torch.bfloat16
    assert len(layer_list(model)) == LAYERS


def test_layers_are_found_under_adapters(small_models: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_decoder(small_models / "llama"), LoraConfig(r=2, target_modules="all-linear"))
    assert len(layer_list(model)) == LAYERS
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    in_layers = {id(p) for name, block in parameters_by_block(model).items() if "layer" in name for p in block}
    assert trained and trained <= in_layers


def test_a_head_is_what_stands_outside_the_body(small_models: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = load_encoder_classifier(small_models / "roberta", ["bad", "good"])
    head = {id(parameter) for parameter in model.classifier.parameters()}
    assert body_of(model) is model.roberta and set(head_modules(model)) == {"classifier"}
    assert {id(parameter) for parameter in head_parameters(model)} == head
    lora = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"], task_type="SEQ_CLS")
    adapted = get_peft_model(model, lora)
    assert body_of(adapted) is body_of(model)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    of_head = {id(parameter) for parameter in head_parameters(adapted)}
    in_head = {name for name, parameter in adapted.named_parameters() if id(parameter) in of_head}
    assert trained & in_head == {name for name in trained if "modules_to_save" in name} != set()


def test_a_projection_tied_to_the_embedding_is_the_body_s(small_models: Path) -> None:
    decoder = load_decoder(small_models / "llama")
    assert set(head_modules(decoder)) == {"lm_head"}
    assert head_parameters(decoder) == []


def test_a_tuned_model_keeps_its_head_and_another_task_gets_a_fresh_one(small_models: Path, tmp_path: Path) -> None:
    tuned = load_encoder_classifier(small_models / "roberta", ["bad", "good"])
    tuned.save_pretrained(tmp_path)
    shutil.copy(small_models / "roberta" / "tokenizer.json", tmp_path)
    again = load_encoder_classifier(tmp_path, ["bad", "good"])
    assert torch.equal(again.classifier.out_proj.weight, tuned.classifier.out_proj.weight)
    other = load_encoder_classifier(tmp_path, ["no", "yes"])
    assert not torch.equal(other.classifier.out_proj.weight, tuned.classifier.out_proj.weight)
    assert not other.classifier.dense.bias.any()
    body = "roberta.encoder.layer.0.output.dense.weight"
    assert torch.equal(other.get_parameter(body), tuned.get_parameter(body))
    wider = load_encoder_classifier(tmp_path, ["a", "b", "c"])
    assert wider.classifier.out_proj.weight.shape[0] == 3


def _changed(source: Path, target: Path, change: str) -> Path:
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    name = "roberta.encoder.layer.1.attention.self.query.weight"
    if change == "missing":
        del weights[name]
    elif change == "shape":
        weights[name] = weights[name][:, :8].contiguous()
    else:
        weights[name.replace("layer.1", f"layer.{LAYERS}")] = weights[name].clone()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("missing", "no roberta.encoder.layer.1.attention.self.query.weight"),
        ("shape", "roberta.encoder.layer.1.attention.self.query.weight of shape (16, 8)"),
        ("surplus", "roberta.encoder.layer.3.attention.self.query.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(small_models: Path, tmp_path: Path, change: str, found: str) -> None:
    folder = _changed(small_models / "roberta", tmp_path / "m", change)
    for load in (load_encoder, lambda path: load_encoder_classifier(path, ["a", "b"])):
        with pytest.raises(BadInput, match="do not fit") as caught:
            load(folder)
        assert caught.value.found.removeprefix("no ").removeprefix("roberta.") == found.removeprefix(
            "no "
        ).removeprefix("roberta.")


def test_a_damaged_tokenizer_is_refused(small_models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small_models / "roberta", folder)
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": 3}')
    with pytest.raises(BadInput, match="tokenizer cannot be loaded"):
        load_tokenizer(folder)


def test_loading_is_quiet_and_leaves_the_users_settings(small_models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = transformers.logging.get_verbosity()
    load_encoder_classifier(small_models / "electra", ["a", "b"])
    with quiet_transformers():
        assert transformers.logging.get_verbosity() == transformers.logging.ERROR
    assert transformers.logging.get_verbosity() == verbosity
    assert capfd.readouterr() == ("", "")


def test_a_fresh_process_loads_without_a_network_or_a_bar(minilm: ModelFolder) -> None:
    script = (
        "import sys\n"
        "def watch(event, details):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'): raise SystemExit(f'{event} {details}')\n"
        "sys.addaudithook(watch)\n"
        "from pathlib import Path\n"
        "from thriftune.models.load import load_encoder_classifier, load_tokenizer\n"
        f"folder = Path({str(minilm.path)!r})\n"
        "load_tokenizer(folder)\n"
        "load_encoder_classifier(folder, ['a', 'b'])\n"
        "assert 'tensorflow' not in sys.modules and 'torchvision' not in sys.modules\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_shared_layers_are_refused() -> None:
    config = transformers.AlbertConfig(
        vocab_size=100,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    with pytest.raises(BadInput, match="no list of separate layers"):
        layer_list(transformers.AlbertModel(config))


def test_the_large_vocabulary_model_resolves_without_a_template(small_models: Path, cache: Path) -> None:
    folder = resolve(str(small_models / "llama"), cache)
    settings = json.loads((folder.path / "config.json").read_text())
    assert (folder.kind, folder.vocab_size, folder.has_chat_template) == ("decoder", settings["vocab_size"], False)
