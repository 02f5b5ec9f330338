"""A thousand simulated projects: does the governed line stay inside money and time, and what does it leave unused?

Each project has a real ledger in a real SQLite file, the real meter and the real governor, driven by an injected clock.
The simulator stands for the machine: it keeps its own account, and draws what the planner does not know, that is
speeds that drift together, heavy-tailed steps, stalls, failures, spot interruptions and another price after each. A
plain fixed plan (as many steps as the forecast's medians say, no governor) lives through the same draws.

Further cells hold what the real timeline says against what happens: the chance of the deadline, in a world that is as
the planner believes and in one that is not. The same line with real processes is bench/governor.py.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import fmean, median
from typing import Any

import numpy as np

import harness
from harness import Benchmark, Figures, Settings
from machine import measured_machine
from thriftune.budget.forecast import Forecast
from thriftune.budget.governor import Governor, Overheads
from thriftune.clock import ManualClock
from thriftune.errors import OutOfBudget
from thriftune.events import EventLog, open_attempt
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter
from thriftune.store import open_store
from thriftune.timeline.schedule import Phase, schedule

BATCHES, PROJECTS = 20, 50
SCHEDULES, SCHEDULE_DRAWS = 12_000, 2_000
BINS = 10
SMALLEST_BIN = 1_000
TOLERANCE = 0.05
UPPER_FACTOR, UPPER_FLOOR = 1.5, 0.25  # a unit's bound over what its like took, as training reserves it
BLOCK_SECONDS, CHECKPOINT_SECONDS = 10.0, 120.0
PRIOR_SPREAD, PROBE_SPREAD, ANSWER_SPREAD = 1.0, 0.15, 0.3
LEAST_STEPS = 20
MISSED_DEADLINE = 1e-6  # seconds: the clock's own rounding
FURTHER = ("projects", "overruns", "unused_share", "targets_met", "fixed", "deadline_calibration")


def cells(quick: bool) -> list[Settings]:
    """Batches of simulated projects; timelines in either world."""
    batches, schedules = (2, 1200) if quick else (BATCHES, SCHEDULES)
    found: list[Settings] = [{"kind": "projects", "batch": n, "count": PROJECTS} for n in range(batches)]
    return found + [{"kind": "timeline", "world": world, "count": schedules} for world in ("believed", "worse")]


def run(settings: Settings) -> Figures:
    """Simulated projects lived through twice, or timelines against what happened."""
    if settings["kind"] == "timeline":
        return {"said": timelines(settings["world"], settings["count"])}
    first = settings["batch"] * settings["count"]
    return {"projects": [lived(first + number) for number in range(settings["count"])]}


class Failed(Exception):
    """The machine is gone: a failure or a spot interruption."""


@dataclass
class World:
    """What happens to one project, whoever plans it; the same draws for the same number.

    Args:
        random: of everything that befalls it.
        step: seconds of a step on an undisturbed machine, as the probe sees it but for its noise.
        full_steps: of all epochs.
        parts: true median seconds of start, baselines, validation, checkpoint, evaluation and report.
        price: an hour's, by the list; the one that is paid changes with each restart.
        tail: degrees of freedom of a step's noise: 3 has an infinite fourth moment.
        mean_between_failures: seconds of work.
        stalls: a second of work.
        ceiling, reach, exponent: quality after n steps is ceiling - reach × n^-exponent.
    """

    random: random.Random
    step: float
    full_steps: int
    parts: dict[str, float]
    price: float
    tail: float
    mean_between_failures: float
    stalls: float
    ceiling: float
    reach: float
    exponent: float
    drift: float = 0.0
    slow: float = 1.0

    @classmethod
    def drawn(cls, number: int) -> World:
        draw = random.Random(f"world {number}")
        step = draw.lognormvariate(math.log(0.4), 1.0)
        full = round(draw.lognormvariate(math.log(1500), 0.8)) + LEAST_STEPS
        medians = {"start": 12, "baselines": 15, "validation": 4, "checkpoint": 1, "evaluation": 40, "report": 1}
        parts = {name: draw.lognormvariate(math.log(seconds), 0.5) for name, seconds in medians.items()}
        return cls(
            draw,
            step,
            full,
            parts,
            price=draw.lognormvariate(math.log(2.0), 1.0),
            tail=draw.choice((3, 5, 30)),
            mean_between_failures=draw.choice((math.inf, 7200, 1800)),
            stalls=draw.choice((0.0, 1 / 3600, 1 / 600)),
            ceiling=draw.uniform(0.7, 0.95),
            reach=draw.uniform(0.2, 0.6),
            exponent=draw.uniform(0.15, 0.4),
            slow=draw.lognormvariate(0.0, 0.1),
        )

    def quality(self, steps: int) -> float:
        return self.ceiling - self.reach * max(steps, 1) ** -self.exponent

    def takes(self, median_seconds: float, spread: float = 0.05) -> float:
        """What work really takes: a shared drift, its own heavy-tailed noise, now and then a stall; or it is cut off.

        Raises:
            Failed: after the seconds in its first argument.
        """
        draw = self.random
        self.drift = 0.95 * self.drift + draw.gauss(0.0, 0.03)
        noise = draw.gauss(0.0, 1.0) / math.sqrt(draw.gammavariate(self.tail / 2, 2 / self.tail))
        seconds = median_seconds * self.slow * math.exp(self.drift + spread * noise)
        if self.stalls and draw.random() < 1 - math.exp(-seconds * self.stalls):
            seconds += min(5.0 * draw.paretovariate(1.5), 300.0)
        if math.isfinite(self.mean_between_failures):
            until = draw.expovariate(1 / self.mean_between_failures)
            if until < seconds:
                raise Failed(until)
        return seconds

    def next_price(self) -> float:
        """An hour's price on the machine that comes after one that is gone."""
        return self.price * self.random.lognormvariate(0.0, 0.2)


@dataclass
class Account:
    """The simulator's own: what the machine was held for, and at which price."""

    seconds: float = 0.0
    money: float = 0.0

    def hold(self, seconds: float, price: float) -> None:
        self.seconds += seconds
        self.money += seconds * price / 3600


@dataclass(frozen=True)
class Limits:
    """A project's budget, deadline in seconds, and which binds; and the quality that it wants."""

    budget: float
    deadline: float
    bound_by: str
    target: float

    @classmethod
    def drawn(cls, number: int, world: World) -> Limits:
        draw = random.Random(f"limits {number}")
        others = sum(world.parts.values())
        wanted = others + draw.uniform(0.02, 1.2) * world.full_steps * world.step
        bound_by = draw.choice(("money", "time"))
        ample = draw.uniform(1.5, 4.0)
        seconds = {"money": wanted * (1 if bound_by == "money" else ample), "time": wanted}
        seconds["time"] *= ample if bound_by == "money" else 1
        steps = max(LEAST_STEPS, min(world.full_steps, (wanted - others) / world.step))
        target = world.quality(round(draw.uniform(0.5, 0.95) * steps))
        return cls(seconds["money"] * world.price / 3600, seconds["time"], bound_by, target)


def lived(number: int) -> dict[str, Any]:
    """One project under the governor, and under a fixed plan."""
    limits = Limits.drawn(number, World.drawn(number))
    ours, fixed = governed(number, limits), planned_once(number, limits)
    told = {"number": number, "bound_by": limits.bound_by}
    return told | {
        "ours": judged(ours, limits, World.drawn(number)),
        "fixed": judged(fixed, limits, World.drawn(number)),
    }


@dataclass
class Life:
    """How a project went: its account, the steps of the model that it ends with (0: none), and the ledger's money."""

    account: Account = field(default_factory=Account)
    steps: int = 0
    refused: bool = False
    ledger_money: float | None = None
    failures: int = 0


def judged(life: Life, limits: Limits, world: World) -> dict[str, Any]:
    """By the simulator's account."""
    over_money = life.account.money > limits.budget * (1 + 1e-9)
    over_time = life.account.seconds > limits.deadline + MISSED_DEADLINE
    used = max(life.account.money / limits.budget, life.account.seconds / limits.deadline)
    ledger = life.ledger_money
    return {
        "refused": life.refused,
        "over": (over_money or over_time) and not life.refused,
        "used": used,
        "finished": life.steps > 0,
        "whole": life.steps >= world.full_steps,
        "met": life.steps > 0 and not over_money and not over_time and world.quality(life.steps) >= limits.target,
        "failures": life.failures,
        "ledger_error": 0.0 if not ledger else abs(ledger - life.account.money) / max(life.account.money, 1e-12),
    }


def governed(number: int, limits: Limits) -> Life:
    """The project under the real ledger, meter and governor."""
    world, life = World.drawn(number), Life()
    with tempfile.TemporaryDirectory() as folder:
        clock = ManualClock(1_800_000_000.0)
        store = open_store(f"sqlite:///{folder}/simulated.db")
        events = EventLog(store, clock, "simulated", open_attempt(store, clock, "simulated", "recipe").attempt)
        ledger = Ledger(store, clock, "simulated", events)
        budget = Decimal(str(round(limits.budget, 9)))
        ledger.open_budget(budget, "USD", {"training": budget})
        line = Line(world, life, clock, ledger, limits)
        price = world.price
        try:
            while True:
                meter = Meter.start(store, clock, ledger, Decimal(str(round(price, 6))), line.ends_at, "simulated")
                try:
                    line.go(meter, float(meter.price_per_hour))
                    break
                except Failed:
                    life.failures += 1
                    price = world.next_price()
                except OutOfBudget:
                    life.refused = line.probed is None or (line.evaluated == 0 and line.step == 0)
                    break
                finally:
                    meter.close("training")
        finally:
            life.ledger_money = float(ledger.balance().spent)
            store.close()
    life.steps = line.evaluated
    return life


@dataclass
class Line:
    """The line of one project, over as many processes as it takes; what a process knows is what it has measured."""

    world: World
    life: Life
    clock: ManualClock
    ledger: Ledger
    limits: Limits
    step: int = 0
    kept: int = 0  # the step of the last checkpoint
    planned: int = 0
    evaluated: int = 0
    probed: float | None = None

    def __post_init__(self) -> None:
        self.ends_at = self.clock.now() + self.limits.deadline

    def go(self, meter: Meter, price: float) -> None:
        """One process, from its start to the model's evaluation.

        Raises:
            Failed: the machine is gone.
            OutOfBudget: the limits do not hold what comes next.
        """
        parts = self.world.parts

        def does(what: str, median_seconds: float, upper: float) -> float:
            with meter.unit("training", what, upper):
                return self.passes(median_seconds, price)

        self.step = self.kept
        does("start", parts["start"], parts["start"] * (1 + PRIOR_SPREAD))
        if self.probed is None:
            does("baselines", parts["baselines"], parts["baselines"] * (1 + PRIOR_SPREAD))
            self.probed = does("probe", 4 * self.world.step, 30 * self.world.step) / 4
        tail = (1 + ANSWER_SPREAD) * parts["evaluation"] + 2 * parts["report"] + 1.0
        validation = UPPER_FACTOR * parts["validation"] + UPPER_FLOOR
        every = max(1, math.ceil(parts["validation"] / (0.05 * self.probed)))
        governor = Governor(
            meter.remaining_seconds,
            tail + validation,
            self.world.full_steps,
            Overheads(parts["validation"], every, parts["checkpoint"], CHECKPOINT_SECONDS),
        )
        self.train(meter, governor, every, does)
        does("validation", parts["validation"], validation)
        upper = min(2 * ANSWER_SPREAD + 1, (meter.remaining_seconds() - 2.0) / parts["evaluation"])
        does("evaluation", parts["evaluation"], max(1 + ANSWER_SPREAD, upper) * parts["evaluation"])
        self.evaluated = self.step
        does("report", parts["report"], 2 * parts["report"])

    def train(self, meter: Meter, governor: Governor, every: int, does: Callable[[str, float, float], float]) -> None:
        """Blocks of steps under the governor, as the training loop has them."""
        recent = [self.probed or self.world.step] * 5
        saved_at, parts = self.clock.now(), self.world.parts
        if not self.planned:
            self.planned = governor.planned(median(recent))
        if self.planned < LEAST_STEPS and not self.step:
            raise OutOfBudget("too few steps", "training", f"{self.planned}", f"{LEAST_STEPS}", "more of either limit")
        while self.step < self.planned:
            changed = governor.review(self.step, self.planned, median(recent[-9:]))
            self.planned = self.planned if changed is None else changed
            count = min(max(1, int(BLOCK_SECONDS / median(recent[-9:]))), self.planned - self.step, every)
            if count <= 0:
                return
            upper = UPPER_FACTOR * max(recent[-9:]) * count + UPPER_FLOOR
            with suppress(OutOfBudget):
                seconds = does("steps", count * self.world.step, upper)
                recent.append(seconds / count)
                self.step += count
                if self.step % every < count and self.step < self.planned:
                    does("validation", parts["validation"], UPPER_FACTOR * parts["validation"] + UPPER_FLOOR)
                if self.clock.now() - saved_at > CHECKPOINT_SECONDS:
                    does("checkpoint", parts["checkpoint"], UPPER_FACTOR * parts["checkpoint"] + UPPER_FLOOR)
                    saved_at, self.kept = self.clock.now(), self.step
                continue
            return  # the limits hold no further block: what is there is finished

    def passes(self, median_seconds: float, price: float) -> float:
        """Let the world take its time."""
        try:
            seconds = self.world.takes(median_seconds)
        except Failed as failure:
            self.spend(float(failure.args[0]), price)
            raise
        self.spend(seconds, price)
        return seconds

    def spend(self, seconds: float, price: float) -> None:
        self.clock.advance(seconds)
        self.life.account.hold(seconds, price)


def planned_once(number: int, limits: Limits) -> Life:
    """The same draws under a fixed plan: steps by the medians, checkpoints as often, begun again where it fails."""
    world, life = World.drawn(number), Life()
    parts = world.parts
    others = sum(parts.values())
    seconds = min(limits.deadline, limits.budget / world.price * 3600) - others
    steps = min(world.full_steps, int(seconds / world.step))
    if steps < LEAST_STEPS:
        life.refused = True
        return life
    price, done = world.price, 0
    work = ["start", "baselines", "steps", "evaluation", "report"]
    while work:
        part = work[0]
        count = min(max(1, int(CHECKPOINT_SECONDS / world.step)), steps - done)
        try:
            seconds = world.takes(count * world.step if part == "steps" else parts[part])
        except Failed as failure:
            life.account.hold(float(failure.args[0]), price)
            life.failures += 1
            price = world.next_price()
            work = ["start", *(later for later in work if later != "start")]
            continue
        life.account.hold(seconds, price)
        done += count if part == "steps" else 0
        if part != "steps" or done >= steps:
            work.pop(0)
        if life.account.seconds > 100 * limits.deadline:
            return life  # it will never end
    life.steps = steps
    return life


def timelines(world: str, count: int) -> list[tuple[float, bool]]:
    """What the timeline says of its deadline at the start and once the first half is done, and whether it was made.

    Believed: each phase is drawn from its own forecast. Worse: a factor that all share, heavy tails, and people who
    take a fifth longer than they say.
    """
    found = []
    for number in range(count):
        draw = np.random.default_rng([number, world == "worse"])
        medians = {"data": 30, "baselines": 60, "set-up": 40, "training": 1800, "evaluation": 300, "review": 3600}
        spreads = {"data": 0.3, "baselines": 1.0, "set-up": 0.35, "training": 0.15, "evaluation": 0.3, "review": 0.5}
        forecasts = {
            name: Forecast.lognormal(seconds * draw.lognormal(0.0, 0.7), spreads[name], "record")
            for name, seconds in medians.items()
        }
        names = list(forecasts)
        happened = {name: came(forecast, draw, 0.0) for name, forecast in forecasts.items()}
        if world == "worse":
            shared = draw.normal(0.0, 0.1)
            happened = {
                name: came(f, draw, shared, 3, 1.2 if name == "review" else 1.0) for name, f in forecasts.items()
            }
        for done in (0, 3):
            phases, now = [], 0.0
            for place, name in enumerate(names):
                after = (names[place - 1],) if place else ()
                if place < done:
                    ended = now + happened[name]
                    phases.append(Phase(name, Forecast.exact(0.0), forecasts[name], after, started=now, finished=ended))
                    now = ended
                else:
                    phases.append(Phase(name, forecasts[name], forecasts[name], after))
            laid = schedule(phases, now, 0.15, seed=number, size=SCHEDULE_DRAWS)
            deadline = float(np.quantile(laid.draws["review"], draw.uniform(0.0, 1.0)))
            ends = now + sum(happened[name] for name in names[done:])
            found.append((laid.chance("review", deadline), bool(ends <= deadline)))
    return found


def came(
    forecast: Forecast, draw: np.random.Generator, shared: float, tail: int | None = None, bias: float = 1.0
) -> float:
    """What a phase took: its forecast's own spread, or heavier, times what all share."""
    sigma = math.log(forecast.p95 / forecast.p50) / 1.6449
    score = draw.standard_normal() if tail is None else draw.standard_t(tail)
    return float(forecast.p50 * bias * math.exp(shared + sigma * score))


def binned(said: Sequence[tuple[float, bool]]) -> list[dict[str, Any]]:
    """Of each tenth of the chances: how many, what was said, what came true."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for chance, made in said:
        bins[min(BINS - 1, int(chance * BINS))].append((chance, made))
    return [
        {"n": len(found), "said": fmean(c for c, _ in found), "made": fmean(m for _, m in found)}
        for found in bins
        if found
    ]


def shares(projects: Sequence[dict[str, Any]], who: str) -> dict[str, Any]:
    """What became of the projects that began."""
    lives = [project[who] for project in projects]
    begun = [life for life in lives if not life["refused"]]
    cut = [life for life in begun if not life["whole"] and not life["over"]]
    return {
        "projects": len(lives),
        "refused": len(lives) - len(begun),
        "overruns": sum(life["over"] for life in begun),
        "unfinished": sum(not life["finished"] for life in begun),
        "unused_share": 1 - median(life["used"] for life in cut) if cut else 0.0,
        "targets_met": fmean(life["met"] for life in begun),
        "failures": sum(life["failures"] for life in begun),
        "ledger_error": max(life["ledger_error"] for life in begun),
    }


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    projects = [project for _, figures in found for project in figures.get("projects", [])]
    calibration = {s["world"]: binned(f["said"]) for s, f in found if s["kind"] == "timeline"}
    ours, fixed = shares(projects, "ours"), shares(projects, "fixed")
    scored = [one for one in calibration["believed"] if one["n"] >= SMALLEST_BIN]
    worst = {w: max(abs(one["said"] - one["made"]) for one in bins) for w, bins in calibration.items()}
    return {
        "claim": "Of a thousand simulated projects none that began ends over its budget or its deadline, more of them"
        " reach their target than under a plain fixed plan, and what the timeline says of the deadline comes true"
        " within 5 points, in a world that is as the planner believes.",
        "ours": ours,
        "peer": {"name": "a fixed plan by the forecast's medians", "version": "", **fixed},
        "ratio": ours["targets_met"] / fixed["targets_met"],
        "projects": ours["projects"],
        "overruns": ours["overruns"],
        "unused_share": ours["unused_share"],
        "targets_met": ours["targets_met"],
        "fixed": fixed,
        "deadline_calibration": calibration,
        "worst_calibration": worst,
        "machine": measured_machine(1),
        "seeds": [0, len(projects) - 1],
        "runs": harness.spread([project["ours"]["used"] for project in projects if not project["ours"]["refused"]]),
        "holds": ours["overruns"] == 0
        and ours["targets_met"] > fixed["targets_met"]
        and len(scored) == BINS
        and worst["believed"] <= TOLERANCE,
    }


def figure(figures: Figures) -> float:
    """The share of targets met, or of deadlines made."""
    if "said" in figures:
        return fmean(made for _, made in figures["said"])
    return fmean(project["ours"]["met"] for project in figures["projects"])


BENCHMARK = Benchmark("budget", cells, run, summarise, figure, FURTHER)

if __name__ == "__main__":
    harness.main(BENCHMARK)
