"""Dropout for processors: the same chance for every element, from cheaper random numbers.

PyTorch draws a dropout mask on a CPU by one thread, a number an element; in a small encoder's step that is an eighth
of the time. Sixteen random bits an element are enough to keep it with a probability that is right to 1 in 65,536, and
a generator that makes 64 of them at once (SFC64, by way of NumPy) is many times as fast. A mask depends on PyTorch's
own generator alone, from which it draws its seed, so whatever `torch.manual_seed` makes repeatable stays so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STEPS = 2**16  # of the random numbers that an element is kept or dropped by
QUICK_TYPES = (torch.float32, torch.bfloat16)


class QuickDropout(nn.Module):
    """`nn.Dropout`, with `quick_dropout` where it can be."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Drop elements of `values` (of any shape) in training, and none otherwise."""
        return quick_dropout(values, self.p) if self.training else values

    def extra_repr(self) -> str:
        """As `nn.Dropout` has it."""
        return f"p={self.p}"


def quick_dropout(values: torch.Tensor, p: float) -> torch.Tensor:
    """Each element becomes 0 with probability `p`, and is divided by `1 - p` otherwise (Srivastava et al., JMLR 2014).

    Args:
        values: of any shape; on another device than a CPU, and in another type than fp32 and bf16, PyTorch's own runs.
        p: to the nearest 1 in 65,536.
    """
    if p == 0.0:
        return values
    if values.device.type != "cpu" or values.dtype not in QUICK_TYPES:
        return functional.dropout(values, p)
    return values * _mask(values.shape, p, values.dtype)


def _mask(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """Of a shape and a type: 0 with probability `p`, `1 / (1 - p)` otherwise (to the precision of the type)."""
    seed = int(torch.randint(2**62, ()).item())
    count = shape.numel()
    words = np.random.Generator(np.random.SFC64(seed)).integers(
        0, 2**64, size=-(-count // 4), dtype=np.uint64, endpoint=False
    )
    numbers = torch.from_numpy(words.view(np.int16)[:count])
    dropped = round(p * STEPS)
    kept = numbers >= dropped - STEPS // 2
    return kept.to(dtype).mul_(STEPS / (STEPS - dropped)).view(shape)


def make_dropout_quick(model: Any) -> None:
    """Let the modules of a model drop by `quick_dropout`; its attention is `models/attention.py`'s."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, QuickDropout(child.p))
