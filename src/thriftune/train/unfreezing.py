"""Gradual unfreezing: the first layers are frozen at first and freed from the top down as training goes on.

The head and the last layers learn the task before what lies below is touched (Howard and Ruder, "Universal Language
Model Fine-tuning", ACL 2018, section 3.3). Here it saves time as well: while the first layers are frozen, their states
are taken from the prefix cache, and a step costs a fraction of a full one. Phases begin at a share of progress, not at
a step, so that a plan that the governor changes still passes through all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from thriftune.models.load import parameters_by_block
from thriftune.models.prefix import passable_depth, still_prefix
from thriftune.train.recipe import Phase


class Unfreezing:
    """Which layers of a model are trained now.

    Args:
        model: as its task built it: what requires gradients is trained by the end.
        phases: in their order; none for a model that stays as it is built.
    """

    def __init__(self, model: torch.nn.Module, phases: Sequence[Phase]) -> None:
        self._model = model
        self.phases = tuple(phases) or (Phase(0.0, passable_depth(model)),)
        self.learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._changes = bool(phases)
        self._stilled: list[Callable[[], None]] = []  # what wakes the modules that are still
        self.number = 0  # of the phase that holds
        self.costs = [1.0] * len(self.phases)  # an update's seconds in each phase, in any unit
        self.begin(0)

    @property
    def frozen(self) -> int:
        """How many of the first layers are frozen by the phase that holds."""
        return self.phases[self.number].frozen

    @property
    def rate(self) -> float:
        """The factor on the rate in the phase that holds."""
        return self.phases[self.number].rate

    @property
    def is_last(self) -> bool:
        """Whether nothing more will be freed."""
        return self.number == len(self.phases) - 1

    @property
    def freed_at(self) -> dict[str, float]:
        """The progress at which each block that is trained began to be; blocks that were from the start left out."""
        begun = self.phases[: self.number + 1]
        found = {
            block: min((phase.begins for phase in begun if _height(block) >= phase.frozen), default=0.0)
            for block in parameters_by_block(self._model)
        }
        return {block: begins for block, begins in found.items() if begins > 0}

    def due(self, progress: float) -> int:
        """The number of the phase to be in at this progress."""
        return max(number for number, phase in enumerate(self.phases) if phase.begins <= progress)

    def begin(self, number: int) -> float:
        """Train what this phase trains, and freeze the rest, its dropout with it.

        Returns:
            An update's cost over what one cost before.
        """
        before, self.number = self.number, number
        if self._changes:
            self._wake()
            learnt = set(self.learnt)
            for block, parameters in parameters_by_block(self._model).items():
                for parameter in learnt.intersection(parameters):
                    parameter.requires_grad = _height(block) >= self.frozen
            self._stilled = still_prefix(self._model)
        return self.costs[number] / self.costs[before]

    def release(self) -> None:
        """Leave the model as its task built it."""
        self._wake()
        for parameter in self.learnt:
            parameter.requires_grad = True
        if self._changes:
            still_prefix(self._model)

    def _wake(self) -> None:
        for undo in self._stilled:
            undo()
        self._stilled = []

    def ahead(self, progress: float) -> float:
        """The mean cost of the updates from this progress to the end, over that of one now."""
        return mean_cost(self.phases, self.costs, progress) / self.costs[self.number]


def mean_cost(phases: Sequence[Phase], costs: Sequence[float], progress: float = 0.0) -> float:
    """The mean of the phases' costs by how much of the progress from here to 1 each takes; the last one's at 1."""
    ends = [phase.begins for phase in phases[1:]] + [1.0]
    shares = [max(0.0, end - max(progress, phase.begins)) for phase, end in zip(phases, ends, strict=True)]
    if sum(shares) <= 0:
        return costs[-1]
    return sum(share * cost for share, cost in zip(shares, costs, strict=True)) / sum(shares)


def _height(block: str) -> float:
    """The number of the layer with which a block is freed; the embeddings are freed with the first."""
    if block == "embeddings":
        return 0
    return math.inf if block == "head" else int(block.partition(".")[2])
