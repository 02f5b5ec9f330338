"""Loss scaling, which keeps small gradients above what float16 can hold (Micikevicius et al., ICLR 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class LossScaling:
    """PyTorch's `GradScaler` for fp16, and nothing for other precisions.

    An update whose gradients are too large for float16 is skipped and the scale is halved; after 2,000 updates without
    one it is doubled.

    Args:
        precision: as in `Machine`.
        device: where gradients are.
    """

    def __init__(self, precision: str, device: str) -> None:
        self._scaler = torch.amp.GradScaler(device.split(":", maxsplit=1)[0], enabled=precision == "fp16")
        self.skipped = 0  # updates

    @property
    def scale(self) -> float:
        """What losses are multiplied by; 1 without scaling."""
        return float(self._scaler.get_scale())

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the scaled loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, clip: Callable[[], object]) -> bool:
        """One optimizer step after `clip` of the gradients; False where it was skipped, since they had overflowed."""
        before = self.scale
        self._scaler.unscale_(optimizer)
        clip()
        self._scaler.step(optimizer)
        self._scaler.update()
        overflowed = self.scale < before
        self.skipped += overflowed
        return not overflowed

    def state(self) -> dict[str, Any]:
        """Plain JSON values, for a checkpoint."""
        return {"scaler": self._scaler.state_dict(), "skipped": self.skipped}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]
