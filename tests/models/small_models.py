"""Small models with random weights, made from the configs of their families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

LAYERS = 3
VOCABULARY = 30522  # of the tokenizer that all small encoders share
LARGE_VOCABULARY = 262_000

SMALL: dict[str, Callable[[], Any]] = {
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=66,
        )
    ),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(vocab_size=VOCABULARY, dim=16, n_layers=LAYERS, n_heads=2, hidden_dim=32)
    ),
    "electra": lambda: transformers.ElectraForPreTraining(
        transformers.ElectraConfig(
            vocab_size=VOCABULARY,
            embedding_size=8,
            hidden_size=16,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=32,
        )
    ),
    "xlnet": lambda: transformers.XLNetLMHeadModel(
        transformers.XLNetConfig(vocab_size=VOCABULARY, d_model=16, n_layer=LAYERS, n_head=2, d_inner=32)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=LARGE_VOCABULARY,
            hidden_size=8,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=16,
            max_position_embeddings=128,
            tie_word_embeddings=True,
        )
    ),
}
