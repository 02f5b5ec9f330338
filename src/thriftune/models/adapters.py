"""Low-rank adapters: few weights beside the model's own, which stay as they are (by way of PEFT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from thriftune.models.dropout import make_dropout_quick
from thriftune.models.load import linear_layers
from thriftune.models.quiet import quiet_transformers


@dataclass(frozen=True)
class LoraShape:
    """Low-rank adapters (Hu et al., "LoRA", ICLR 2022) on every linear layer but the vocabulary projection.

    Args:
        rank: of the two factors.
        alpha: their product counts alpha / rank times.
        dropout: of what goes into them.
        dora: train each weight's magnitude apart from its direction (Liu et al., "DoRA", ICML 2024).
        quantised: keep the model's own weights in 4 bits (Dettmers et al., "QLoRA", NeurIPS 2023).
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    dora: bool = False
    quantised: bool = False


def with_adapters(
    model: nn.Module, shape: LoraShape, task_type: str, frozen_layers: int = 0, trained: Sequence[str] = ()
) -> nn.Module:
    """The model with fresh adapters, drawn from torch's global generator, and nothing else trained.

    Args:
        model: of Transformers.
        shape: of the adapters.
        task_type: PEFT's word for it, `CAUSAL_LM` or `SEQ_CLS`.
        frozen_layers: how many of the first layers get none.
        trained: the last parts of the names of modules that are trained as a whole, such as a fresh head.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        use_dora=shape.dora,
        target_modules="all-linear",
        exclude_modules=_without(model, frozen_layers, trained) or None,
        modules_to_save=list(trained) or None,
        task_type=task_type,
    )
    with quiet_transformers():
        adapted = cast(nn.Module, get_peft_model(cast(Any, model), config))
    make_dropout_quick(adapted)
    return adapted


def _without(model: nn.Module, frozen_layers: int, trained: Sequence[str]) -> list[str]:
    """The names of the linear layers inside the first layers and inside what is trained as a whole."""
    adapted = linear_layers(model, frozen_layers)
    parts = [module for name, module in model.named_modules() if name.rpartition(".")[2] in trained]
    whole = {module for part in parts for module in part.modules()}
    return [name for name, module in linear_layers(model).items() if name not in adapted or module in whole]
