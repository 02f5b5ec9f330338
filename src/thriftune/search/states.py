"""The frozen prefix's states, shared by all folds and trials of a search that freeze as much of the same model.

What the frozen first layers answer for a row depends on neither the fold nor the rate, so that one pass over all rows
of the search serves every training; see `train/prefix_cache.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from thriftune.events import Recorder
from thriftune.models.prefix import NotPassable, Prefix
from thriftune.tasks.base import SOURCE_ROW, Encoded
from thriftune.train.costs import Costs
from thriftune.train.loop import Loop
from thriftune.train.prefix_cache import FOLDER, Needs, PrefixCache, Unit, open_or_build_all, states_bytes
from thriftune.train.probe import same_loss


@dataclass
class SharedStates:
    """The states of all rows of a search.

    Args:
        root: the project's state folder.
        most_bytes: what kept states may take on the disk.
        costs: of the parts of training, by the probe.
        unit: reserves and meters the pass over the rows.
        events: where it is told.
    """

    root: Path
    most_bytes: float
    costs: Costs
    unit: Unit
    events: Recorder
    _unfit: set[str] = field(default_factory=set, init=False)

    def give(self, loop: Loop, everyone: Callable[[], Encoded], rows: NDArray[np.int64]) -> None:
        """Let a trial's loop take the states of its frozen layers, where they can be kept.

        Args:
            loop: not yet begun.
            everyone: encodes all rows of the search as the trial's task does.
            rows: (rows of the fold,) which of them the loop trains on, in its order.

        Raises:
            OutOfBudget: money or time do not hold the pass.
        """
        depths = sorted({phase.frozen for phase in loop.unfreezing.phases if phase.frozen}, reverse=True)
        if not depths or SOURCE_ROW in loop.train.facts or loop.train.packed:
            return
        encoded = everyone()
        wanted = {depth: Needs(loop.task, encoded, loop.machine, depth) for depth in depths}
        keys = {needs.key for needs in wanted.values()}
        if keys & self._unfit:
            return
        folder = self.root / FOLDER
        reused = all((folder / key).exists() for key in keys)
        try:
            width: int = cast("Any", loop.model).config.hidden_size
            if sum(states_bytes(needs, width) for needs in wanted.values()) > self.most_bytes:
                raise NotPassable("the states would not fit into train.prefix_cache_gb")
            prefix = Prefix(loop.model, max(depths))
            rate = self.costs.seconds_per_token
            kept = open_or_build_all(folder, loop.model, prefix, wanted, rate, self.most_bytes, self.unit)
            found = {depth: _of_rows(cache, rows) for depth, cache in kept.items()}
            if not same_loss(loop, found[max(depths)], loop.rows_of(0)):
                prefix.release()
                raise NotPassable("the loss is another one when the layers are passed by")
        except NotPassable as refusal:
            self._unfit |= keys
            self.events.emit("warning", where="search", what=f"the frozen layers run at every step: {refusal}")
            return
        loop.kept = found
        self.events.emit("search.states", depths=depths, rows=len(encoded), reused=reused)


def _of_rows(cache: PrefixCache, rows: NDArray[np.int64]) -> PrefixCache:
    """The same states by the numbers that a fold's rows have in it."""
    return PrefixCache(cache.prefix, lambda row: cache.states_of(int(rows[row])), cache.depth)
