"""Search's part of the project file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from thriftune.cluster.options import ClusterOptions
from thriftune.options import Options
from thriftune.train.options import TrainOptions

SamplerName = Literal["curves", "grid", "random", "tpe", "gp", "genetic", "cma"]
PrunerName = Literal["none", "median", "halving", "hyperband"]
SEARCHED = (
    "learning_rate",
    "batch_rows",
    "epochs",
    "schedule",
    "warmup",
    "weight_decay",
    "layer_decay",
    "head_rate",
    "dropout",
    "label_smoothing",
    "class_weights",
    "freeze_layers",
    "unfreeze",
    "method",
    "lora.rank",
)
"""Options of `train` that can be searched over, besides `model`."""

ALLOWANCE = "search_allowance"  # the decision that tells how many seconds all looks together may take
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)


class Range(Options):
    """Numbers from `low` to `high`, evenly spaced by their logarithms."""

    low: float = Field(gt=0, description="The least value")
    high: float = Field(gt=0, description="The largest value")
    levels: int = Field(default=5, ge=2, le=64, description="How many values from low to high, both included")

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"a low below the high (found {self.low:g} and {self.high:g})")
        return self

    def values(self) -> tuple[float, ...]:
        """The values, the least first."""
        step = math.log(self.high / self.low) / (self.levels - 1)
        inner = (self.low * math.exp(step * number) for number in range(1, self.levels - 1))
        return (self.low, *(float(f"{value:.3g}") for value in inner), self.high)


def _values(given: Any) -> Any:
    """A list of values, or a range of numbers."""
    if isinstance(given, dict):
        return Range.model_validate(given).values()
    if isinstance(given, list | tuple) and given:
        return tuple(given)
    raise ValueError("a list of values, or low, high and levels")


Values = Annotated[tuple[Any, ...], BeforeValidator(_values)]


class SearchOptions(Options):
    """What is searched over, how, and what it may cost at most.

    The methodology's grid is the default: rates from 1e-5 to 1e-3, 16 to 128 rows an update, 3 to 10 passes.
    """

    space: dict[str, Values] = Field(
        default={"learning_rate": RATES, "batch_rows": (16, 32, 64, 128), "epochs": (3, 6, 10)},
        min_length=1,
        description="Options of train, or model, each with its values: a list, or low, high and levels",
    )
    sampler: SamplerName = Field(
        default="curves",
        description="A model of all learning curves finds the look that is worth most for its price",
    )
    pruner: PrunerName = Field(
        default="hyperband",
        description="What ends an Optuna sampler's trainings on the way; curves leaves and takes up as it sees fit",
    )
    folds: int = Field(default=3, ge=2, le=20, description="Folds of the training rows, used only as far as they tell")
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that train side by side, for sampler: curves: on this machine, sharing its threads, or"
        " each on a node of compute.cluster",
    )
    repeats: int = Field(
        default=1, ge=1, le=20, description="Times that the rows are cut into folds anew: repeats × folds to train on"
    )
    nested: int = Field(
        default=0,
        ge=0,
        le=20,
        description="Outer folds, 2 at the least, on each of which the whole search is repeated without the rows held"
        " out, to measure what searching gives; each has as much of the allowance as the search itself. 0 for none",
    )
    cheapest_within: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="The cheapest to serve within so many standard errors of the best expected score wins; 0 for the"
        " best score",
    )
    share: float = Field(
        default=0.5, gt=0, lt=1, description="Of the time that training has, search may take this much at most"
    )
    runs: float = Field(
        default=10.0, gt=0, le=10_000, description="… and at most as much as so many whole trainings as they come"
    )
    least_gain: float = Field(
        default=0.0005,
        ge=0,
        le=1,
        description="It stops when the best next look promises less than this, 0.05 points; where objective.worth is"
        " stated, when that promise is worth less than the look costs",
    )
    disk_gb: float = Field(default=4.0, ge=0, le=100_000, description="GB of the disk for trainings that are paused")

    @model_validator(mode="after")
    def _side_by_side(self) -> Self:
        if self.workers > 1 and self.sampler != "curves":
            raise ValueError(f"sampler: curves where there are several workers (found {self.sampler})")
        return self

    @model_validator(mode="after")
    def _outer(self) -> Self:
        if self.nested == 1:
            raise ValueError("in nested 0, or 2 outer folds and more (found 1)")
        return self

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = [name for name in self.space if name not in (*SEARCHED, "model")]
        if unknown:
            raise ValueError(f"in space some of model, {', '.join(SEARCHED)} (found {unknown[0]})")
        return self

    @field_validator("space")
    @classmethod
    def _read(cls, space: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        """Each value as training's options read it: a number that is written as text is a number."""
        return {
            name: tuple(as_read(name, value) for value in values) if name in (*SEARCHED, "model") else values
            for name, values in space.items()
        }


def train_options(options: TrainOptions, values: Mapping[str, Any]) -> TrainOptions:
    """Training's options with those of a configuration in their places.

    Raises:
        ValidationError: they do not go together.
    """
    whole: dict[str, Any] = options.model_dump(exclude_unset=True)
    for name, value in values.items():
        if name == "model":
            continue
        *above, last = name.split(".")
        place = whole
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return TrainOptions.model_validate(whole)


@dataclass(frozen=True)
class Nodes:
    """What a search's workers on nodes are paid from.

    Args:
        cluster: its options.
        money: that is left for search and training together.
        price_per_hour: of this machine, which is paid for meanwhile too.
    """

    cluster: ClusterOptions
    money: Decimal
    price_per_hour: Decimal

    def cost(self, options: SearchOptions, seconds: float) -> Decimal:
        """The most that the nodes cost in a search of so many seconds, and until they have gone."""
        return self.cluster.seconds_cost(options.workers, seconds + self.cluster.idle)

    def seconds(self, options: SearchOptions) -> float:
        """For how long the search's share of the money pays for this machine and all nodes."""
        a_second = self.price_per_hour / 3600 + self.cluster.seconds_cost(options.workers, 1.0)
        if not a_second:
            return math.inf
        return float((Decimal(options.share) * self.money - self.cost(options, 0.0)) / a_second)


def allowance(options: SearchOptions, room: float, full: float, nodes: Nodes | None = None) -> float:
    """Seconds that a search may take.

    Args:
        room: seconds that are left for search and training together.
        full: of a whole training with the options as they come.
        nodes: what its workers are paid from, where they are on nodes.
    """
    by_money = math.inf if nodes is None else nodes.seconds(options)
    return max(0.0, min(options.share * room, options.runs * full, by_money))


def as_read(name: str, value: Any) -> Any:
    """A value of an option as training reads it.

    Raises:
        ValueError: training may not have it.
    """
    if name == "model":
        if not isinstance(value, str):
            raise ValueError(f"in space.model references to models (found {value!r})")
        return value
    try:
        found: Any = train_options(TrainOptions(), {name: value})
    except ValidationError as refusal:
        raise ValueError(f"in space.{name} values that train.{name} may have (found {value!r})") from refusal
    for part in name.split("."):
        found = getattr(found, part)
    return found
