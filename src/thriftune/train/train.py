"""The training stage: splits in, a tuned model out, inside what is left of the money and the time."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import transformers

from thriftune.artifacts import Artifact, recipe_key
from thriftune.budget.decisions import Decisions
from thriftune.budget.forecast import Forecast
from thriftune.budget.governor import Governor, Overheads
from thriftune.context import Context
from thriftune.models.prefix import Prefix
from thriftune.models.reference import ModelFolder
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.batches import padded_tokens, sorted_batches
from thriftune.train.batchplan import BatchPlan
from thriftune.train.costs import VALIDATION_SHARE, Costs
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.options import TrainOptions
from thriftune.train.prefix_cache import FOLDER, Needs, PrefixCache, bytes_kept, open_or_build_all
from thriftune.train.ranks import ALONE, Ranks
from thriftune.train.recipe import Mixing, Phase, Recipe
from thriftune.train.stopping import Stopping
from thriftune.train.supervision import Outcome, Supervision
from thriftune.train.unfreezing import Unfreezing, mean_cost
from thriftune.train.validation_states import ValidationStates, validations_to_pay

STAGE_VERSION = 1
ABOUT_FILE = "thriftune-model.json"  # how the training ended, and what a server must know
MIN_STEPS = 10  # fewer make no model worth the name
PROBE_SPREAD = 0.15  # 95th percentile over the median of probed durations on a shared machine


@dataclass(frozen=True)
class TunedModel:
    """A tuned model's folder and how its training ended."""

    folder: Path
    content_hash: str
    outcome: Outcome


@dataclass(frozen=True)
class Work:
    """What is to be trained: a task, its encoded rows and the recipe.

    Args:
        data_hash: the content hash of the splits.
        hidden_size: the model's width, by which the machine is probed.
        layers: of the model.
    """

    task: Task
    train: Encoded
    validation: Encoded
    recipe: Recipe
    data_hash: str
    hidden_size: int
    layers: int

    @property
    def key(self) -> str:
        """The recipe key: money, time and what the machine chose are no part of it."""
        return recipe_key(
            "train",
            STAGE_VERSION,
            {"splits": self.data_hash},
            {"task": self.task.describe(), "recipe": asdict(self.recipe)},
            {"torch": torch.__version__, "transformers": transformers.__version__},
        )

    @cached_property
    def plan(self) -> BatchPlan:
        """Which rows make up each update."""
        return BatchPlan(self.train, self.recipe)

    @cached_property
    def mean_step_tokens(self) -> float:
        """Padded tokens of an average update, by the first epochs."""
        return self.plan.mean_tokens()

    @property
    def train_tokens(self) -> int:
        """Tokens of the training rows, once."""
        return int(self.train.offsets[-1])

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Of gradual unfreezing; one where nothing is freed on the way."""
        return self.recipe.phases or (Phase(0.0, 0),)

    @property
    def full_steps(self) -> int:
        """The updates of all epochs."""
        return self.plan.full_steps


def recipe_of(
    options: TrainOptions,
    task: Task,
    rows: int,
    seed: int,
    watch: str,
    model: ModelFolder,
    parts: tuple[str, ...] = (),
    phases: tuple[Phase, ...] = (),
    fresh_labels: int = 0,
) -> Recipe:
    """The options with every "auto" resolved for this task and data.

    Args:
        rows: training rows.
        watch: the validation figure that chooses the best checkpoint.
        model: what is tuned.
        parts: the names of the data's parts.
        phases: of gradual unfreezing.
        fresh_labels: of an encoder's head, where that is drawn at random.
    """
    return Recipe(
        epochs=options.epochs_for(task.name, rows),
        rows_per_update=options.batch_rows_for(task.name),
        rate=options.learning_rate_for(task.name, model),
        weight_decay=options.weight_decay,
        layer_decay=options.layer_decay,
        head_rate=options.head_rate_for(task.name, model, fresh_labels),
        phases=phases,
        ema=options.ema,
        warmup=options.warmup,
        decay=options.schedule,
        clip_norm=options.clip_norm,
        seed=seed,
        patience=options.patience,
        min_gain=options.min_gain,
        gain_worth=str(options.gain_worth),
        watch=watch,
        higher_is_better=watch not in {"loss", "perplexity"},
        validations_per_epoch=options.validations_per_epoch,
        mixing=Mixing(parts, options.order, options.mixing_temperature, options.replay) if parts else Mixing(),
    )


def validate_every(work: Work, costs: Costs) -> tuple[int, str]:
    """Steps between validations: as stated, or so that they cost at most `VALIDATION_SHARE` of the time; and why."""
    epoch = work.plan.epoch_updates
    if work.recipe.validations_per_epoch is not None:
        return math.ceil(epoch / work.recipe.validations_per_epoch), "stated in the project file"
    step = mean_cost(work.phases, costs.by_phase()) * work.mean_step_tokens
    every = max(math.ceil(costs.validation / (VALIDATION_SHARE * step)), 1)
    chosen = every if every >= epoch else max(every, math.ceil(epoch / 4))
    because = f"a validation takes {costs.validation:.2f} s, {costs.validation / step:.0f} steps' worth"
    return chosen, because


def overheads(work: Work, costs: Costs, every: int, options: TrainOptions) -> Overheads:
    """What training does besides its steps."""
    return Overheads(costs.validation, every, costs.checkpoint, options.checkpoint_seconds)


def estimate(work: Work, costs: Costs, every: int, steps: int, options: TrainOptions) -> Forecast:
    """Seconds of `steps` updates with their validations and checkpoints, from the probe; the frozen first layers kept
    where that is quicker."""
    beside = overheads(work, costs, every, options)
    ways = [way.first + steps * beside.step_seconds(way.step) for way in ways_to_train(work, costs, options)]
    return Forecast.lognormal(min(ways) + costs.validation, PROBE_SPREAD, "probe")


@dataclass(frozen=True)
class Way:
    """One way to compute the same updates.

    Args:
        kept: the depths at which the frozen first layers' states are kept.
        first: seconds before the first update.
        step: seconds an update, the mean of all phases.
    """

    kept: tuple[int, ...]
    first: float
    step: float


def ways_to_train(work: Work, costs: Costs, options: TrainOptions) -> list[Way]:
    """Without the prefix cache, and with it at one or more depths where there is room for the states.

    One pass computes the states of all depths, and takes what the deepest does: its time grows with its layers.
    """

    def step(kept: tuple[int, ...]) -> float:
        return mean_cost(work.phases, costs.by_phase(kept)) * work.mean_step_tokens

    ways = [Way((), 0.0, step(()))]
    if costs.prefix is None:
        return ways
    one_depth = work.train_tokens * costs.prefix.bytes_per_token
    for count in range(1, len(costs.depths) + 1):
        for kept in combinations(costs.depths, count):
            if count * one_depth <= options.prefix_cache_bytes:
                first = costs.prefix.seconds_per_token * work.train_tokens * max(kept) / costs.prefix.depth
                ways.append(Way(kept, first, step(kept)))
    return ways


def best_way(work: Work, costs: Costs, options: TrainOptions, governor: Governor) -> tuple[Way, int]:
    """The way that leads to most updates in what is left, or to all of them in least time; and how many."""
    ways = []
    for way in ways_to_train(work, costs, options):
        steps = min(governor.full_steps, governor.affordable(way.step, governor.free() - way.first))
        ways.append((-steps, way.first + steps * governor.overheads.step_seconds(way.step), way))
    steps, _, way = min(ways, key=lambda entry: entry[:2])
    return way, -steps


def minimum(work: Work, costs: Costs) -> Forecast:
    """Seconds of the shortest training that makes a model: `MIN_STEPS` updates and one validation."""
    seconds = MIN_STEPS * mean_cost(work.phases, costs.by_phase()) * work.mean_step_tokens + costs.validation
    return Forecast.lognormal(seconds, PROBE_SPREAD, "probe")


def governor_of(
    work: Work,
    costs: Costs,
    every: int | None,
    options: TrainOptions,
    remaining: Callable[[], float],
    tail_seconds: float,
    dead_band: float,
) -> Governor:
    """The governor of this work.

    Args:
        every: steps between validations; None for what `validate_every` would choose now.
        remaining: seconds left of the limit that binds first.
        tail_seconds: upper bound of what must still happen after training.
        dead_band: a plan stands while it is off by less than this share of the steps to go.
    """
    every = validate_every(work, costs)[0] if every is None else every
    stages = len(work.plan.stages)
    validations = 1 + (stages + 1 if stages > 1 else 0)  # the last, and in a sequence one before and after each stage
    return Governor(
        remaining=remaining,
        tail_seconds=tail_seconds + validations * costs.validation_upper,
        full_steps=work.full_steps,
        overheads=overheads(work, costs, every, options),
        dead_band=dead_band,
    )


def run(
    work: Work,
    model: torch.nn.Module,
    machine: Machine,
    costs: Costs,
    tail_seconds: float,
    decisions: Decisions,
    reached: int,
    options: TrainOptions,
    context: Context,
    interrupted: Callable[[], bool],
    dead_band: float,
    about: dict[str, Any],
    ranks: Ranks = ALONE,
    stopping: Stopping | None = None,
) -> TunedModel:
    """Train, under the governor, or take the tuned model that this recipe has made before.

    Args:
        work: what to train.
        model: the fresh model.
        machine: how to compute.
        costs: the probe's figures.
        tail_seconds: upper bound of what must still happen after training.
        decisions: the attempt's journal.
        reached: the last step an earlier process of this attempt recorded.
        interrupted: asked after every block of steps.
        dead_band: of the governor.
        about: what else belongs to the model, such as the preparation steps that a server must run; JSON values.
        ranks: the processes that train together; this is the first of them.
        stopping: what a point is worth, where training is to end once the rest of it is not worth its cost.
    """
    checkpoints = context.root / "checkpoints" / f"{context.attempt}-{work.key[:16]}"

    def write(folder: Path) -> None:
        every = decisions.take("validate_every", lambda: validate_every(work, costs))
        governor = governor_of(work, costs, every, options, context.meter.remaining_seconds, tail_seconds, dead_band)
        kept = _prefix_caches(work, model, machine, costs, governor, options, decisions, context)
        by_phase = costs.by_phase(kept)
        step_seconds = mean_cost(work.phases, by_phase) * work.mean_step_tokens
        decisions.take("planned_steps", lambda: _first_plan(governor, step_seconds))
        loop = Loop(
            work.task,
            model,
            work.train,
            work.validation,
            work.recipe,
            machine,
            Supervision(
                decisions=decisions,
                events=context.events,
                meter=context.meter,
                governor=governor,
                checkpoints=checkpoints,
                reached=reached,
                checkpoint_seconds=options.checkpoint_seconds,
                interrupted=interrupted,
                stopping=stopping,
            ),
            ranks,
        )
        loop.kept, loop.unfreezing.costs = kept, by_phase
        loop.validation_states = _validation_states(work, machine, costs, kept, every, options, decisions, context)
        outcome = loop.run(every, replace(costs, seconds_per_token=by_phase[0]))
        for cache in list(kept.values())[:1]:
            cache.prefix.release()
        work.task.save(loop.model, folder)
        (folder / ABOUT_FILE).write_text(json.dumps(about | {"outcome": asdict(outcome)}, indent=1))

    artifact = context.artifacts.build("train", work.key, {"recipe": asdict(work.recipe)}, write)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return open_tuned(artifact)


def _prefix_caches(
    work: Work,
    model: torch.nn.Module,
    machine: Machine,
    costs: Costs,
    governor: Governor,
    options: TrainOptions,
    decisions: Decisions,
    context: Context,
) -> dict[int, PrefixCache]:
    """The states of the training rows under the frozen first layers, at the depths where keeping them is better."""
    if costs.prefix is None:
        return {}
    probed, opened = costs.prefix, dict[int, PrefixCache]()

    def build(depths: Sequence[int]) -> dict[int, PrefixCache]:
        unfreezing = Unfreezing(model, work.recipe.phases)  # in the first phase, which has the deepest prefix
        try:
            return open_or_build_all(
                context.root / FOLDER,
                model,
                Prefix(model, max(depths)),
                {depth: Needs(work.task, work.train, machine, depth) for depth in depths},
                probed.seconds_per_token * max(depths) / probed.depth,
                options.prefix_cache_bytes,
                lambda what, upper: context.meter.unit("training", what, upper),
            )
        finally:
            unfreezing.release()

    def choose() -> tuple[list[int], str]:
        way, steps = best_way(work, costs, options, governor)
        plain, *others = ways_to_train(work, costs, options)
        if not others:
            return [], "the states would not fit into train.prefix_cache_gb"
        shown = way if way.kept else others[-1]
        layers = " and ".join(map(str, shown.kept))
        because = (
            f"computing the first {layers} layers' states takes {shown.first:.1f} s; then an update takes "
            f"{shown.step:.3f} s instead of {plain.step:.3f} s, {steps} times"
        )
        if way.kept:
            opened.update(build(way.kept))
        return list(way.kept), because

    depths = decisions.take("prefix_cache", choose)
    return opened or (build(depths) if depths else {})


def _validation_states(
    work: Work,
    machine: Machine,
    costs: Costs,
    kept: dict[int, PrefixCache],
    every: int,
    options: TrainOptions,
    decisions: Decisions,
    context: Context,
) -> ValidationStates | None:
    """Room for what the frozen first layers answer for the validation split, where keeping that is better.

    They may take what the training rows' states leave of `train.prefix_cache_gb`; those are worth more.
    """
    if costs.prefix is None or not kept:
        return None
    rows, prefix = work.validation, costs.prefix
    batches = sorted_batches(rows.lengths, machine.read_batch_tokens)
    tokens = padded_tokens(rows.lengths, batches)
    room = options.prefix_cache_bytes - bytes_kept(context.root / FOLDER)
    stored = 2 if options.prefix_states == "fp16" else 4
    wanted = tokens * prefix.bytes_per_token * 4 / stored  # these are kept in fp32, however the training rows' are
    kept_until = next((phase.begins for phase in work.recipe.phases if phase.frozen not in kept), 1.0)
    coming = math.ceil(decisions.recorded("planned_steps") * kept_until / len(kept) / every)

    def choose() -> tuple[bool, str]:
        compute = tokens * prefix.seconds_per_token
        pays = validations_to_pay(compute, wanted * costs.seconds_per_byte)
        if wanted > room:
            return False, f"{wanted / 1e6:.0f} MB do not fit beside the training rows' into train.prefix_cache_gb"
        return coming >= pays, (
            f"the frozen layers take {compute:.2f} s of a validation's {costs.validation:.2f} s; {coming} with the same"
            f" ones frozen are to come, and from {pays:.1f} on {wanted / 1e6:.0f} MB of kept states are quicker"
        )

    if not decisions.take("validation_states", choose):
        return None
    return ValidationStates(context.root / FOLDER, room, machine.device)


def open_tuned(artifact: Artifact) -> TunedModel:
    """The tuned model that an artifact holds."""
    about = json.loads((artifact.folder / ABOUT_FILE).read_text())
    return TunedModel(artifact.folder, artifact.content_hash, Outcome(**about["outcome"]))


def _first_plan(governor: Governor, step_seconds: float) -> tuple[Any, str]:
    planned = governor.planned(step_seconds)
    if planned == governor.full_steps:
        return planned, f"all {planned} steps fit into what is left of the budget and the deadline"
    left = governor.remaining()
    return planned, (
        f"{left:.0f} s are left, {governor.tail_seconds:.0f} s of them for what follows training: "
        f"{planned} of {governor.full_steps} steps at {step_seconds:.3f} s"
    )
