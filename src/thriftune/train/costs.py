"""What the parts of training take on this machine, and how much more is reserved for them."""

from __future__ import annotations

from dataclasses import dataclass

UPPER_FACTOR = 1.5  # a block's upper bound over the slowest recent step
UPPER_FLOOR = 0.25  # seconds that a block may take beyond it on an idle machine


@dataclass(frozen=True)
class PrefixCosts:
    """What the frozen prefix's cache takes and gives here.

    Args:
        depth: how many layers are passed by.
        seconds_per_token: to compute a token's states, once.
        update_seconds_per_token: an update's seconds with the states given, per padded token.
        bytes_per_token: that the states take on the disk.
    """

    depth: int
    seconds_per_token: float
    update_seconds_per_token: float
    bytes_per_token: int


@dataclass(frozen=True)
class Costs:
    """What the parts of training take here, from the probe.

    Args:
        seconds_per_token: an update's seconds, per padded token.
        validation: seconds of one pass over the validation split.
        checkpoint: seconds to write one.
        peak_bytes: the most of this process that will be in memory while it trains.
        prefix: of the frozen first layers, where there are any that can be passed by.
    """

    seconds_per_token: float
    validation: float
    checkpoint: float
    peak_bytes: float
    prefix: PrefixCosts | None = None

    @property
    def validation_upper(self) -> float:
        """The upper bound to reserve for a validation, seconds."""
        return UPPER_FACTOR * self.validation + UPPER_FLOOR

    @property
    def checkpoint_upper(self) -> float:
        """The upper bound to reserve for a checkpoint, seconds."""
        return UPPER_FACTOR * self.checkpoint + UPPER_FLOOR
