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
from thriftune.train.batches import plan_epoch, updates_per_epoch
from thriftune.train.recipe import Recipe


@dataclass(frozen=True)
class Phase:
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
    phases: tuple[Phase, ...] = field(init=False)
    _epoch: tuple[tuple[int, int], list[NDArray[np.int64]]] = field(init=False, default=((-1, -1), []))

    def __post_init__(self) -> None:
        sizes = [len(self._rows(phase, 0)) for phase in range(self._count)]
        per_epoch = [updates_per_epoch(size, self.recipe.rows_per_update) for size in sizes]
        bounds = [float(bound) for bound in np.cumsum([0, *per_epoch]) / sum(per_epoch)]
        names = self.recipe.mixing.parts if self._count > 1 else ("",)
        self.phases = tuple(
            Phase(name, start, end, updates, updates * self.epochs)
            for name, start, end, updates in zip(names, bounds, bounds[1:], per_epoch, strict=False)
        )

    @property
    def epochs(self) -> int:
        """Passes over each phase's rows."""
        return self.recipe.epochs

    @property
    def full_steps(self) -> int:
        """The updates of all phases."""
        return sum(phase.updates for phase in self.phases)

    @property
    def epoch_updates(self) -> int:
        """The updates of one pass over every phase's rows."""
        return sum(phase.epoch_updates for phase in self.phases)

    @property
    def _count(self) -> int:
        sequence = self.recipe.mixing.order == "sequence"
        return max(1, len(self.recipe.mixing.parts)) if sequence else 1

    def rows(self, phase: int, index: int) -> NDArray[np.int64]:
        """The row ids of an update: the `index`-th of a phase; past the phase's end, of the phase that follows."""
        while index >= self.phases[phase].updates and phase + 1 < len(self.phases):
            index, phase = index - self.phases[phase].updates, phase + 1
        epoch, place = divmod(index, self.phases[phase].epoch_updates)
        if self._epoch[0] != (phase, epoch):
            self._epoch = ((phase, epoch), self._updates(phase, epoch))
        return self._epoch[1][place]

    def epochs_done(self, phase: int, index: int) -> float:
        """Passes that lie behind after `index` updates of a phase, those of earlier phases included."""
        return phase * self.epochs + index / self.phases[phase].epoch_updates

    def first_epochs(self) -> Iterator[int]:
        """The places, in the whole run, of the updates of each phase's first epoch."""
        before = 0
        for phase in self.phases:
            yield from range(before, before + phase.epoch_updates)
            before += phase.updates

    def mean_tokens(self) -> float:
        """Padded tokens of an average update, by the first epochs."""
        updates = [rows for phase in range(len(self.phases)) for rows in self._updates(phase, 0)]
        return padded_tokens(self.train.lengths, updates) / len(updates)

    def _updates(self, phase: int, epoch: int) -> list[NDArray[np.int64]]:
        rows = self._rows(phase, epoch)
        number = phase * self.epochs + epoch
        plan = plan_epoch(self.train.lengths[rows], self.recipe.rows_per_update, self.recipe.seed, number)
        return [rows[places] for places in plan]

    def _rows(self, phase: int, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch, before they are shuffled."""
        mixing, parts = self.recipe.mixing, self.train.parts
        if parts is None or len(mixing.parts) < 2:
            return np.arange(len(self.train))
        if mixing.order == "sequence":
            return np.concatenate([np.flatnonzero(parts == phase), self._replayed(phase, epoch)])
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

    def _replayed(self, phase: int, epoch: int) -> NDArray[np.int64]:
        """Rows of earlier parts that come again: a share of this part's number, drawn anew each epoch."""
        parts = self.train.parts
        assert parts is not None
        earlier = np.flatnonzero(parts < phase)
        count = min(len(earlier), round(self.recipe.mixing.replay * int((parts == phase).sum())))
        return np.random.default_rng([self.recipe.seed, phase, epoch, 1]).permutation(earlier)[:count]
