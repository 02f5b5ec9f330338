"""Progress of a run, drawn from its events: bars on a terminal, plain lines elsewhere, JSON for programs.

The same functions follow a run of this process (`subscriber`, subscribed to its event log) and one of another process
(`follow`, which reads the database).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TextIO

from thriftune.cli.telling import pace, said
from thriftune.events import Event
from thriftune.report.wording import count, duration, money, score, spaced

if TYPE_CHECKING:
    from rich.console import RenderableType

    from thriftune.project import Project
    from thriftune.store import Store

Mode = Literal["bars", "lines", "json"]
LINE_SECONDS = 2.0  # between two plain lines about training steps
REFRESHES_PER_SECOND = 2.0  # of the bars: enough to be alive, too few to cost anything
POLL_SECONDS = 0.5


def mode_for(as_json: bool, stream: TextIO) -> Mode:
    """How to show progress on a stream: JSON if asked for, bars on a terminal, lines elsewhere."""
    if as_json:
        return "json"
    return "bars" if stream.isatty() else "lines"


@dataclass
class Standing:
    """Where a run stands, by the events so far.

    Args:
        spent: money of the whole project; begin with what was spent before the first event.
        ledger: tells what was spent when a process starts, its start-up included; None to count the charges alone.
        now: gives the instant, seconds since the epoch.
    """

    spent: Decimal = Decimal(0)
    ledger: Callable[[], Decimal] | None = None
    now: Callable[[], float] = time.time
    stages: list[str] = field(default_factory=list)
    step: int = 0
    planned: int | None = None
    training_stage: str = ""
    loss: float | None = None
    step_seconds: float | None = None
    started_at: float | None = None
    deadline_at: float | None = None
    budget: Decimal | None = None
    currency: str = ""

    def take(self, event: Event) -> None:
        """Count an event in."""
        data = event.data
        match event.kind:
            case "attempt.started":
                self.stages.clear()
                self.started_at, self.deadline_at = data["started_at"], data["deadline_at"]
                self.budget = None if data["budget"] is None else Decimal(data["budget"])
                self.currency = data["currency"]
                if self.ledger is not None:
                    self.spent = self.ledger()
            case "stage.started":
                self.stages.append(data["stage"])
            case "stage.finished" if data["stage"] in self.stages:
                self.stages.remove(data["stage"])
                if data["stage"] == self.training_stage:
                    self.planned = None  # its steps are no news any more
            case "training.step" | "trial.training.step":
                self.step, self.planned, self.loss = data["step"], data["planned"], data["loss"]
                self.training_stage = self.stage
                self._pace(data["seconds"])
            case "charge":
                self.spent += Decimal(data["amount"])
            case "budget.added" if self.budget is not None:
                self.budget += Decimal(data["amount"])

    def _pace(self, seconds: float) -> None:
        self.step_seconds = seconds if self.step_seconds is None else 0.9 * self.step_seconds + 0.1 * seconds

    @property
    def stage(self) -> str:
        """The stage at work, the innermost; empty between stages."""
        return self.stages[-1] if self.stages else ""

    @property
    def seconds_left(self) -> float | None:
        """To the deadline; None without one."""
        return None if self.deadline_at is None else self.deadline_at - self.now()

    def step_line(self) -> str:
        """Step, loss, rate, money and time in one line."""
        parts = [f"step {count(self.step)}" if self.planned is None else f"step {self.step:,}/{self.planned:,}"]
        if self.loss is not None:
            parts.append(f"loss {score(self.loss)}")
        if self.step_seconds is not None:
            parts.append(f"{pace(self.step_seconds)}")
        return "  ".join([*parts, self.limits_line()])

    def limits_line(self) -> str:
        """Money and time in a few words."""
        spent = money(self.spent, self.currency)
        parts = [spent if self.budget is None else f"{spent} of {money(self.budget, self.currency)}"]
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return "  ".join(parts)


class Subscriber:
    """What is called with each event and closed at the end, by itself as a context manager; this one is silent."""

    def __call__(self, event: Event) -> None:
        """Take an event."""

    def close(self) -> None:
        """Leave the stream in order; a second call does nothing."""

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def subscriber(
    mode: Mode,
    stream: TextIO | None = None,
    spent: Decimal = Decimal(0),
    ledger: Callable[[], Decimal] | None = None,
    now: Callable[[], float] = time.time,
) -> Subscriber:
    """What shows a run's progress.

    Args:
        mode: how.
        stream: where; standard output by default.
        spent, ledger, now: see `Standing`.
    """
    stream = stream or sys.stdout
    if mode == "json":
        return _Json(stream)
    standing = Standing(spent, ledger, now)
    return _Bars(stream, standing) if mode == "bars" else _Lines(stream, standing)


def watch(project: Project, as_json: bool = False, quiet: bool = False) -> Subscriber:
    """What shows the progress of a run of this process, on standard output; with `quiet`, nothing."""
    if quiet:
        return Subscriber()
    return subscriber(mode_for(as_json, sys.stdout), ledger=lambda: _spent(project))


def _spent(project: Project) -> Decimal:
    from thriftune.cli.records import opened
    from thriftune.report.load import read_balance

    with opened(project) as store:
        balance = None if store is None else read_balance(store, project.file.name)
    return Decimal(0) if balance is None else balance.spent


class _Json(Subscriber):
    """Each event as a line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._out = _Output(stream)

    def __call__(self, event: Event) -> None:
        self._out.line(json.dumps(asdict(event)))


class _Lines(Subscriber):
    """What happens, a line each; training steps at most every `LINE_SECONDS`."""

    def __init__(self, stream: TextIO, standing: Standing) -> None:
        self._out = _Output(stream)
        self._standing = standing
        self._told_at = -LINE_SECONDS

    def __call__(self, event: Event) -> None:
        self._standing.take(event)
        if event.kind in {"training.step", "trial.training.step"}:
            last = event.data["step"] == event.data["planned"]
            if event.at - self._told_at >= LINE_SECONDS or last:
                self._told_at = event.at
                self._out.line(self._standing.step_line())
            return
        line = said(event, self._standing.currency)
        if line is not None:
            self._out.line(line)


class _Bars(Subscriber):
    """Bars for steps, money and time that stay at the bottom, and what happens above them."""

    def __init__(self, stream: TextIO, standing: Standing) -> None:
        from rich.console import Console
        from rich.live import Live

        self._standing = standing
        self._console = Console(file=stream, highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=lambda: bars(standing, self._console.width),
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._begun = False
        self._ended = False

    def __call__(self, event: Event) -> None:
        from rich.text import Text

        self._standing.take(event)
        if event.kind == "attempt.started":
            self._ended = False
        if not self._begun and not self._ended:
            self._begun = True
            self._live.start()
        line = None if event.kind == "stage.started" else said(event, self._standing.currency)
        if line is not None:
            self._console.print(Text(line, style=STYLES.get(event.kind, "")))
        if event.kind == "attempt.finished":
            self._ended = True  # the exit is charged after it, which nobody needs to see
            self.close()

    def close(self) -> None:
        if self._begun:
            self._begun = False
            self._live.stop()


STYLES = {
    "stage.finished": "dim",
    "data.entry": "dim",
    "decision": "dim",
    "warning": "yellow",
    "alert": "yellow",
    "review": "yellow",
    "breach": "bold red",
    "verdict": "bold",
}


def bars(standing: Standing, width: int) -> RenderableType:
    """The bars: training steps once there are some, money, time."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1), expand=False)
    rows: list[tuple[str, float, float, str]] = []
    if standing.planned is not None and standing.step_seconds is not None:
        told = f"{standing.step:,}/{standing.planned:,}  {pace(standing.step_seconds)}  loss {score(standing.loss)}"
        rows.append(("steps", standing.step, standing.planned, told))
    if standing.stage:
        grid.add_row(Text("stage"), Text(spaced(standing.stage), style="bold"))
    spent = money(standing.spent, standing.currency)
    if standing.budget is not None:
        told = f"{spent} of {money(standing.budget, standing.currency)}"
        rows.append(("budget", float(standing.spent), float(standing.budget), told))
    if standing.started_at is not None and standing.deadline_at is not None:
        whole = standing.deadline_at - standing.started_at
        rows.append(
            ("deadline", standing.now() - standing.started_at, whole, f"{duration(standing.seconds_left)} left")
        )
    for name, done, whole, told in rows:
        over = done > whole
        bar = ProgressBar(
            total=max(whole, 1e-9),
            completed=max(0.0, min(done, whole)),
            width=max(10, min(40, width - 60)),
            complete_style="red" if over else "cyan",
            finished_style="red" if over else "green",
        )
        grid.add_row(Text(spaced(name)), bar, Text(told, overflow="ellipsis", no_wrap=True))
    return grid


class _Output:
    """A text stream that may go away: a run does not end because nobody reads its progress any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def line(self, text: str) -> None:
        if self._gone:
            return
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except BrokenPipeError:
            self._gone = True
            # What is still buffered would raise again when the process ends (Python's manual, on SIGPIPE).
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def follow(
    store: Store,
    project: str,
    attempt: int,
    receive: Callable[[Event], None],
    alive: Callable[[], bool],
    poll_seconds: float = POLL_SECONDS,
) -> Event | None:
    """Hand on the events of an attempt, those recorded before and those to come, until it ends.

    Args:
        store: the database; nothing is written to it.
        project: the project's name.
        attempt: the attempt's number.
        receive: called with each event, in order.
        alive: whether somebody still works on the attempt.
        poll_seconds: between two looks.

    Returns:
        how it ended, or None when its process is gone without having said so.
    """
    from thriftune.report.build import ending
    from thriftune.report.load import reader

    log = reader(store, project)
    seen = 0
    bounds: list[Event] = []
    while True:
        at_work = alive()  # before the look, so that what a process recorded last is still read
        for event in log.read(attempt=attempt, after=seen):
            seen = event.seq
            if event.kind in ("attempt.started", "attempt.finished"):
                bounds.append(event)
            receive(event)
        if not at_work:
            return ending(bounds)
        time.sleep(poll_seconds)
