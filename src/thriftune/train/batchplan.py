"""The batch plan of a whole run: which rows make up each update, over the parts of the data and in their order.

A part is a task, a domain or a stage that rows belong to. Mixed, every epoch draws from all parts, by their sizes or
by a temperature that evens them out; in sequence, one part follows another (general, domain, narrower domain), each
with some rows of the earlier ones again, so that they are not forgotten. Like the plan of an epoch, all of it is a
pure function of seed and lengths: resuming is an index, and ranks or accumulation only slice it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thriftune.tasks.base import Encoded
from thriftune.tasks.batches import padded_tokens
from thriftune.train.batches import POOL_UPDATES, plan_epoch, updates_per_epoch
from thriftune.train.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """A stretch of the run that draws from the same rows.

    Args:
        name: of its part; empty where all parts are mixed.
        start: the share of the whole run's updates that lie before it.
        end: the share that has been made when it ends.
        epoch_updates: updates a pass over its rows.
        updates: of all its epochs.
    """

    name: str
    start: float
    end: float
    epoch_updates: int
    updates: int


@dataclass
class BatchPlan:
    """Row ids of every update of a run.

    Args:
        train: the rows; `train.parts` says which part each is of.
        recipe: seed, rows an update, epochs, and how parts are mixed.
    """

    train: Encoded
    recipe: Recipe
    stages: tuple[Stage, ...] = field(init=False)
    _epoch: tuple[tuple[int, int], list[NDArray[np.int64]]] = field(init=False, default=((-1, -1), []))

    def __post_init__(self) -> None:
        sizes = [len(self._rows(stage, 0)) for stage in range(self._count)]
        per_epoch = [updates_per_epoch(size, self.recipe.rows_per_update) for size in sizes]
        bounds = [float(bound) for bound in np.cumsum([0, *per_epoch]) / sum(per_epoch)]
        names = self.recipe.mixing.parts if self._count > 1 else ("",)
        self.stages = tuple(
            Stage(name, start, end, updates, updates * self.recipe.epochs)
            for name, start, end, updates in zip(names, bounds, bounds[1:], per_epoch, strict=False)
        )

    @property
    def full_steps(self) -> int:
        """The updates of all stages."""
        return sum(stage.updates for stage in self.stages)

    @property
    def epoch_updates(self) -> int:
        """The updates of one pass over every stage's rows."""
        return sum(stage.epoch_updates for stage in self.stages)

    @property
    def _count(self) -> int:
        sequence = self.recipe.mixing.order == "sequence"
        return max(1, len(self.recipe.mixing.parts)) if sequence else 1

    def rows(self, stage: int, index: int) -> NDArray[np.int64]:
        """The row ids of an update: the `index`-th of a stage; past the stage's end, of the stage that follows."""
        while index >= self.stages[stage].updates and stage + 1 < len(self.stages):
            index, stage = index - self.stages[stage].updates, stage + 1
        epoch, place = divmod(index, self.stages[stage].epoch_updates)
        if self._epoch[0] != (stage, epoch):
            self._epoch = ((stage, epoch), self._updates(stage, epoch))
        return self._epoch[1][place]

    def epochs_done(self, stage: int, index: int) -> float:
        """Passes that lie behind after `index` updates of a stage, those of earlier stages included."""
        return stage * self.recipe.epochs + index / self.stages[stage].epoch_updates

    def first_epochs(self) -> Iterator[int]:
        """The places, in the whole run, of the updates of each stage's first epoch."""
        before = 0
        for stage in self.stages:
            yield from range(before, before + stage.epoch_updates)
            before += stage.updates

    def mean_tokens(self) -> float:
        """Padded tokens of an average update, by the first epochs."""
        updates = [rows for stage in range(len(self.stages)) for rows in self._updates(stage, 0)]
        return padded_tokens(self.train.lengths, updates, self.train.packed) / len(updates)

    def _updates(self, stage: int, epoch: int) -> list[NDArray[np.int64]]:
        rows = self._rows(stage, epoch)
        number = stage * self.recipe.epochs + epoch
        plan = plan_epoch(
            self.train.lengths[rows],
            self.recipe.rows_per_update,
            self.recipe.seed,
            number,
            pool_updates=1 if self.train.packed else POOL_UPDATES,
        )
        return [rows[places] for places in plan]

    def _rows(self, stage: int, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch, before they are shuffled."""
        mixing, parts = self.recipe.mixing, self.train.parts
        if parts is None or len(mixing.parts) < 2:
            return np.arange(len(self.train))
        if mixing.order == "sequence":
            return np.concatenate([np.flatnonzero(parts == stage), self._replayed(stage, epoch)])
        if mixing.temperature == 1.0:
            return np.arange(len(self.train))
        return np.concatenate([self._drawn(part, epoch, count) for part, count in enumerate(self.shares())])

    def shares(self) -> list[int]:
        """Rows of each part in an epoch: in proportion to n^(1/T) of its n rows, as many in all as there are.

        Temperature sampling, as in Raffel et al., "Exploring the Limits of Transfer Learning" (T5), JMLR 2020, 3.5.2.
        """
        parts = self.train.parts
        assert parts is not None
        sizes = np.bincount(parts, minlength=len(self.recipe.mixing.parts)).astype(np.float64)
        weights = sizes ** (1.0 / self.recipe.mixing.temperature)
        return [max(1, round(float(share))) for share in len(parts) * weights / weights.sum()]

    def _drawn(self, part: int, epoch: int, count: int) -> NDArray[np.int64]:
        """The next `count` rows of a part, which is gone through again and again, each time in another order."""
        assert self.train.parts is not None
        own = np.flatnonzero(self.train.parts == part)
        places = np.arange(epoch * count, (epoch + 1) * count)
        rounds = range(int(places[0]) // len(own), int(places[-1]) // len(own) + 1)
        orders = {at: np.random.default_rng([self.recipe.seed, part, at]).permutation(own) for at in rounds}
        return np.array([orders[int(place) // len(own)][int(place) % len(own)] for place in places], dtype=np.int64)

    def _replayed(self, stage: int, epoch: int) -> NDArray[np.int64]:
        """Rows of earlier parts that come again: a share of this part's number, drawn anew each epoch."""
        parts = self.train.parts
        assert parts is not None
        earlier = np.flatnonzero(parts < stage)
        count = min(len(earlier), round(self.recipe.mixing.replay * int((parts == stage).sum())))
        return np.random.default_rng([self.recipe.seed, stage, epoch, 1]).permutation(earlier)[:count]
