"""The best weights so far, by a validation figure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from thriftune.train.recipe import Recipe


@dataclass
class Best:
    """The best validation so far.

    Args:
        step: where it was; -1 before the first.
        figures: what it found.
        state: the trained parameters.
        stale: validations since then.
    """

    step: int = -1
    figures: dict[str, float] = field(default_factory=dict)
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    stale: int = 0

    def beaten_by(self, figures: dict[str, float], recipe: Recipe) -> bool:
        """Whether these figures are better by more than `recipe.min_gain`; equal ones are told apart by the loss."""
        if not self.state:
            return True
        new, old = figures[recipe.watch], self.figures[recipe.watch]
        gain = new - old if recipe.higher_is_better else old - new
        return (gain if gain != 0 else min(self.figures["loss"] - figures["loss"], 1e-12)) > recipe.min_gain

    def leads_by_chance(self, last: dict[str, float], rows: int, recipe: Recipe) -> bool:
        """Whether the last weights are worse than the best by no more than a standard error of a share of `rows` rows.

        The best of a dozen validations on a hundred rows is mostly the luckiest; the last weights come after the
        rate's fall to nothing (the one-standard-error rule of Breiman et al., Classification and Regression Trees,
        1984, for the later in the place of the simpler). A figure that is no share, such as a loss, is smooth, and is
        taken at its word.
        """
        best = self.figures.get(recipe.watch, 0.0)
        if not recipe.higher_is_better or not 0.0 < best < 1.0:
            return False
        return best - last[recipe.watch] <= math.sqrt(best * (1.0 - best) / rows)
