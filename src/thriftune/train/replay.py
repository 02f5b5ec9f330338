"""Replay: train again from a run's recorded decisions, with nobody watching the clock.

What a governed, killed and resumed run ended with must be what its record says: the recipe and the decisions alone
give the same weights. That is the test of the journal, and a way to have a lost model again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from thriftune.budget.decisions import Decisions
from thriftune.budget.record import Record
from thriftune.errors import BadInput
from thriftune.events import Event, EventLog
from thriftune.models.prefix import Prefix
from thriftune.train.costs import Costs
from thriftune.train.loop import Loop
from thriftune.train.machine import choose_machine
from thriftune.train.options import TrainOptions
from thriftune.train.prefix_cache import FOLDER, Needs, open_or_build_all
from thriftune.train.supervision import Outcome, Supervision
from thriftune.train.train import Work


def replay(
    work: Work,
    model: torch.nn.Module,
    options: TrainOptions,
    recorded: Iterable[Event],
    events: EventLog,
    checkpoints: Path,
) -> Outcome:
    """Train `model` from its first step as the recorded decisions say; neither metered nor governed.

    Args:
        work: what was trained.
        model: the fresh model; it ends with the tuned weights.
        options: training's part of the project file.
        recorded: the attempt's events.
        events: where the replay's own steps are written; never the attempt's log.
        checkpoints: an empty folder.

    Raises:
        BadInput: the attempt's record lacks a decision, since its training never began.
    """
    decisions = Decisions(events, recorded)

    def read(what: str, choose: Callable[[], tuple[Any, str]]) -> Any:
        chosen = decisions.recorded(what)
        if chosen is None:
            raise BadInput(
                "there is nothing to replay",
                where=f"the events of {events.project}",
                found=f"no decision on {what}",
                expected="the record of an attempt that has trained",
                way_out="let `thriftune run` get as far as training first",
            )
        return chosen

    machine = choose_machine(read, work.hidden_size, options, Record.load())
    watch = Supervision(
        decisions, events, meter=None, governor=None, checkpoints=checkpoints, checkpoint_seconds=math.inf
    )
    depths = decisions.recorded("prefix_cache") or []
    loop = Loop(work.task, model, work.train, work.validation, work.recipe, machine, watch)
    if depths:
        wanted = {depth: Needs(work.task, work.train, machine, depth) for depth in depths}
        prefix, root = Prefix(model, max(depths)), checkpoints.parent / FOLDER
        loop.kept = open_or_build_all(root, model, prefix, wanted, 0.0, math.inf, watch.unit)
    unmeasured = Costs(
        seconds_per_token=math.inf, validation=0.0, checkpoint=0.0, peak_bytes=0.0
    )  # bounds that nobody reserves
    return loop.run(read("validate_every", lambda: ("", "")), unmeasured)
