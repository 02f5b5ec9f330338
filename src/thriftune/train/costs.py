"""What the parts of training take on this machine, and how much more is reserved for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

VALIDATION_SHARE = 0.05  # of the training time, at most, goes into validating
UPPER_FACTOR = 1.5  # a block's upper bound over the slowest recent step
UPPER_FLOOR = 0.25  # seconds that a block may take beyond it on an idle machine


@dataclass(frozen=True)
class PrefixCosts:
    """What the frozen prefix's cache takes and gives here.

    Args:
        depth: how many layers are passed by, in the first phase where there are several.
        seconds_per_token: to compute a token's states, once.
        update_seconds_per_token: an update's seconds with the states given, per padded token.
        bytes_per_token: that the states take on the disk, of one depth.
    """

    depth: int
    seconds_per_token: float
    update_seconds_per_token: float
    bytes_per_token: int


@dataclass(frozen=True)
class PhaseCosts:
    """What an update takes in a phase of gradual unfreezing, in seconds per padded token.

    Args:
        depth: how many layers can be passed by.
        computed: with the frozen layers run.
        kept: with their states given; None where they cannot be.
    """

    depth: int
    computed: float
    kept: float | None = None


@dataclass(frozen=True)
class Costs:
    """What the parts of training take here, from the probe.

    Args:
        seconds_per_token: an update's seconds, per padded token.
        validation: seconds of one pass over the validation split.
        checkpoint: seconds to write one.
        peak_bytes: the most of this process that will be in memory while it trains.
        prefix: of the frozen first layers, where there are any that can be passed by.
        phases: of each phase of the recipe; none where it has none.
        seconds_per_byte: of a durable write.
    """

    seconds_per_token: float
    validation: float
    checkpoint: float
    peak_bytes: float
    prefix: PrefixCosts | None = None
    phases: tuple[PhaseCosts, ...] = ()
    seconds_per_byte: float = 0.0

    def by_phase(self, depths: Collection[int] = ()) -> list[float]:
        """Seconds per padded token of an update, a phase after the other, with the states of these depths kept."""
        return [
            costs.kept if costs.depth in depths and costs.kept is not None else costs.computed
            for costs in self.phases or (self._only_phase,)
        ]

    @property
    def _only_phase(self) -> PhaseCosts:
        if self.prefix is None:
            return PhaseCosts(0, self.seconds_per_token)
        return PhaseCosts(self.prefix.depth, self.seconds_per_token, self.prefix.update_seconds_per_token)

    @property
    def depths(self) -> list[int]:
        """The depths whose states can be kept, the deepest first."""
        found = {costs.depth for costs in self.phases or (self._only_phase,) if costs.kept is not None}
        return sorted(found, reverse=True)

    @property
    def validation_upper(self) -> float:
        """The upper bound to reserve for a validation, seconds."""
        return UPPER_FACTOR * self.validation + UPPER_FLOOR

    @property
    def checkpoint_upper(self) -> float:
        """The upper bound to reserve for a checkpoint, seconds."""
        return UPPER_FACTOR * self.checkpoint + UPPER_FLOOR
