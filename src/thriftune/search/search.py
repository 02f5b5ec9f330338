"""The search stage: options with nothing left to choose, found by cross-validation under one cap."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from thriftune.artifacts import Artifact, recipe_key
from thriftune.budget.decisions import Decisions
from thriftune.context import Context
from thriftune.errors import BadInput
from thriftune.events import Event
from thriftune.search.curves import Look
from thriftune.search.folds import folds_of
from thriftune.search.options import SearchOptions, allowance, train_options
from thriftune.search.policies import Policy, Standing
from thriftune.search.sampled import policy_of
from thriftune.search.space import Space, make_space, product_of
from thriftune.search.trials import OutOfMoney, Trials, paid_looks
from thriftune.tasks.kinds import kind_of
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.options import TrainOptions
from thriftune.train.probe import probe_costs
from thriftune.train.supervision import Supervision
from thriftune.train.train import Work

STAGE_VERSION = 1
RESULT_FILE = "search.json"
PROBE_SECONDS = 1.0  # of steps past the first two: trials measure on

WorkOf = Callable[[str, TrainOptions, pl.DataFrame, pl.DataFrame], Work]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        values: the winner's, by option.
        configurations: each that was looked at: values, expected score at its end with its standard deviation, looks
            and seconds.
        seconds: of all looks.
        because: why it ended.
    """

    values: Mapping[str, Any]
    configurations: Sequence[Mapping[str, Any]]
    seconds: float
    because: str


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
    """

    options: SearchOptions
    train: TrainOptions
    reference: str
    task: str
    rows: pl.DataFrame
    data_hash: str
    work_of: WorkOf
    choose_machine: Callable[[int], Machine]

    def key(self, seed: int) -> str:
        """The recipe key; money and time, by which a search may end sooner, are no part of it."""
        recipe = {
            "search": self.options.model_dump(mode="json"),
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
        worth_per_score: money for a whole 1 of the score; None where it is not stated.
        decisions: the attempt's journal.
        earlier: the attempt's events so far.
        interrupted: whether the user has asked to stop.
    """

    room: float
    worth_per_score: float | None
    decisions: Decisions
    earlier: Sequence[Event]
    interrupted: Callable[[], bool]


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
    candidates = [_checked(sought.train, values) for values in product_of(sought.options.space, context.seed)]
    held_out = folds_of(sought.rows, sought.options.folds, kind_of(sought.task).classes, context.seed)

    def work_of(number: int, fold: int) -> Work:
        values, options = candidates[number]
        rest, held = sought.rows.filter(held_out != fold), sought.rows.filter(held_out == fold)
        return sought.work_of(values.get("model", sought.reference), options, rest, held)

    with context.meter.unit("training", "search: the first configuration is read", means.room):
        first = sought.work_of(
            sought.reference, sought.train, sought.rows.filter(held_out != 0), sought.rows.filter(held_out == 0)
        )
        sizes = [_size(sought, options, first, values) for values, options in candidates]
    own = {name: _own(sought.train, name, first, sought.reference) for name in sought.options.space}
    space = make_space([values for values, _ in candidates], [cost for cost, _ in sizes], own, [s for _, s in sizes])
    machine = sought.choose_machine(first.hidden_size)
    with context.meter.unit("training", "search: real steps are probed", means.room):
        watch = Supervision(means.decisions, context.events, None, None, scratch / "probe")
        loop = Loop(first.task, first.task.build(), first.train, first.validation, first.recipe, machine, watch)
        costs = probe_costs(loop, PROBE_SECONDS, context.root)
        del loop
    trials = Trials(
        space, work_of, machine, costs, context.meter, context.events, means.earlier, scratch, means.interrupted
    )
    full = costs.seconds_per_token * first.mean_step_tokens * first.full_steps * len(sought.rows) / len(first.train)
    seconds = means.decisions.take("search_allowance", lambda: _allowance(sought.options, means.room, full))
    chosen = sought.options
    policy = policy_of(chosen.sampler, chosen.pruner, space, chosen.folds, context.seed)
    return _looks(sought, means, context, space, policy, trials, seconds)


def _looks(
    sought: Sought,
    means: Means,
    context: Context,
    space: Space,
    policy: Policy,
    trials: Trials,
    allowed: float,
) -> Found:
    """Look after look, until what is allowed is used up or nothing is worth its price any more."""
    paid = paid_looks(means.earlier, space)
    looks, spent = [look for look, _ in paid], [seconds for _, seconds in paid]
    price = float(context.meter.price_per_hour) / 3600
    rate = trials.costs.seconds_per_token  # of a unit of the space's costs, tokens; then what looks really took
    while True:
        left = allowed - math.fsum(spent)
        proposal = policy.propose(looks, left / rate)
        if proposal is None:
            because = f"what is left of its {allowed:.0f} s holds no training"
            break
        least = sought.options.least_gain
        if means.worth_per_score:
            least = rate * proposal.cost * price / means.worth_per_score
        if proposal.gain < least:
            because = f"the best next look promises {100 * proposal.gain:.3f} points, less than {100 * least:.3f}"
            break
        began = time.monotonic()
        try:
            score = trials.look(proposal)
        except OutOfMoney:
            because = "the budget or the deadline held no more of it"
            break
        taken = time.monotonic() - began
        one = space.configurations[proposal.configuration]
        looks.append(Look(proposal.configuration, proposal.fold, proposal.rung, score, one.rung_cost))
        spent.append(taken)
        rate = math.fsum(spent) / math.fsum(look.cost for look in looks)
        standing = policy.standing(looks)
        context.events.emit(
            "search.look",
            configuration=proposal.configuration,
            values=dict(one.values),
            fold=proposal.fold,
            rung=proposal.rung,
            rungs=one.rungs,
            score=score,
            seconds=taken,
            best=dict(space.configurations[standing.winner].values),
            expected=float(standing.mean[standing.winner]),
            deviation=_known(standing.deviation[standing.winner]),
        )
        if proposal.rung == one.rungs:
            trials.drop(proposal.configuration, proposal.fold)
        _keep_within(trials, standing, sought.options.disk_gb * 1e9)
    return _found(space, policy, looks, spent, because)


def _found(space: Space, policy: Policy, looks: Sequence[Look], spent: Sequence[float], because: str) -> Found:
    if not looks:
        return Found({}, [], 0.0, because)
    standing = policy.standing(looks)
    rows: list[dict[str, Any]] = []
    for number in dict.fromkeys(look.configuration for look in looks):
        own = [place for place, look in enumerate(looks) if look.configuration == number]
        rows.append(
            {
                "values": dict(space.configurations[number].values),
                "expected": float(standing.mean[number]),
                "deviation": _known(standing.deviation[number]),
                "looks": len(own),
                "seconds": math.fsum(spent[place] for place in own),
                "ended": max(looks[place].rung for place in own) == space.configurations[number].rungs,
            }
        )
    rows.sort(key=lambda row: -row["expected"])
    return Found(dict(space.configurations[standing.winner].values), rows, math.fsum(spent), because)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _keep_within(trials: Trials, standing: Standing, most_bytes: float) -> None:
    """Drop the paused trials that promise least until the rest is within the bound."""
    held = trials.bytes_by_trial()
    for trial in sorted(held, key=lambda trial: standing.mean[trial[0]]):
        if sum(held.values()) <= most_bytes:
            return
        trials.drop(*trial)
        held.pop(trial)


def _checked(options: TrainOptions, values: dict[str, Any]) -> tuple[dict[str, Any], TrainOptions]:
    try:
        return values, train_options(options, values)
    except ValidationError as refusal:
        said = ", ".join(f"{name} {value}" for name, value in values.items())
        raise BadInput(
            "a configuration of the search cannot be trained",
            where="search.space",
            found=said,
            expected=refusal.errors()[0]["msg"],
            way_out="leave a value out of the space, or change train",
        ) from refusal


def _size(sought: Sought, options: TrainOptions, first: Work, values: Mapping[str, Any]) -> tuple[float, int]:
    """Tokens that a configuration's training takes on a fold, counted as if none of the model were frozen, and its
    updates. A frozen layer is run but not trained, which is a third of its work."""
    rows, task = len(first.train), sought.task
    epochs = options.epochs_for(task, rows)
    frozen = min(1.0, options.freeze_layers / max(1, first.layers))
    share = 1.0 - frozen * 2 / 3
    return first.train_tokens * epochs * share, epochs * -(-rows // options.batch_rows_for(task))


def _own(options: TrainOptions, name: str, first: Work, reference: str) -> Any:
    """What an option is without a search."""
    resolved = {
        "model": reference,
        "learning_rate": first.recipe.rate,
        "batch_rows": first.recipe.rows_per_update,
        "epochs": first.recipe.epochs,
        "schedule": first.recipe.decay,
        "lora.rank": options.lora.rank,
    }
    return resolved[name] if name in resolved else getattr(options, name)


def _allowance(options: SearchOptions, room: float, full: float) -> tuple[float, str]:
    seconds = allowance(options, room, full)
    because = f"{options.share:.0%} of {room:.0f} s, and at most {options.runs:g} whole trainings of {full:.0f} s"
    return seconds, because
