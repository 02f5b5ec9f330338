"""The line: the one place that knows the order of the data.

`run` does it all; `plan` goes as far as the probe and says what the rest will take. Both walk the same steps, which
is what makes the plan a forecast of this run and not of some other.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from thriftune.artifacts import Artifact, recipe_key
from thriftune.budget.forecast import Forecast, total
from thriftune.budget.record import machine_class
from thriftune.collect import collect
from thriftune.evaluate.types import Scores
from thriftune.models.files import folder_files
from thriftune.models.gguf import gguf_file
from thriftune.models.reference import ModelReference
from thriftune.plan.plan import PHASES, Plan
from thriftune.prepare import prepare
from thriftune.project.project import Project
from thriftune.session import EXIT_SECONDS, Listener, Session, open_session, recipe_text

if TYPE_CHECKING:
    import polars as pl
    import torch

    from thriftune.evaluate.types import Evaluation
    from thriftune.prepare.types import Splits
    from thriftune.tasks.base import Predictor, Task
    from thriftune.train.loop import Costs
    from thriftune.train.machine import Machine
    from thriftune.train.train import TunedModel, Work

BYTES_PER_ROW = 150.0  # prior of a row's size, before the rows are counted
VERSIONS = ("thriftune", "torch", "transformers", "peft", "scikit-learn", "numpy")
# Priors, in seconds a unit, for what this machine class has never done; a run's own figures take over at once.
PRIOR_IMPORTS = 6.0
PRIOR_LOAD = 3.0
PRIOR_ENCODE_ROW = 1e-3
PRIOR_PROBE = {"classify": 5.0, "chat": 30.0}
PRIOR_BASELINES = 3.0
PRIOR_ANSWER_ROW = {"classify": 0.02, "chat": 1.0}
PRIOR_VERDICT = 2.0
PRIOR_REPORT = 2.0
PRIOR_TRAINING = 10.0
PROBE_ROWS = {"classify": 64, "chat": 4}
LANDING_SLACK = 0.1  # how far below what is left the governor may end training: its dead band, twice
TAIL_FLOOR = 1.0  # seconds kept free for the small things between the parts after training
ANSWER_SPREAD = 0.3  # 95th percentile over the median of a predictor's time, once a sample of rows was timed


@dataclass(frozen=True)
class Bench:
    """Everything that training needs, probed: what a plan is made from."""

    work: Work
    model: torch.nn.Module
    machine: Machine
    costs: Costs


def run(project: Project, listeners: Sequence[Listener] = (), interrupted: Callable[[], bool] = lambda: False) -> Path:
    """From the project file to the report; goes on where an earlier run stopped.

    Returns:
        the HTML report.

    Raises:
        CannotLand: money or time do not hold the least that works, which it names.
        BadInput: the data, the model or the project file cannot be used.
        Interrupted: the user stopped it; the next run goes on.
    """
    with open_session(project, listeners, interrupted) as session:
        _begin(session)
        splits = _data(session)
        baselines = _baselines(session, splits)
        work = _encode(session, splits)
        done = session.context.artifacts.find("train", work.key)
        if done is None:
            bench = _bench(session, splits, work)
            _forecast(session, bench).require()
            untuned = _untuned(session, splits, work.task)
            tuned = _train(session, bench, splits)
        else:
            for part in ("load", "probe", "train", "save"):
                session.outlook.done(part)
            untuned = _untuned(session, splits, work.task)
            tuned = _opened(session, done)
        evaluation = _evaluate(session, splits, work.task, [*baselines, untuned], tuned)
        return _report(session, evaluation)


def plan(project: Project, listeners: Sequence[Listener] = ()) -> Plan:
    """What a run will take: the data is prepared and real steps are probed, which is metered like everything else."""
    with open_session(project, listeners, begins=False) as session:
        _begin(session)
        splits = _data(session)
        work = _encode(session, splits)
        bench = _bench(session, splits, work)
        return _forecast(session, bench)


def _begin(session: Session) -> None:
    """Say what begins, and expect everything that is to come from the record and from priors."""
    project, context = session.project, session.context
    file = project.file
    task, reference = file.objective.task, file.model_references[0]
    context.events.emit(
        "attempt.started",
        recipe=recipe_text(project),
        seed=file.seed,
        project_file=str(project.path),
        machine=machine_class(),
        versions={name: version(name) for name in VERSIONS} | {"python": platform.python_version()},
        started_at=context.clock.now() - context.meter.seconds_used(),
        deadline_at=context.meter.deadline_at,
        budget=str(file.budget.total),
        currency=file.budget.currency,
        price_per_hour=str(context.meter.price_per_hour),
        pid=os.getpid(),
    )
    for text in project.warnings:
        context.events.emit("warning", where="prices", what=text)
    session.record.add("start", context.meter.seconds_used())

    base = project.folder
    size = sum((base / source.file).stat().st_size for source in file.data if (base / source.file).is_file())
    rows = size / BYTES_PER_ROW
    session.outlook.expect("collect", "collection", collect.estimate(file.data, base))
    session.outlook.expect("prepare", "collection", prepare.estimate(size))
    session.expect("imports", "training", prior=PRIOR_IMPORTS)
    session.expect("encode", "training", f"encode/{reference}", rows, PRIOR_ENCODE_ROW)
    session.expect("baselines", "evaluation", f"baselines/{task}", prior=PRIOR_BASELINES)
    session.expect("load", "training", f"load/{reference}", prior=PRIOR_LOAD)
    session.expect("probe", "training", f"probe/{reference}", prior=PRIOR_PROBE[task])
    asked = min(rows * 0.1, file.evaluate.generate_rows if task == "chat" else rows)
    for who in ("untuned", "tuned"):
        if who == "tuned":
            session.outlook.expect(
                "train", "training", session.record.forecast(f"least/{reference}", 1, PRIOR_TRAINING)
            )
            session.expect("save", "training", f"save/{reference}", prior=1.0)
            session.expect("open", "evaluation", f"open/{reference}", prior=PRIOR_LOAD)
        session.expect(who, "evaluation", f"answer/{reference}", asked, PRIOR_ANSWER_ROW[task])
    session.expect("verdict", "evaluation", f"verdict/{task}", prior=PRIOR_VERDICT)
    session.expect("report", "evaluation", prior=PRIOR_REPORT)
    session.expect("exit", "evaluation", prior=EXIT_SECONDS)


def _data(session: Session) -> Splits:
    """Sources into splits."""
    file, context = session.project.file, session.context
    _check_model_folders(session.project)
    session.plan().require()
    with session.part("collect", metered=False):
        corpus = collect.run(file.data, file.objective.task, file.collect, context, session.project.folder)
    session.outlook.expect("prepare", "collection", prepare.estimate(corpus.characters))
    with session.part("prepare", metered=False):
        return prepare.run(corpus, file.prepare, context)


def _check_model_folders(project: Project) -> None:
    """Refuse a folder with a file missing before anything is paid for; the rest needs the heavy imports, and is later.

    A GGUF file, which needs no folder around it, is converted first and looked at then.
    """
    for text in project.file.model_references:
        reference = ModelReference.parse(text, project.folder)
        path = project.folder / Path(reference.name).expanduser()
        if reference.scheme == "path" and gguf_file(path) is None:
            folder_files(path)


def _baselines(session: Session, splits: Splits) -> list[Scores]:
    """The cheap baselines, fitted, and scored on the test split."""
    import polars as pl

    from thriftune.select import select

    file, context = session.project.file, session.context
    with session.part("baselines", f"baselines/{splits.task}", metered=False):
        selection = select.run(splits, file.select, context, session.upper("baselines"))
        test = pl.read_parquet(splits.test)
        return [
            _scored(session, predictor, selection.content_hash, test, splits) for predictor in selection.predictors()
        ]


def _scored(
    session: Session,
    predictor: Predictor,
    identity: str,
    test: pl.DataFrame,
    splits: Splits,
    candidate: str = "",
    upper_seconds: float | None = None,
) -> Scores:
    """A predictor's scores on the test split: looked at once, and found again by who answered what."""
    from thriftune.evaluate import evaluate

    file, context = session.project.file, session.context
    options = file.evaluate.model_dump(mode="json") | {"seed": file.seed}
    key = recipe_key(
        "score", 1, {"predictor": identity, "splits": splits.content_hash}, {"name": predictor.name} | options, {}
    )

    def write(folder: Path) -> None:
        scores = evaluate.score(
            predictor,
            test,
            "test",
            splits.task,
            file.evaluate,
            context,
            candidate=candidate,
            upper_seconds=upper_seconds,
        )
        scores.save(folder)

    artifact = context.artifacts.build("score", key, {"predictor": predictor.name}, write)
    scores = Scores.load(artifact.folder)
    if artifact.reused:
        evaluate.tell(scores, context)
    return scores


def _encode(session: Session, splits: Splits) -> Work:
    """The task, and the training and validation rows as its model reads them."""
    file = session.project.file
    reference = file.model_references[0]
    with session.part("imports"):
        import polars as pl
        import torch  # noqa: F401  the import is what takes the time
        import transformers  # noqa: F401

        from thriftune.train import setup
    rows = sum(splits.report["rows"].values())
    with session.part("encode", f"encode/{reference}", rows):
        target = file.objective.target
        work = setup.work_of(
            splits.task,
            reference,
            session.project.folder,
            file.train,
            file.seed,
            splits.content_hash,
            pl.read_parquet(splits.train),
            pl.read_parquet(splits.validation),
            target.metric if target else None,
        )
    session.context.events.emit(
        "data.tokens",
        train=int(work.train.lengths.sum()),
        validation=int(work.validation.lengths.sum()),
        cut_tokens=work.train.cut_tokens + work.validation.cut_tokens,
        cut_rows=work.train.cut_rows + work.validation.cut_rows,
    )
    return work


def _opened(session: Session, artifact: Artifact) -> TunedModel:
    """The tuned model that this recipe made before."""
    from thriftune.train.train import open_tuned

    session.context.events.emit("stage.started", stage="train", key=artifact.key)
    session.context.events.emit("stage.finished", stage="train", key=artifact.key, seconds=0.0, reused=True)
    return open_tuned(artifact)


def _bench(session: Session, splits: Splits, work: Work) -> Bench:
    """The fresh model on this machine, its training probed, and one answer timed."""
    from thriftune.train.loop import Loop, Supervision
    from thriftune.train.machine import choose_machine
    from thriftune.train.probe import probe_costs

    file, context = session.project.file, session.context
    reference = file.model_references[0]
    machine = choose_machine(session.decisions.take, work.hidden_size, file.train)
    with session.part("load", f"load/{reference}"):
        model = work.task.build()
    probe = _probe_seconds(session)
    with session.part("probe", f"probe/{reference}"):
        watch = Supervision(session.decisions, context.events, None, None, context.root / "probe")
        loop = Loop(work.task, model, work.train, work.validation, work.recipe, machine, watch)
        costs = probe_costs(loop, probe, context.root)
        row_seconds = _probe_answers(session, splits, work.task, model)
    _expect_measured(session, splits, Bench(work, model, machine, costs), row_seconds)
    return Bench(work, model, machine, costs)


def _probe_answers(session: Session, splits: Splits, task: Task, model: torch.nn.Module) -> float:
    """Seconds a row that answering takes, from a few validation rows, where the record does not tell."""
    import polars as pl

    from thriftune.evaluate.asking import drawn, requests_of

    reference = session.project.file.model_references[0]
    known = session.record.forecast(f"answer/{reference}")
    if known.basis == "record":
        return known.p50
    rows = drawn(pl.read_parquet(splits.validation), PROBE_ROWS[splits.task])
    began = time.monotonic()
    task.predictor(model, "probe").predict(requests_of(rows))
    return (time.monotonic() - began) / len(rows)


def _probe_seconds(session: Session) -> float:
    """How long to go on with steps past the first two."""
    options = session.project.file.plan
    most: float = min(options.probe_seconds, options.probe_share * session.limits().seconds)
    return most


def _expect_measured(session: Session, splits: Splits, bench: Bench, row_seconds: float) -> None:
    """Sharpen what the probe has measured: training, saving, answering."""
    from thriftune.train import train

    file = session.project.file
    work, costs = bench.work, bench.costs
    every, _ = train.validate_every(work, costs)
    full = train.estimate(work, costs, every, work.full_steps, file.train)
    least = train.minimum(work, costs)
    session.record.add(f"least/{file.model_references[0]}", least.p50)  # for the refusal that comes before a probe
    session.outlook.expect("train", "training", full, least)
    session.outlook.expect("save", "training", Forecast.lognormal(costs.checkpoint / 2, 1.0, "probe"))
    answers = Forecast.lognormal(row_seconds * _asked(session, splits), ANSWER_SPREAD, "probe")
    for who in ("untuned", "tuned"):
        session.outlook.expect(who, "evaluation", answers)


def _forecast(session: Session, bench: Bench) -> Plan:
    """The plan as of now, recorded for the report to score."""
    work = bench.work
    plan = session.plan(
        planned_steps=_affordable(session, bench),
        full_steps=work.full_steps,
        tokens=int(work.train.lengths.sum()) * work.recipe.epochs,
    )
    training, evaluation = plan.phase("training"), plan.phase("evaluation")
    if not plan.fits_whole:
        training = _fitted(session, plan)
    phases = {"training": training, "evaluation": evaluation}
    for phase, ahead in phases.items():
        _emit_forecast(session, phase, ahead.plus(_used(session, phase)))
    limits = plan.limits
    _emit_forecast(
        session,
        "total",
        total(list(phases.values())).plus(limits.seconds_used).capped(limits.seconds_used + limits.seconds),
    )
    return plan


def _fitted(session: Session, plan: Plan) -> Forecast:
    """Training's seconds where the limit cuts it: what the governor will find left when the rest is kept free.

    The longer what comes before it takes, the less is left, so the quantiles turn round.
    """
    names = list(session.outlook.parts)
    before = total([session.outlook.parts[name].seconds for name in names[: names.index("train")]])
    room = plan.limits.seconds - session.outlook.after("train") - TAIL_FLOOR
    landing = (1 - LANDING_SLACK, 1 - LANDING_SLACK / 2, 1 - LANDING_SLACK / 4, 1.0, 1.0)
    ahead = [max(0.0, room - taken) * share for taken, share in zip(reversed(before.quantiles()), landing, strict=True)]
    return Forecast.of(ahead, "probe")


def _affordable(session: Session, bench: Bench) -> int:
    """The steps that training would begin with, if it began now and what comes before it were done."""
    from thriftune.train import train

    names = list(session.outlook.parts)
    before = sum(session.outlook.parts[name].seconds.p50 for name in names[: names.index("train")])
    remaining = session.limits().seconds - before
    tail = session.outlook.after("train") + TAIL_FLOOR
    options = session.project.file.train
    return train.governor_of(
        bench.work, bench.costs, None, options, lambda: remaining, tail, session.project.file.plan.dead_band
    ).planned(bench.costs.seconds_per_token * bench.work.mean_step_tokens)


def _used(session: Session, phase: str) -> float:
    """Seconds charged to a phase in this attempt so far."""
    charges = session.context.events.read(attempt=session.context.attempt, kinds=["charge"])
    return math.fsum(event.data["seconds"] for event in charges if event.data["phase"] == phase)


def _emit_forecast(session: Session, phase: str, seconds: Forecast) -> None:
    price = float(session.context.meter.price_per_hour) / 3600
    for quantity, forecast in (("time_s", seconds), ("cost", seconds.scaled(price))):
        p5, p25, p50, p75, p95 = forecast.quantiles()
        session.context.events.emit(
            "forecast",
            phase=phase,
            quantity=quantity,
            basis=forecast.basis,
            p5=p5,
            p25=p25,
            p50=p50,
            p75=p75,
            p95=p95,
        )


def _untuned(session: Session, splits: Splits, task: Task) -> Scores:
    """The model as it came, on the test split."""
    import polars as pl

    test = pl.read_parquet(splits.test)
    reference = session.project.file.model_references[0]
    asked = _asked(session, splits)
    identity = json.dumps(task.describe(), sort_keys=True)
    upper = session.upper("untuned")
    with session.part("untuned", f"untuned/{reference}", asked, metered=False):
        scores = _scored(session, task.untuned(), identity, test, splits, upper_seconds=upper)
    if scores.seconds > 0:
        session.record.add(f"answer/{reference}", scores.seconds, asked)
        session.outlook.expect("tuned", "evaluation", Forecast.lognormal(scores.seconds, ANSWER_SPREAD, "measured"))
    return scores


def _asked(session: Session, splits: Splits) -> int:
    rows: int = splits.report["rows"]["test"]
    return min(rows, session.project.file.evaluate.generate_rows) if splits.task == "chat" else rows


def _train(session: Session, bench: Bench, splits: Splits) -> TunedModel:
    """Train under the governor, with what follows kept free."""
    from thriftune.train import train

    began = time.monotonic()
    session.context.events.emit("stage.started", stage="train", key=bench.work.key)
    tuned = train.run(
        bench.work,
        bench.model,
        bench.machine,
        bench.costs,
        session.outlook.after("train") + TAIL_FLOOR,
        session.decisions,
        session.reached,
        session.project.file.train,
        session.context,
        session.interrupted,
        session.project.file.plan.dead_band,
        {"serving_steps": list(splits.serving_steps), "project": session.project.file.name},
    )
    seconds = time.monotonic() - began
    session.context.events.emit("stage.finished", stage="train", key=bench.work.key, seconds=seconds, reused=False)
    for part in ("train", "save"):
        session.outlook.done(part)
    return tuned


def _evaluate(session: Session, splits: Splits, task: Task, baselines: list[Scores], tuned: TunedModel) -> Evaluation:
    """The tuned model as it was saved, on the test split, against everyone; and the verdict."""
    import polars as pl

    from thriftune.evaluate import evaluate

    file, context = session.project.file, session.context
    reference = file.model_references[0]
    with session.part("open", f"open/{reference}"):
        predictor = task.predictor(task.load(tuned.folder), "tuned")
    upper = session.upper("tuned")
    with session.part("tuned", f"tuned/{reference}", _asked(session, splits), metered=False):
        test = pl.read_parquet(splits.test)
        scores = _scored(
            session, predictor, tuned.content_hash, test, splits, candidate=tuned.content_hash, upper_seconds=upper
        )
    target = file.objective.target
    latency = None
    if target and target.latency_p95_ms is not None:
        from thriftune.evaluate.latency import measure_latency

        latency = measure_latency(predictor, test, file.evaluate, context)
    upper = session.upper("verdict")
    with session.part("verdict", f"verdict/{splits.task}", metered=False):
        return evaluate.conclude(
            scores, baselines, file.evaluate, context, target=target, latency=latency, upper_seconds=upper
        )


def _report(session: Session, evaluation: Evaluation) -> Path:
    """The page, from the events and the ledger."""
    from thriftune.report.html import report_path, write_html
    from thriftune.report.load import load_report
    from thriftune.report.summary import summarise

    context = session.context
    _emit_actuals(session)
    with session.part("report"):
        report = load_report(context.store, summarise(session.project.file), context.attempt)
        path = write_html(report, report_path(context.root, context.attempt))
    session.outlook.done("exit")
    return path


def _emit_actuals(session: Session) -> None:
    """What each phase really took, to be held against its forecast."""
    price = float(session.context.meter.price_per_hour) / 3600
    used = {phase: _used(session, phase) for phase in PHASES}
    for phase, seconds in (used | {"total": session.context.meter.seconds_used()}).items():
        session.context.events.emit("actual", phase=phase, quantity="time_s", value=seconds)
        session.context.events.emit("actual", phase=phase, quantity="cost", value=seconds * price)
