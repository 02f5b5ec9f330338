"""AdamW with weight decay where it belongs."""

from __future__ import annotations

import torch


def adamw(model: torch.nn.Module, rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over what is trained (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019).

    Matrices decay; biases and the scales of normalisations (every parameter of fewer than two dimensions) do not,
    as in BERT's own training.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=rate,
        fused=True,
    )
