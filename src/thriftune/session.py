"""A session: one process at work on one attempt of a project, with its lease, meter, journal and outlook."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from filelock import FileLock

from thriftune import memory
from thriftune.artifacts import ArtifactStore, explained
from thriftune.budget.alerts import Notifier, notified
from thriftune.budget.decisions import Decisions
from thriftune.budget.energy import EnergyMeter, require_codecarbon
from thriftune.budget.record import Record
from thriftune.budget.residuals import Residuals
from thriftune.budget.usage import Watcher, told
from thriftune.clock import Clock, SystemClock
from thriftune.context import Context
from thriftune.errors import EXIT_INTERRUPTED, CannotLand, Interrupted, OutOfBudget, ThriftuneError
from thriftune.events import Event, EventLog, finish_attempt, latest_attempt, open_attempt, resume_attempt
from thriftune.money.leases import machine_taken
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter, NoMeter
from thriftune.money.queue import Turn
from thriftune.money.storage import StorageMeter
from thriftune.money.transfer import paying_transfer
from thriftune.plan.outlook import Outlook
from thriftune.plan.plan import Limits, Plan, cannot_land
from thriftune.project import Project
from thriftune.store import Store, open_store

EXIT_SECONDS = 0.1  # prior of the time from the last charge to the process's end, charged as an estimate
UPPER_FLOOR = 0.25  # seconds that any part may take beyond its forecast on a busy machine
PRIOR_SHARE = 0.9
FIRST_PHASE, LAST_PHASE = "collection", "evaluation"
GROWTH_BYTES = 1e9  # that a run is taken to add to the state folder at the least: one that only planned says little

DATABASE_VARIABLE = "THRIFTUNE_DATABASE_URL"
DATABASE_FILE = "thriftune.db"
STARTING_LOCK = "starting.lock"
NOT_IN_RECIPE = ("budget", "deadline", "compute", "plan", "deploy", "timeline")

BEGINNINGS = ("queue.waiting", "attempt.started")
UNFINISHED = (None, "planned", "interrupted", "failed")  # outcomes after which the same recipe goes on

Listener = Callable[[Event], None]


@dataclass
class Span:
    """What became of a part.

    Args:
        reused: whether it was there already, so that its seconds say nothing of the work.
        seconds: how long it took; known once it has ended.
    """

    reused: bool = False
    seconds: float = 0.0


@dataclass
class Session:
    """What a run carries besides its data.

    Args:
        project: the project file.
        context: what stages need.
        decisions: the attempt's journal.
        record: durations of earlier runs.
        outlook: what is still to come.
        reached: the last training step that an earlier process of this attempt recorded.
        spent_before: money spent before this process.
        interrupted: whether the user has asked to stop.
        first_run_at: when the attempt's first process started, seconds since the epoch.
        peaks: the most bytes in memory in each phase, in this process.
        to_buy: the most that is still to be bought beside this machine's time, and not reserved yet, by what it is.
        turn: this process's place in the queue for the machine, where it has one.
        notifier: hands alerts on, where the project file says to whom.
        foretold_at: seconds that each phase had used when this process foretold it; none where it has not.
        did_all: whether this process trained all updates of the recipe, neither cut nor ended early nor resumed.
        probed_answer: seconds a row that the probe's few answers took; 0 where none were timed.
        grown: bytes by which imports, and baselines, let this process grow, by their part's name.
        most_asked: test rows that the limits let a model answer where answers are generated; None before it is known.
        storage: counts, and where it has a price charges, what is kept of the project.
        energy: measures what the machine draws, where codecarbon is installed.
        residuals: how far off earlier forecasts were, and this run's.
    """

    project: Project
    context: Context
    decisions: Decisions
    record: Record
    outlook: Outlook
    reached: int
    spent_before: Decimal
    interrupted: Callable[[], bool]
    first_run_at: float
    peaks: dict[str, int] = field(default_factory=dict)
    to_buy: dict[str, Decimal] = field(default_factory=dict)
    turn: Turn | None = None
    notifier: Notifier | None = None
    foretold_at: dict[str, float] = field(default_factory=dict)
    did_all: bool = False
    probed_answer: float = 0.0
    grown: dict[str, int] = field(default_factory=dict)
    most_asked: int | None = None
    energy: EnergyMeter | None = None
    storage: StorageMeter | None = None
    residuals: Residuals = field(init=False)

    def __post_init__(self) -> None:
        self.residuals = Residuals(self.record)

    def limits(self) -> Limits:
        """What may still be used, as of now."""
        meter = self.context.meter
        price = meter.price_per_hour
        kept = Decimal(0) if self.storage is None else self.storage.held
        left = meter.remaining_money()
        to_buy = sum(self.to_buy.values(), Decimal(0))
        money = left - to_buy
        ends = meter.deadline_at
        now = self.context.clock.now()
        return Limits(
            seconds_used=meter.seconds_used(),
            money_seconds=float(money / price * 3600) if price else math.copysign(math.inf, money),
            time_seconds=math.inf if ends is None else max(0.0, ends - now),
            price_per_hour=price,
            currency=self.project.file.budget.currency,
            spent_before=self.spent_before,
            to_buy=to_buy,
            to_keep=kept,
            elapsed_before=max(0.0, now - meter.seconds_used() - self.first_run_at),
            money_left=left + kept,
        )

    def upper(self, what: str) -> float:
        """The upper bound to reserve for a part.

        One part in twenty takes longer than its 95th percentile: so twice as far from the median, as far as what
        follows leaves room. What nobody has measured may take most of what is left.
        """
        seconds = self.outlook.cautious(what)
        remaining = self.context.meter.remaining_seconds()
        if seconds.basis == "prior":
            return min(seconds.p95, PRIOR_SHARE * remaining)
        room = remaining - self.outlook.after(what) - UPPER_FLOOR
        return max(seconds.p95, min(2 * seconds.p95 - seconds.p50, room)) + UPPER_FLOOR

    def plan(self, **facts: Any) -> Plan:
        """What is still to come, held against what is left."""
        return self.outlook.plan(self.limits(), **facts)

    @contextmanager
    def part(self, what: str, record: str = "", amount: float = 1.0, metered: bool = True) -> Iterator[Span]:
        """Do one part of the outlook: refused if the rest does not fit, metered, and noted in the record.

        Yields:
            what becomes of it.

        Args:
            what: the part's name in the outlook.
            record: its name in the record of durations, `what` by default.
            amount: units of it.
            metered: False where the stage reserves and meters its own units.
        """
        if self.interrupted():
            raise Interrupted("interrupted", way_out="the same command goes on from here")
        phase, per_gb = self.outlook.parts[what].phase, self.project.file.compute.transfer_per_gb
        self.to_buy.pop(what, None)  # the part reserves what it buys
        span = Span()
        began = time.monotonic()
        self.context.events.emit("stage.started", stage=what, key="")
        try:
            with self.watching(phase), paying_transfer(self.context.ledger, self.context.meter.fence, phase, per_gb):
                if metered:
                    with self.context.meter.unit(phase, what, self.upper(what)):
                        yield span
                else:
                    yield span
            self._keep(phase)
        except OutOfBudget as refusal:
            raise cannot_land(self.plan(), refusal.what) from refusal
        span.seconds = time.monotonic() - began
        if not span.reused:
            self.outlook.took(what, span.seconds)
        self.outlook.done(what)
        if not span.reused:
            self.record.add(record or what, span.seconds, amount)
            self.record.save()  # at once: a run that is killed has measured something too
        self.context.events.emit("stage.finished", stage=what, key="", seconds=span.seconds, reused=span.reused)

    def begin_storage(self) -> None:
        """Charge what was kept since the last run, and hold the money for this one.

        Raises:
            CannotLand: the budget does not hold it.
        """
        if self.storage is None:
            return
        growth = max(GROWTH_BYTES, self.record.forecast(self._growth_record, prior=GROWTH_BYTES).p95)
        remaining = self.context.meter.remaining_seconds()
        try:
            self.spent_before += self.storage.begin(FIRST_PHASE, remaining, growth)
        except OutOfBudget as refusal:
            raise cannot_land(self.plan(), refusal.what) from refusal
        self.context.meter.recount()

    def end_storage(self) -> None:
        """Charge what was kept since the last part, and note how much the run added."""
        if self.storage is not None:
            self.storage.close(LAST_PHASE)
            if self.storage.grown:
                self.record.add(self._growth_record, self.storage.grown)
                self.record.save()
            self.context.meter.recount()

    @property
    def _growth_record(self) -> str:
        return f"bytes-kept/{self.project.file.model_references[0]}"

    def _keep(self, phase: str) -> None:
        if self.storage is not None:
            self.spent_before += self.storage.look(phase)
            self.context.meter.recount()

    @contextmanager
    def watching(self, phase: str) -> Iterator[None]:
        """Note what a phase uses of the machine, and the most memory that it holds."""
        drawn = None if self.energy is None else self.energy.reading()
        with memory.peak() as seen, Watcher(self.project.file.compute.idle_below).span() as usage:
            yield
        if self.energy is not None:
            usage.add_energy(self.energy.since(drawn))
        self.peaks[phase] = max(self.peaks.get(phase, 0), seen.bytes)
        self.context.events.emit("usage", phase=phase, **told(usage))

    def expect(self, what: str, phase: str, record: str = "", amount: float = 1.0, prior: float = 1.0) -> None:
        """Put a part into the outlook, from the record or, failing that, a prior of `prior` seconds a unit."""
        self.outlook.expect(what, phase, self.record.forecast(record or what, amount, prior))

    def sharpen(self, what: str, record: str, amount: float, prior: float = 1.0) -> None:
        """Know better how much of a part there is to do."""
        self.outlook.sharpen(what, self.record.forecast(record, amount, prior))


@contextmanager
def open_session(
    project: Project,
    listeners: Sequence[Listener] = (),
    interrupted: Callable[[], bool] = lambda: False,
    clock: Clock | None = None,
    begins: bool = True,
    turn: Turn | None = None,
) -> Iterator[Session]:
    """Take the machine and go on with the project's attempt; at the end the last second is charged.

    Args:
        project: what to work on.
        listeners: called with each event.
        interrupted: whether the user has asked to stop.
        clock: the system's by default.
        begins: whether this fixes the deadline and numbers a first run; a plan does not.
        turn: in which the machine is taken; it is given back to somebody more urgent at the next safe moment.

    Raises:
        LeaseHeld: another process is at work on this machine, on this project or another.
        MissingExtra: energy is to be measured and codecarbon is not installed.
    """
    if project.file.compute.measure_energy:
        require_codecarbon()
    root = project.root.absolute()
    with explained(root):
        root.mkdir(parents=True, exist_ok=True)
    with machine_taken(project.file.name):
        session = _start(project, listeners, interrupted, clock or SystemClock(), begins, turn)
        try:
            session.begin_storage()
            yield session
            _finish(session, "done" if begins else "planned", 0, "")
        except ThriftuneError as error:
            outcome = (
                "refused"
                if isinstance(error, CannotLand)
                else "interrupted"
                if isinstance(error, Interrupted)
                else "failed"
            )
            yields_to = turn.yields_to if turn is not None and outcome == "interrupted" else None
            what = error.what if yields_to is None else f"made room for project {yields_to.project}"
            _finish(session, outcome, error.exit_code, what, leaves=yields_to is None)
            raise
        except KeyboardInterrupt:  # Ctrl-C a second time, anywhere
            _finish(session, "interrupted", EXIT_INTERRUPTED, "interrupted at once")
            raise
        except BaseException as error:
            _finish(session, "failed", 1, repr(error))
            raise


def _start(
    project: Project,
    listeners: Sequence[Listener],
    interrupted: Callable[[], bool],
    clock: Clock,
    begins: bool,
    turn: Turn | None,
) -> Session:
    """Go on with the project's attempt, or begin one, with the machine's lease in hand."""
    if turn is not None:
        listeners = [*listeners, turn.follow]
    since = None if turn is None else turn.since
    # Of two that start at once, one goes on with the attempt and the other is refused.
    with _starting(project):
        store, events, ledger, earlier = take_up(clock, project, listeners)
        balance = ledger.balance()
        meter = Meter.start(store, clock, ledger, project.price_per_hour, None, since=since)
        notifier = notified(events, project.file.budget.notify)
    attempt = events.attempt
    started = clock.now() - meter.seconds_used()
    meter.deadline_at = ledger.open_deadline(project.file.deadline, started, fixes=begins)
    return Session(
        project=project,
        context=Context(
            root=project.root,
            project=project.file.name,
            attempt=attempt,
            seed=project.file.seed,
            clock=clock,
            store=store,
            events=events,
            artifacts=ArtifactStore(project.root, store, clock, project.file.name),
            ledger=ledger,
            meter=meter,
        ),
        decisions=Decisions(events, earlier),
        record=Record.load(),
        outlook=Outlook(),
        reached=max((e.data["step"] for e in earlier if e.kind == "training.step"), default=0),
        spent_before=balance.spent,
        interrupted=interrupted,
        notifier=notifier,
        first_run_at=min([started, *(e.at for e in earlier if e.kind in BEGINNINGS)]),
        turn=turn,
        energy=_energy_meter(project),
        storage=StorageMeter(
            project.root, store, clock, ledger, meter.fence, project.file.compute.storage_per_gb_month
        ),
    )


def _energy_meter(project: Project) -> EnergyMeter | None:
    compute = project.file.compute
    return EnergyMeter(compute.local.country, compute.local.province) if compute.measure_energy else None


@contextmanager
def waiting_session(
    project: Project, turn: Turn, listeners: Sequence[Listener], interrupted: Callable[[], bool], clock: Clock
) -> Iterator[Session]:
    """The project's attempt before the machine is there: nothing is metered, and the deadline is fixed.

    What asks the session's meter raises (`NoMeter`). How it ends is recorded where it does not get the machine.
    """
    project.root.absolute().mkdir(parents=True, exist_ok=True)
    with _starting(project):
        store, events, ledger, earlier = take_up(clock, project, listeners)
        ledger.open_deadline(project.file.deadline, clock.now())
    session = Session(
        project=project,
        context=Context(
            root=project.root,
            project=project.file.name,
            attempt=events.attempt,
            seed=project.file.seed,
            clock=clock,
            store=store,
            events=events,
            artifacts=ArtifactStore(project.root, store, clock, project.file.name),
            ledger=ledger,
            meter=NoMeter(),
        ),
        decisions=Decisions(events, earlier),
        record=Record.load(),
        outlook=Outlook(),
        reached=0,
        spent_before=ledger.balance().spent,
        interrupted=interrupted,
        first_run_at=min([clock.now(), *(e.at for e in earlier if e.kind in BEGINNINGS)]),
        turn=turn,
    )
    try:
        yield session
        events.close()
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        outcome = "interrupted" if stopped else "refused" if isinstance(error, CannotLand) else "failed"
        code, what = (error.exit_code, error.what) if isinstance(error, ThriftuneError) else (EXIT_INTERRUPTED, "")
        _record_ending(session.context, outcome, code, what or f"{outcome} while it waited")
        raise
    finally:
        store.close()


@contextmanager
def _starting(project: Project) -> Iterator[None]:
    starting = project.root / STARTING_LOCK
    with explained(starting), FileLock(starting):
        yield


def database_url(project: Project) -> str:
    """The project's database: `THRIFTUNE_DATABASE_URL` (which may hold a password), or a file in its state folder."""
    return os.environ.get(DATABASE_VARIABLE) or f"sqlite:///{(project.root / DATABASE_FILE).absolute()}"


def recipe_text(project: Project) -> str:
    """What is to be done, as JSON: the project file without money, time, machine and serving."""
    whole = project.file.model_dump(mode="json")
    return json.dumps({name: value for name, value in whole.items() if name not in NOT_IN_RECIPE}, sort_keys=True)


def take_up(
    clock: Clock, project: Project, listeners: Sequence[Listener]
) -> tuple[Store, EventLog, Ledger, list[Event]]:
    """The attempt to go on with and its events, the budget open."""
    store = open_store(database_url(project))
    attempt, earlier = _attempt(store, clock, project)
    events = EventLog(store, clock, project.file.name, attempt)
    for listener in listeners:
        events.subscribe(listener)
    ledger = Ledger(store, clock, project.file.name, events)
    budget = project.file.budget
    ledger.open_budget(budget.total, budget.currency, budget.allowances(), budget.category_allowances())
    return store, events, ledger, earlier


def _attempt(store: Store, clock: Clock, project: Project) -> tuple[int, list[Event]]:
    """The attempt to go on with and its events; a new one unless the last is unfinished and has this recipe."""
    last = latest_attempt(store, project.file.name)
    unfinished = last is not None and last.outcome in UNFINISHED
    if last is not None and unfinished and last.recipe == recipe_text(project):
        resume_attempt(store, project.file.name, last.attempt)
        log = EventLog(store, clock, project.file.name, last.attempt)
        return last.attempt, log.read(attempt=last.attempt)
    return open_attempt(store, clock, project.file.name, recipe_text(project)).attempt, []


def _finish(session: Session, outcome: str, exit_code: int, message: str, leaves: bool = True) -> None:
    """Record how it ended, charge the rest, and give the machine back.

    Args:
        leaves: whether the process ends now, which takes a moment more of the machine.
    """
    if session.energy is not None:
        session.energy.close()
    session.record.save()
    _record_ending(session.context, outcome, exit_code, message)
    session.end_storage()
    leaving = session.record.forecast("exit", prior=EXIT_SECONDS).p50 if leaves else 0.0
    session.context.meter.close(LAST_PHASE, leaving)
    if session.notifier is not None:
        session.notifier.finish()


def _record_ending(context: Context, outcome: str, exit_code: int, message: str) -> None:
    context.events.emit("attempt.finished", outcome=outcome, exit_code=exit_code, message=message)
    finish_attempt(
        context.store,
        context.clock,
        context.project,
        context.attempt,
        outcome=outcome,
        exit_code=exit_code,
        message=message,
    )
    context.events.close()
