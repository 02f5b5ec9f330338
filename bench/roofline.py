"""The least time that a training epoch can take on a machine: what its batches require over the machine's peaks.

Padding and recomputation are no requirement. Products of matrices at the precision's peak, then what clipping and
AdamW must move through memory; both bounds are reached one after the other, as they are in the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ADAMW_BYTES = 7 * 4  # a trained fp32 parameter: read weight, gradient and both moments, write all but the gradient
CLIP_BYTES = 3 * 4  # read the gradients for their norm, read and write them to scale
TRAINED_FLOPS = 6  # a token and trained weight: forward 2, gradient of the input 2, of the weight 2
FROZEN_FLOPS = 4  # the gradient of the weight is not needed


@dataclass(frozen=True)
class Shape:
    """The weights of a model that multiply, by what happens to them.

    Args:
        layers: Transformer layers.
        attention_width: heads × head size.
        trained: weights in trained matrices that every token passes.
        frozen: the same, frozen but with a gradient flowing through.
        counted: weights of the vocabulary projection (frozen), which only positions that count must pass.
        pooled: weights of pooler and head (trained), that each row passes once.
        parameters: all trained parameters, for the optimizer.
    """

    layers: int
    attention_width: int
    trained: int = 0
    frozen: int = 0
    counted: int = 0
    pooled: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class Epoch:
    """The rows of an epoch: how many, their tokens, the sum of their squared lengths, and how many positions count."""

    rows: int
    tokens: int
    squared_tokens: int
    counted: int = 0

    @staticmethod
    def of(lengths: Iterable[int], counted: int = 0) -> Epoch:
        """From the rows' lengths in tokens."""
        rows = [int(length) for length in lengths]
        return Epoch(len(rows), sum(rows), sum(length**2 for length in rows), counted)


def epoch_flops(shape: Shape, epoch: Epoch, causal: bool) -> float:
    """Floating-point operations of forward and backward; `causal` attention looks back only, which halves it."""
    # q·k and a·v are two products of 2·L²·width each, forward once and backward twice.
    attention = 12 * shape.layers * shape.attention_width * epoch.squared_tokens
    return float(
        TRAINED_FLOPS * shape.trained * epoch.tokens
        + FROZEN_FLOPS * shape.frozen * epoch.tokens
        + FROZEN_FLOPS * shape.counted * epoch.counted
        + TRAINED_FLOPS * shape.pooled * epoch.rows
        + (attention / 2 if causal else attention)
    )


def least_seconds(flops: float, updates: int, shape: Shape, machine: dict[str, Any], precision: str) -> float:
    """Seconds of the epoch at the machine's peaks."""
    products = flops / (machine["peak_gflops"][precision] * 1e9)
    moved = updates * shape.parameters * (ADAMW_BYTES + CLIP_BYTES)
    return products + moved / (machine["bandwidth_gb_per_s"] * 1e9)
