"""What determines the trained weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixing:
    """How the parts of the data come.

    Args:
        parts: their names, in the order of the project file; fewer than two where the data is one.
        order: `mixed`, or `sequence` for one after the other.
        temperature: of sampling where they are mixed; 1 takes each by its size, large values all alike.
        replay: in a sequence, rows of earlier parts as a share of a part's own.
    """

    parts: tuple[str, ...] = ()
    order: str = "mixed"
    temperature: float = 1.0
    replay: float = 0.0


@dataclass(frozen=True)
class Phase:
    """A part of training in which the same layers are frozen.

    Args:
        begins: the progress (0…1) at which it begins; the first begins at 0.
        frozen: how many of the first layers, and with them the embeddings, are not trained; 0 trains all.
        rate: a factor on the rate of the schedule.
    """

    begins: float
    frozen: int
    rate: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What determines the trained weights, besides the data, the task and the recorded decisions."""

    epochs: int
    rows_per_update: int
    rate: float  # peak learning rate
    weight_decay: float = 0.01
    layer_decay: float = 1.0  # a layer's rate over that of the one above it
    head_rate: float = 1.0  # the head's rate over that of the last layer
    phases: tuple[Phase, ...] = ()  # of gradual unfreezing; none: what is trained stays the same
    thaw: float = 0.02  # share of progress in which the rate of newly freed layers rises
    ema: float = 0.0  # decay of the average of the weights that is validated and kept; 0: the weights themselves
    warmup: float = 0.1  # share of progress
    decay: str = "linear"  # a name in schedule.DECAYS
    clip_norm: float = 1.0
    seed: int = 0
    patience: int = 10  # validations without gain before a short decay ends the run
    min_gain: float = 0.0  # of the watched metric
    gain_worth: str = "none"  # what a point must be worth its cost by, as it was stated
    ending_share: float = 0.1  # that short decay, as a share of the steps done
    watch: str = "loss"  # the validation figure that chooses the best checkpoint
    higher_is_better: bool = False
    validations_per_epoch: int | None = None  # None: as often as the probe says that it costs little
    mixing: Mixing = Mixing()
