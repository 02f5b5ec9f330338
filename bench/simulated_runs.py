"""A simulated project, done twice: by Thriftune's own ledger, meter, lease, outlook and governor, and by a plain plan.

`Governed` walks the line as `pipeline.run` and `train/loop.py` do, block for block, with a clock that the world moves
in the place of computing. What decides and what keeps the money is the real thing, with a database file of its own; a
lost machine leaves what a killed process leaves. `FixedPlan` chooses its number of updates from the same forecasts
and the same probe, and then just does them; it goes on from the same checkpoints.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import update

from simulated_world import PART_NOISE, PARTS, PROJECT_SPREAD, START, MachineLostError, World, stream
from thriftune.budget.decisions import Decisions
from thriftune.budget.forecast import Forecast
from thriftune.budget.record import Record
from thriftune.clock import ManualClock
from thriftune.errors import CannotLand, OutOfBudget
from thriftune.events import EventLog, open_attempt
from thriftune.forecasting import ANSWER_SPREAD, PRIOR_LOAD, SAVE_SPREAD, TAIL_FLOOR
from thriftune.money.leases import HEARTBEAT_SECONDS, acquire
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter
from thriftune.plan.outlook import Outlook
from thriftune.plan.plan import Plan, cannot_land
from thriftune.session import EXIT_SECONDS, LAST_PHASE, Session
from thriftune.store import open_store
from thriftune.store.tables import leases
from thriftune.train import train
from thriftune.train.costs import UPPER_FACTOR, UPPER_FLOOR, Costs
from thriftune.train.loop import BLOCK_SECONDS, PROBE_WEIGHT
from thriftune.train.schedule import Pace

LINE = {  # parts, and who pays for them, in their order
    "collect": "collection",
    "prepare": "collection",
    "baselines": "evaluation",
    "imports": "training",
    "encode": "training",
    "load": "training",
    "probe": "training",
    "train": "training",
    "save": "training",
    "open": "evaluation",
    "tuned": "evaluation",
    "verdict": "evaluation",
    "report": "evaluation",
    "exit": "evaluation",
}
KEPT = ("collect", "prepare", "baselines", "encode")  # artifacts: another process does not do them again
PRIORS = {"imports": 6.0, "load": PRIOR_LOAD, "open": PRIOR_LOAD, "exit": EXIT_SECONDS}
OTHER_PRIOR = 3.0
MOST_PROCESSES = 40
PIECES = {"tuned": 8, "verdict": 4, "report": 2}  # batches of test rows, comparisons with baselines, reading and page
CHECKPOINT_EVERY = 30.0
DEAD_BAND = 0.05
NO_PROCESS = 2**22 + 1  # a pid that no Linux process has


@dataclass
class Saved:
    """What a killed process leaves on the disk besides the database.

    Args:
        kept: parts whose artifacts are there.
        step: of the checkpoint.
        pace: of it.
    """

    kept: set[str] = field(default_factory=set)
    step: int = 0
    pace: Pace | None = None
    tuned: bool = False


def past_record(world: World) -> Record:
    """The durations that this machine's earlier projects left."""
    record = Record(Path("unsaved"), "simulated")
    for run in range(world.past_runs):
        random = stream(world.number, "past", run)
        factor = world.machine_factor * math.exp(PROJECT_SPREAD * float(random.standard_normal()))
        for part in [*PARTS, "probe"]:
            record.add(part, world.nominal[part] * factor * math.exp(PART_NOISE * float(random.standard_t(3))))
    return record


def shape(world: World) -> Any:
    """What the policies of training read of the work to be done."""
    return SimpleNamespace(
        phases=(SimpleNamespace(begins=0.0),),
        plan=SimpleNamespace(epoch_updates=max(1, world.full_steps // 3), stages=("all",)),
        recipe=SimpleNamespace(validations_per_epoch=None),
        mean_step_tokens=1.0,
        full_steps=world.full_steps,
    )


OPTIONS = cast(Any, SimpleNamespace(checkpoint_seconds=CHECKPOINT_EVERY, prefix_cache_bytes=0))


class Governed:
    """A project as Thriftune does it.

    Args:
        world: in which.
        folder: for its database.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.saved = Saved()
        self.record = past_record(world)
        self.trained = 0
        self.cut = False
        self.tail_left: float | None = None
        self.breaches = 0
        self.outcome = "lost"
        self.why = ""
        self.meter: Meter | None = None

    def run(self) -> dict[str, Any]:
        """From the first process to the last; the figures."""
        self.store = open_store(f"sqlite:///{self.folder}/thriftune.db")
        self.clock = ManualClock(START)
        try:
            self.attempt = open_attempt(self.store, self.clock, "simulated", "{}").attempt
            for _ in range(MOST_PROCESSES):
                try:
                    self.outcome = self._process()
                    break
                except MachineLostError:
                    self.clock.advance(self.world.waits_for_another())
            balance = self.ledger.balance()
            self.breaches = len(self.events.read(kinds=["breach"]))
        finally:
            self.store.close()
        return self.world.told() | {
            "outcome": self.outcome,
            "why": self.why,
            "steps": self.trained,
            "started": self.trained > 0,
            "cut": self.cut,
            "tail_left_s": self.tail_left,
            "step_s": self.world.nominal["step"],
            "ledger_money": float(balance.spent),
            "reserved": float(balance.reserved),
            "breaches": self.breaches,
            "quality": self.world.quality(self.trained / self.world.full_steps) if self.outcome == "done" else None,
        }

    # a process

    def _process(self) -> str:
        world, self.meter = self.world, None
        price = Decimal(f"{world.listed_price():.6f}")
        began = self.clock.now()
        world.process_begins(float(price))
        self._pass(world.takes("start"))
        self.events = EventLog(self.store, self.clock, "simulated", self.attempt)
        self.ledger = Ledger(self.store, self.clock, "simulated", self.events)
        total = Decimal(f"{world.budget:.4f}")
        shares = {"collection": "0.1", "training": "0.6", "evaluation": "0.2"}
        self.ledger.open_budget(total, "USD", {phase: total * Decimal(share) for phase, share in shares.items()})
        deadline_at = self.ledger.open_deadline(timedelta(seconds=world.deadline_seconds), began)
        self.lease = acquire(self.store, self.clock, self.ledger, price, "machine", since=began)
        self.meter = Meter(self.store, self.clock, self.ledger, self.lease, deadline_at, started=began)
        self.lease.end_beating()  # signs of life come by the world's clock, see `_die`
        earlier = self.events.read(attempt=self.attempt)
        self.decisions = Decisions(self.events, earlier)
        self.reached = max((e.data["step"] for e in earlier if e.kind == "training.step"), default=0)
        self.outlook = Outlook()
        context = SimpleNamespace(meter=self.meter, clock=self.clock)
        file = SimpleNamespace(budget=SimpleNamespace(currency="USD"))
        self.session = cast(
            Session,
            SimpleNamespace(
                outlook=self.outlook,
                context=context,
                to_buy={},
                storage=None,
                project=SimpleNamespace(file=file),
                spent_before=Decimal(0),
                first_run_at=START,
            ),
        )
        try:
            outcome = self._line()
        except CannotLand as refusal:
            outcome, self.why = "refused", str(refusal)
        self.events.emit("attempt.finished", outcome=outcome)
        leaving = self.record.forecast("exit", prior=EXIT_SECONDS).p50
        self.meter.close(LAST_PHASE, leaving)
        world.works(world.takes("exit"))
        self.clock.instant = world.now
        return outcome

    def _pass(self, seconds: float) -> None:
        """Let the process work so long; where its machine is lost meanwhile, it dies as a process does."""
        lived = self.world.works(seconds)
        if lived is None:
            self.clock.instant = self.world.now
            return
        if self.meter is not None:
            self.clock.advance(math.floor(lived / HEARTBEAT_SECONDS) * HEARTBEAT_SECONDS)
            self._die(self.meter)
        self.clock.instant = self.world.now
        raise MachineLostError

    def _die(self, meter: Meter) -> None:
        """Leave what a killed process leaves: a last sign of life, an owner that nobody is, and open what was open."""
        self.lease.beat()  # in a run a thread gives it, each second of real time
        meter._post = lambda *_: None  # type: ignore[method-assign]  # a dead process posts nothing
        with self.store.begin() as transaction:
            transaction.execute(update(leases).values(owner_pid=NO_PROCESS))

    # the line

    def _line(self) -> str:
        for part, phase in LINE.items():
            if part not in self.saved.kept:
                forecast = self.record.forecast(part, prior=PRIORS.get(part, OTHER_PRIOR))
                self.outlook.expect(part, phase, forecast)
        if self.saved.tuned:
            for part in ("load", "probe", "train", "save"):
                self.outlook.done(part)
        else:
            self.outlook.sharpen("train", Forecast.lognormal(10.0, 1.0, "prior"))
        for part in ("collect", "prepare", "baselines", "imports", "encode", "load"):
            if part in self.outlook.parts:
                self._part(part)
        if not self.saved.tuned:
            self._train(self._probe())
        for part in ("open", "tuned", "verdict"):
            self._part(part)
        with suppress(CannotLand):  # the model is judged, and the page can be written at any time
            self._part("report")
        self.outlook.done("exit")
        return "done"

    def _part(self, what: str) -> None:
        phase = self.outlook.parts[what].phase
        began = self.clock.now()
        try:
            with self._unit(phase, what, Session.upper(self.session, what)):
                self._pieces(what, self.world.takes(what))
        except OutOfBudget as refusal:
            raise cannot_land(self._plan(), f"{what}: {refusal.what}") from refusal
        self.outlook.took(what, self.clock.now() - began)
        self.outlook.done(what)
        self.record.add(what, self.clock.now() - began)
        if what in KEPT:
            self.saved.kept.add(what)

    def _pieces(self, what: str, seconds: float) -> None:
        """Answering, comparing and reporting look at the limits on the way; other parts are done at one go."""
        count = PIECES.get(what, 1)
        for piece in range(count):
            if piece > 0:
                self.meter.go_on(what, seconds / count)
            self._pass(seconds / count)

    @contextmanager
    def _unit(self, phase: str, what: str, upper: float) -> Iterator[None]:
        with self.meter.unit(phase, what, upper):
            yield

    def _plan(self, **facts: Any) -> Plan:
        return self.outlook.plan(Session.limits(self.session), **facts)

    def _probe(self) -> Costs:
        """Some updates, a validation, a save and some answers, and the plan that they give."""
        world, seen = self.world, []
        self._probed: dict[str, float] = {}

        def probe() -> None:
            for _ in range(5):
                seen.append(world.update_takes())
                self._pass(seen[-1])
            for what in ("validation", "checkpoint"):
                self._probed[what] = world.takes(what)
                self._pass(self._probed[what])

        began = self.clock.now()
        try:
            with self._unit("training", "probe", Session.upper(self.session, "probe")):
                probe()
        except OutOfBudget as refusal:
            raise cannot_land(self._plan(), f"probe: {refusal.what}") from refusal
        self.outlook.took("probe", self.clock.now() - began)
        self.outlook.done("probe")
        costs = Costs(median(seen), self._probed["validation"], self._probed["checkpoint"], 0.0)
        self.work = shape(world)
        self.every = train.validate_every(self.work, costs)[0]
        full = train.estimate(self.work, costs, self.every, world.full_steps, OPTIONS)
        self.outlook.sharpen("train", full, train.minimum(self.work, costs))
        self.outlook.sharpen("save", Forecast.lognormal(costs.checkpoint / 2, SAVE_SPREAD, "probe"))
        sample = world.takes("tuned")  # the speed of answering, seen on a few of the rows
        self.outlook.sharpen("tuned", Forecast.lognormal(sample, ANSWER_SPREAD, "probe"))
        self._plan(full_steps=world.full_steps).require()
        return costs

    # training: train.run and Loop.run, without computing

    def _train(self, costs: Costs) -> None:
        self.every = self.decisions.take("validate_every", lambda: train.validate_every(self.work, costs))
        tail = self.outlook.tail("train", self.meter.remaining_seconds() - TAIL_FLOOR) + TAIL_FLOOR
        self.governor = train.governor_of(
            self.work, costs, self.every, OPTIONS, self.meter.remaining_seconds, tail, DEAD_BAND
        )
        planned = self.decisions.take(
            "planned_steps", lambda: train._first_plan(self.governor, costs.seconds_per_token)
        )
        self.step, self.pace = self.saved.step, self.saved.pace or Pace(planned=planned)
        self.recent: deque[float] = deque([costs.seconds_per_token] * PROBE_WEIGHT, 40)
        self.checkpoint_upper = costs.checkpoint_upper
        self.validated, self.ending = -1, ""
        self.saved_at = self.clock.now()
        while self._review() and self.step < self.pace.planned:
            try:
                self._block()
                if self.step % self.every == 0 and self.step < self.pace.planned:
                    self._validate(costs.validation_upper)
                if self.clock.now() - self.saved_at >= CHECKPOINT_EVERY:
                    self._checkpoint()
            except OutOfBudget as refusal:
                self._stop("budget", refusal.what)
                break
        if self.validated != self.step:
            try:
                self._validate(costs.validation_upper)
            except OutOfBudget:
                self.decisions.take("final_validation", lambda: ("skipped", "not paid for"), self.step)
        self.tail_left = self.meter.remaining_seconds() - tail
        self._pass(self.world.takes("save"))  # not metered by itself: the next unit pays for it
        self.trained, self.cut = self.step, self.step < self.world.full_steps
        self.saved.tuned = True
        for part in ("train", "save"):
            self.outlook.done(part)

    def _review(self) -> bool:
        step, planned = self.step, self.pace.planned
        change = self.decisions.recorded("planned_steps", step) if step else None
        if change is None and step >= self.reached and step > 0:
            proposal = self.governor.review(step, planned, median(self.recent))
            if proposal is not None and not (self.ending and proposal > planned):
                change = self.decisions.take("planned_steps", lambda: (proposal, "the pace"), step)
        if change is not None and change != planned:
            if change <= step:
                self.ending = self.ending or "budget"
                return False
            self.pace = self.pace.refitted(step, change)
        stop = self.decisions.recorded("stop", step)
        if stop is not None:
            self.ending = stop
        return stop is None

    def _block(self) -> None:
        count = max(1, int(BLOCK_SECONDS / median(self.recent)))
        boundary = min(self.pace.planned, (self.step // self.every + 1) * self.every)
        recorded = self.decisions.next_step(self.step)
        end = min(self.step + count, boundary, recorded if recorded is not None else boundary)
        upper = (end - self.step) * UPPER_FACTOR * max(self.recent) + UPPER_FLOOR
        began = self.clock.now()
        with self._unit("training", "steps", upper):
            while self.step < end:
                seconds = self.world.update_takes()
                self._pass(seconds)
                self.step += 1
                self.recent.append(seconds)
                self.events.buffer("training.step", step=self.step, planned=self.pace.planned, seconds=seconds)
        self.trained = self.step
        took = self.clock.now() - began
        if took > upper and self.step >= self.reached and self.governor.free() < took:
            self._stop("breach", "another such block could not be paid for")

    def _stop(self, why: str, because: str) -> None:
        self.ending = self.decisions.take("stop", lambda: (why, because), self.step)

    def _validate(self, upper: float) -> None:
        with self._unit("training", "validation", upper):
            self._pass(self.world.takes("validation"))
        self.validated = self.step

    def _checkpoint(self) -> None:
        with self._unit("training", "checkpoint", self.checkpoint_upper):
            seconds = self.world.takes("checkpoint")
            self._pass(seconds)
        self.checkpoint_upper = max(self.checkpoint_upper, UPPER_FACTOR * seconds + UPPER_FLOOR)
        self.saved.step, self.saved.pace, self.saved_at = self.step, self.pace, self.clock.now()


class FixedPlan:
    """A project as a careful script does it: as many updates as the point forecast has room for, and nothing asked
    again. Its checkpoints and restarts are those of the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.record = past_record(world)
        self.planned: int | None = None
        self.done: set[str] = set()
        self.saved_step = 0
        self.step = 0

    def run(self) -> dict[str, Any]:
        """From the first process to the last; the figures."""
        outcome = "lost"
        for _ in range(MOST_PROCESSES):
            try:
                outcome = self._process()
                break
            except MachineLostError:
                self.world.waits_for_another()
                if self.world.now >= START + self.world.deadline_seconds:
                    break
        done = outcome == "done"
        return self.world.told() | {
            "outcome": outcome,
            "steps": self.step,
            "started": self.step > 0,
            "quality": self.world.quality(self.step / self.world.full_steps) if done else None,
        }

    def _works(self, seconds: float) -> float:
        if self.world.works(seconds) is not None:
            raise MachineLostError
        return seconds

    def _process(self) -> str:
        world = self.world
        world.process_begins(world.listed_price())
        self._works(world.takes("start"))
        for part in ("collect", "prepare", "baselines", "imports", "encode", "load"):
            if part not in self.done:
                self._works(world.takes(part))
                if part in KEPT:
                    self.done.add(part)
        if "trained" not in self.done:
            self._train()
        for part in ("open", "tuned", "verdict", "report", "exit"):
            self._works(world.takes(part))
        return "done"

    def _train(self) -> None:
        world = self.world
        seconds = median([self._works(world.update_takes()) for _ in range(5)])
        validation, checkpoint = (self._works(world.takes(what)) for what in ("validation", "checkpoint"))
        costs = Costs(seconds, validation, checkpoint, 0.0)
        work = shape(world)
        every = train.validate_every(work, costs)[0]
        if self.planned is None:
            by_money = (world.budget - world.money()) / world.price * 3600
            left = min(by_money, START + world.deadline_seconds - world.now)
            rest = sum(
                self.record.forecast(part, prior=PRIORS.get(part, OTHER_PRIOR)).p50
                for part in ("open", "verdict", "report", "exit")
            )
            rest += world.takes("tuned") + validation + checkpoint / 2
            each = train.overheads(work, costs, every, OPTIONS).step_seconds(seconds)
            self.planned = max(train.MIN_STEPS, min(world.full_steps, int((left - rest) / each)))
        self.step, saved_at = self.saved_step, world.now
        while self.step < self.planned:
            self._works(world.update_takes())
            self.step += 1
            if self.step % every == 0 and self.step < self.planned:
                self._works(world.takes("validation"))
            if world.now - saved_at >= CHECKPOINT_EVERY:
                self._works(world.takes("checkpoint"))
                self.saved_step, saved_at = self.step, world.now
        for what in ("validation", "save"):
            self._works(world.takes(what))
        self.done.add("trained")
