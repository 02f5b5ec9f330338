"""AdamW with weight decay where it belongs, and a rate for each layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from thriftune.models.load import head_parameters, parameters_by_block


def adamw(
    model: torch.nn.Module,
    rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    freed_at: Mapping[str, float] | None = None,
    before: torch.optim.Optimizer | None = None,
    head_rate: float = 1.0,
) -> torch.optim.AdamW:
    """Fused AdamW over what is trained (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019).

    Matrices decay; biases and the scales of normalisations (every parameter of fewer than two dimensions) do not,
    as in BERT's own training.

    Args:
        model: whose parameters that require gradients are trained.
        rate: of what stands above the layers.
        weight_decay: of the matrices.
        layer_decay: a layer's rate over that of the one above it, the embeddings lowest (Howard and Ruder, "Universal
            Language Model Fine-tuning", ACL 2018, section 3.2: discriminative fine-tuning).
        freed_at: the progress at which a block (`parameters_by_block`) began to be trained, where not from the start.
        before: an optimizer over fewer or more of these parameters: its moments are gone on with, those of the others
            are fresh.
        head_rate: the rate of the head (`head_parameters`) over `rate`.
    """
    head = set(head_parameters(model)) if head_rate != 1.0 else set()
    blocks = _blocks(model, layer_decay, freed_at or {})
    groups: dict[tuple[float, float, bool, type], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            scale, freed = blocks.get(parameter, (1.0, 0.0))
            scale *= head_rate if parameter in head else 1.0
            kind = type(parameter.data)  # sharded tensors and plain ones are not fused together
            groups.setdefault((scale, freed, parameter.dim() >= 2, kind), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": weight_decay if matrices else 0.0,
                "lr": scale * rate,
                "scale": scale,
                "freed_at": freed,
            }
            for (scale, freed, matrices, _), parameters in groups.items()
        ],
        lr=rate,
        fused=True,
    )
    for parameter in model.parameters():
        if before is not None and parameter.requires_grad and parameter in before.state:
            optimizer.state[parameter] = before.state[parameter]
    return optimizer


def _blocks(
    model: torch.nn.Module, layer_decay: float, freed_at: Mapping[str, float]
) -> dict[torch.nn.Parameter, tuple[float, float]]:
    """The scale of each parameter's rate, and the progress at which it was freed; none where all are alike."""
    if layer_decay == 1.0 and not freed_at:
        return {}
    upwards = parameters_by_block(model)  # embeddings, layers, head
    return {
        parameter: (layer_decay ** (len(upwards) - 1 - height), freed_at.get(block, 0.0))
        for height, (block, parameters) in enumerate(upwards.items())
        for parameter in parameters
    }


def set_rates(optimizer: torch.optim.Optimizer, rate: float, progress: float, thaw: float) -> None:
    """Give each group its rate.

    Args:
        optimizer: from `adamw`.
        rate: of what stands above the layers, but for a head with a rate of its own.
        progress: of training, 0…1.
        thaw: share of progress in which the rate of what was freed on the way rises to its own.
    """
    for group in optimizer.param_groups:
        freed = group["freed_at"]
        risen = min(1.0, (progress - freed) / thaw) if freed and thaw else 1.0
        group["lr"] = rate * group["scale"] * risen
