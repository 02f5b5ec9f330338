"""The search stage: options with nothing left to choose, found by cross-validation under one cap."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from thriftune.artifacts import Artifact
from thriftune.context import Context
from thriftune.search.folds import folds_of
from thriftune.search.options import ALLOWANCE, Nodes, allowance
from thriftune.search.study import Study, look_alone
from thriftune.search.together import look_together
from thriftune.search.trials import Failed, OutOfMoney, Trials, probed
from thriftune.search.types import Found, Means, Sought
from thriftune.tasks.kinds import kind_of
from thriftune.train.costs import Costs
from thriftune.train.machine import Machine

RESULT_FILE = "search.json"


def found_in(artifact: Artifact) -> Found:
    """The result that an artifact holds."""
    return Found(**json.loads((artifact.folder / RESULT_FILE).read_text()))


def run(sought: Sought, means: Means, context: Context) -> tuple[Found, bool]:
    """Search, or take what this recipe found before; and whether it was found before."""
    key = sought.key(context.seed)

    def write(folder: Path) -> None:
        scratch = context.root / "search" / f"{context.attempt}-{key[:16]}"
        found = _search(sought, means, context, scratch)
        (folder / RESULT_FILE).write_text(json.dumps(asdict(found), indent=1))
        shutil.rmtree(scratch, ignore_errors=True)

    artifact = context.artifacts.build("search", key, {"space": dict(sought.options.space)}, write)
    found = found_in(artifact)
    context.events.emit("search.finished", **asdict(found))
    return found, artifact.reused


def _search(sought: Sought, means: Means, context: Context, scratch: Path) -> Found:
    study = Study(sought, means, context, sought.rows)
    first = study.first
    machine = sought.choose_machine(first.hidden_size)
    with context.meter.unit("training", "search: real steps are probed", means.room):
        costs = probed(first, machine, means.decisions, context.events, scratch / "probe", context.root)
    full = costs.seconds_per_token * first.mean_step_tokens * first.full_steps * len(sought.rows) / len(first.train)
    means.decisions.take(ALLOWANCE, lambda: _allowance(sought, means, context.meter.price_per_hour, full))
    found = study.go_on(machine, costs, scratch / "trials", _looking(sought, means, context))
    if not found.values or not sought.options.nested:
        return found
    return replace(found, nested=_nested(sought, means, context, machine, costs, scratch))


def _looking(sought: Sought, means: Means, context: Context) -> Callable[[Study, Trials], str]:
    if sought.options.workers > 1 or sought.nodes is not None:
        return partial(look_together, sought, means, context)
    return look_alone


def _nested(
    sought: Sought, means: Means, context: Context, machine: Machine, costs: Costs, scratch: Path
) -> list[Mapping[str, Any]]:
    """The whole search again without each of the outer folds, and what its winner gives on the rows held out.

    Source: nested cross-validation, Varma and Simon, "Bias in error estimation when using cross-validation for model
    selection", 2006.
    """
    done = {event.data["outer"]: event.data for event in means.earlier if event.kind == "search.nested"}
    by_class = kind_of(sought.task).classes
    held_out = folds_of(sought.rows, sought.options.nested, by_class, context.seed)
    scores: list[Mapping[str, Any]] = []
    for outer in range(sought.options.nested):
        if outer not in done:
            began = time.monotonic()
            name, folder = f"outer{outer}.", scratch / f"outer{outer}"
            study = Study(sought, means, context, sought.rows.filter(held_out != outer), name)
            found = study.go_on(machine, costs, folder / "trials", _looking(sought, means, context))
            try:
                score = study.judged(
                    found.values, sought.rows.filter(held_out == outer), machine, costs, folder / "judged"
                )
            except (OutOfMoney, Failed):
                return scores
            done[outer] = {
                "outer": outer,
                "values": found.values,
                "score": score,
                "seconds": time.monotonic() - began,
            }
            context.events.emit("search.nested", **done[outer])
        scores.append(done[outer])
    return scores


def _allowance(sought: Sought, means: Means, price_per_hour: Decimal, full: float) -> tuple[float, str]:
    options, room = sought.options, means.room
    nodes = None if sought.nodes is None else Nodes(sought.nodes, means.money, price_per_hour)
    because = f"{options.share:.0%} of {room:.0f} s, and at most {options.runs:g} whole trainings of {full:.0f} s"
    if nodes is not None:
        because += f"; {options.share:.0%} of the money pays for this machine and {options.workers} nodes for "
        because += f"{max(0.0, nodes.seconds(options)):.0f} s"
    return allowance(options, room, full, nodes), because
