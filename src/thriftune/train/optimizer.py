"""AdamW with weight decay where it belongs."""

from __future__ import annotations

import torch


def adamw(model: torch.nn.Module, rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over what is trained (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019).

    Matrices decay; biases and the scales of normalisations (every parameter of fewer than two dimensions) do not,
    as in BERT's own training.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kinds = list(dict.fromkeys(type(p.data) for p in trained))  # sharded tensors and plain ones are not fused together
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if type(p.data) is kind and (p.dim() >= 2) == decays], "weight_decay": share}
            for kind in kinds
            for decays, share in ((True, weight_decay), (False, 0.0))
        ],
        lr=rate,
        fused=True,
    )
