"""What a search is given and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import polars as pl

from thriftune.artifacts import recipe_key
from thriftune.budget.decisions import Decisions
from thriftune.cluster.options import ClusterOptions
from thriftune.events import Event
from thriftune.search.options import SearchOptions
from thriftune.train.machine import Machine
from thriftune.train.options import TrainOptions
from thriftune.train.train import Work

STAGE_VERSION = 2

WorkOf = Callable[[str, TrainOptions, pl.DataFrame, pl.DataFrame], Work]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        values: the winner's, by option.
        configurations: each that was looked at: trial (its number), values, expected score at its end with its
            standard deviation, looks, seconds, whether a training was seen to its end, serving (parameters that a
            request runs through) and whether it is on the frontier of score against serving.
        seconds: of all looks.
        because: why it ended.
        chosen_because: why the winner is the winner.
        top: the values of the best expected score, which may not be the winner.
        saved_seconds: what seeing the trainings that were left to their end would have taken, estimated.
        importance: share of the differences in expected score that each option makes; empty where too little was tried.
        nested: of each outer fold: values, score on the rows held out from the whole search, and seconds.
    """

    values: Mapping[str, Any]
    configurations: Sequence[Mapping[str, Any]]
    seconds: float
    because: str
    chosen_because: str = ""
    top: Mapping[str, Any] = field(default_factory=dict)
    saved_seconds: float = 0.0
    importance: Mapping[str, float] = field(default_factory=dict)
    nested: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Sought:
    """What is searched, for whom and with what.

    Args:
        options: search's part of the project file.
        train: training's, which the configurations change.
        reference: the model, unless a configuration names another.
        task: a name in `tasks/kinds.py`.
        rows: the training rows.
        data_hash: content hash of the splits.
        work_of: makes the work of a model and options on rows to train on and rows held out.
        choose_machine: how to compute, given the model's width.
        serving_of: parameters that a request runs through, given the model's reference.
        nodes: the cluster on which its workers are; None for workers on this machine.
    """

    options: SearchOptions
    train: TrainOptions
    reference: str
    task: str
    rows: pl.DataFrame
    data_hash: str
    work_of: WorkOf
    choose_machine: Callable[[int], Machine]
    serving_of: Callable[[str], float]
    nodes: ClusterOptions | None = None

    def key(self, seed: int) -> str:
        """The recipe key; money, time and workers, by which a search may end sooner, are no part of it."""
        recipe = {
            "search": self.options.model_dump(mode="json", exclude={"workers"}),
            "train": self.train.model_dump(mode="json"),
            "model": self.reference,
            "seed": seed,
        }
        return recipe_key("search", STAGE_VERSION, {"splits": self.data_hash}, recipe, {})


@dataclass(frozen=True)
class Means:
    """What a search may use.

    Args:
        room: seconds that are left for search and training together.
        money: that is left for both.
        worth_per_score: money for a whole 1 of the score; None where it is not stated.
        decisions: the attempt's journal.
        earlier: the attempt's events so far.
        interrupted: whether the user has asked to stop.
    """

    room: float
    money: Decimal
    worth_per_score: float | None
    decisions: Decisions
    earlier: Sequence[Event]
    interrupted: Callable[[], bool]
