"""An average of the weights over the last updates, which is often a better model than the last weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Average:
    """The exponential moving average of what is trained (Polyak and Juditsky, 1992; with the decay of TensorFlow's
    `ExponentialMovingAverage`, which is lower in the first updates).

    Args:
        decay: the share of the average in the next one, from 0 (no average is kept) to below 1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, torch.Tensor] = {}
        self.updates = 0

    @torch.no_grad()
    def follow(self, model: torch.nn.Module) -> None:
        """Take the weights after an update into the average; what was freed just now begins as it is."""
        if self.decay == 0:
            return
        share = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                if name in self.weights:
                    self.weights[name].lerp_(parameter, share)
                else:
                    self.weights[name] = parameter.detach().clone()

    @contextmanager
    def shown(self, model: torch.nn.Module) -> Iterator[None]:
        """Inside, the model has the average's weights."""
        parameters = dict(model.named_parameters())
        own = {name: parameters[name].detach().clone() for name in self.weights}
        try:
            _put(parameters, self.weights)
            yield
        finally:
            _put(parameters, own)


@torch.no_grad()
def _put(parameters: dict[str, torch.nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)
