"""Floating-point operations that training asks for, by a closed form: what a machine that is not here must do.

A token and a weight of a matrix: 2 in the forward pass, 2 for the gradient of the input, 2 for the weight's own where
it is trained (Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1); attention's products of
queries, keys and values come to these. What stands before the first trained layer has the forward pass only.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from thriftune.models.load import has_layer_list, parameters_by_block
from thriftune.models.prefix import frozen_depth

FORWARD, TRAINED, FROZEN = 2, 6, 4
ATTENTION = 12  # a layer, of width × length a token: two products, forward once and backward twice


def training_flops(model: nn.Module, tokens: float, row_tokens: float) -> float:
    """Operations of updates on so many tokens, padding included.

    Args:
        model: with what is frozen marked so.
        tokens: of all updates.
        row_tokens: of an average row, which attention grows with.
    """
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    projection = _projection(model)
    first = _before_the_first_trained(model)
    a_token = 0.0
    for matrix in matrices:
        if id(matrix) in tables and matrix is not projection:
            continue
        each = TRAINED if matrix.requires_grad else FORWARD if id(matrix) in first else FROZEN
        a_token += each * matrix.numel()
    config: Any = model.config
    text = config.get_text_config()
    a_token += ATTENTION * text.num_hidden_layers * text.hidden_size * row_tokens
    return float(a_token * tokens)


def depth(model: nn.Module) -> int:
    """How many Transformer layers a model has."""
    config: Any = model.config
    return int(config.get_text_config().num_hidden_layers)


def _projection(model: Any) -> Any:
    """The weight of the vocabulary projection of a decoder, which may be the embedding's."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return None if output is None else output.weight


def _before_the_first_trained(model: nn.Module) -> set[int]:
    if not has_layer_list(model):
        return set()
    blocks = parameters_by_block(model)
    return {id(p) for number in range(frozen_depth(model)) for p in blocks[f"layer.{number}"]}
