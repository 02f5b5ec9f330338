"""Attention in training on processors: written out where that is faster than PyTorch's fused kernel.

The fused kernel is made for long rows. On a processor its backward pass takes, in bfloat16, 2 to 10 times as long as
two products and a softmax at up to 512 tokens, and in fp32 up to three times as long at up to 64 (the shorter, the
more). Written out, the weights have to be kept for the backward pass, so only rows are taken for which they take no
more room than `REACH` values as wide as a token's. Keys and values that several heads share (grouped-query attention,
Ainslie et al., EMNLP 2023) are not repeated. Without gradients the fused kernel runs, as everywhere else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from thriftune.models.dropout import QUICK_TYPES, quick_dropout

ATTENTION = "thriftune"  # the name under which Transformers finds our attention
REACH = 4  # tokens a row, in head widths, up to which it is written out


def make_attention_quick(model: Any) -> None:
    """Let a model of Transformers attend by `attention` where it has PyTorch's; with an accelerator that is left."""
    if torch.cuda.is_available() or getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if ATTENTION not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Transformers' scaled dot-product attention, or the same written out.

    Args:
        module: whose attention it is.
        query: (rows, heads, queries, head width).
        key: (rows, heads or the groups of them, tokens, head width).
        value: as the keys.
        attention_mask: broadcast to (rows, heads, queries, tokens); true where a token may be seen, or added numbers.
        dropout: of the weights.
        scaling: of the products; by default one over the root of the head width.
        options: `is_causal`, `position_bias` and others that Transformers' own takes.

    Returns:
        (rows, queries, heads, head width), and no weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    causal = attention_mask is None and query.shape[2] > 1 and _is_causal(module, options.get("is_causal"))
    if (
        options.get("position_bias") is not None
        or not _pays(query, key, dropout)
        or (causal and query.shape[2] != key.shape[2])
    ):
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows, heads, queries, width = query.shape
    groups, tokens = key.shape[1:3]
    together = (rows, groups, heads // groups * queries)
    weights = torch.matmul((query * scale).reshape(*together, width), key.transpose(2, 3))
    weights = _masked(weights.view(rows, heads, queries, tokens), attention_mask, causal)
    weights = quick_dropout(weights.softmax(dim=-1), dropout)
    attended = torch.matmul(weights.view(*together, tokens), value).view(rows, heads, queries, value.shape[-1])
    return attended.transpose(1, 2).contiguous(), None


def _is_causal(module: nn.Module, stated: bool | None) -> bool:
    """As Transformers decides it."""
    return bool(getattr(module, "is_causal", True) if stated is None else stated)


def _pays(query: torch.Tensor, key: torch.Tensor, dropout: float) -> bool:
    """Whether written out it is faster; with dropout it always is, since the fused kernel has none on a processor."""
    if query.device.type != "cpu" or query.dtype not in QUICK_TYPES:
        return False
    trained = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    return dropout > 0.0 or (trained and key.shape[2] <= REACH * key.shape[3])


def _masked(weights: torch.Tensor, mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
    """The products (rows, heads, queries, tokens) with what may not be seen as low as can be.

    Not minus infinity, of which a padding token that sees nothing would make a NaN.
    """
    if causal:
        mask = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).tril()
    if mask is None:
        return weights
    if mask.dtype == torch.bool:
        return weights.masked_fill(~mask, torch.finfo(weights.dtype).min)
    return weights + mask
