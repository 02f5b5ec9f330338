"""An encoder whose head reads one token: its last layer is computed at that token only.

A classifier of the BERT kind throws away what its last layer makes of every other token. There, keys and values are
needed of all tokens, but queries, the attention's output and the feed-forward block of the first one only: with six
layers that is a seventh of all the arithmetic. The logits are the same.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

from thriftune.models.load import has_layer_list, layer_list

PROBE_SHAPE = (2, 6)  # rows and tokens of the input on which the logits must stay the same
TOLERANCE = 1e-5


def read_first_token_only(model: Any) -> bool:
    """Let the last layer compute its first token only, where that leaves the logits as they are.

    Args:
        model: a sequence classifier of Transformers, in evaluation mode or not; it is left in the same mode.

    Returns:
        whether it does now. Layers of another make, and heads that read another token or all of them, stay as they
        were: the logits of a small input tell.
    """
    if not has_layer_list(model):
        return False
    layer = layer_list(model)[-1]
    if not _is_of_bert_s_make(layer) or getattr(model.config, "is_decoder", False):
        return False
    before = _logits(model)
    layer.forward = MethodType(_first_token, layer)
    try:
        same = torch.allclose(_logits(model), before, rtol=TOLERANCE, atol=TOLERANCE)
    except (IndexError, RuntimeError):  # the head looks for a token that is not there any more
        same = False
    if not same:
        del layer.forward
    return same


def _is_of_bert_s_make(layer: Any) -> bool:
    inner = getattr(getattr(layer, "attention", None), "self", None)
    has = all(isinstance(getattr(inner, name, None), nn.Linear) for name in ("query", "key", "value"))
    return has and hasattr(layer, "feed_forward_chunk") and hasattr(layer.attention, "output")


def _first_token(
    layer: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **options: Any
) -> torch.Tensor:
    """(rows, tokens, width) to (rows, 1, width): what the layer makes of the first token."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    inner = layer.attention.self
    first = hidden_states[:, :1]

    def heads(projected: torch.Tensor) -> torch.Tensor:
        return projected.view(*projected.shape[:-1], -1, inner.attention_head_size).transpose(1, 2)

    attend = ALL_ATTENTION_FUNCTIONS[inner.config._attn_implementation]
    attended, _weights = attend(
        inner,
        heads(inner.query(first)),
        heads(inner.key(hidden_states)),
        heads(inner.value(hidden_states)),
        None if attention_mask is None else attention_mask[:, :, :1],
        dropout=inner.dropout.p if inner.training else 0.0,
        scaling=inner.scaling,
    )
    attended = layer.attention.output(attended.reshape(*first.shape[:-1], -1), first)
    return layer.feed_forward_chunk(attended)  # type: ignore[no-any-return]


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    training = model.training
    model.eval()
    rows, tokens = PROBE_SHAPE
    ids = torch.arange(rows * tokens).reshape(rows, tokens) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[0, tokens // 2 :] = 0
    logits = model(input_ids=ids, attention_mask=mask).logits
    model.train(training)
    return logits  # type: ignore[no-any-return]
