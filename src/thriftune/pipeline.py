"""The line: the one place that knows the order of the data.

`run` does it all; `plan` goes as far as the probe and says what the rest will take. Both walk the same steps, which
is what makes the plan a forecast of this run and not of some other.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from thriftune import evidence_line, reviewing, search_line, supposing
from thriftune.artifacts import Artifact, recipe_key
from thriftune.asked import (
    asked_rows,
    asks_fewer,
    baselines_seconds,
    expect_answers,
    limit_asked,
    measuring_seconds,
    take_asked,
    verdict_seconds,
)
from thriftune.budget.forecast import Forecast
from thriftune.budget.record import machine_class
from thriftune.collect import collect
from thriftune.errors import BadInput, CannotLand
from thriftune.evaluate.types import Scores
from thriftune.forecasting import (
    ANSWER_RELATIVE,
    ANSWER_SPREAD,
    TAIL_FLOOR,
    Answering,
    Bench,
    expect_all,
    expect_measured,
    expect_sized,
    forecast,
    note_grown,
    note_opened,
    note_residuals,
    tell_actuals,
    tell_plan,
)
from thriftune.managed.backends import provider_of
from thriftune.memory import peak, resident_bytes
from thriftune.models.files import folder_files
from thriftune.models.gguf import gguf_file
from thriftune.models.reference import ModelReference
from thriftune.plan.plan import Plan
from thriftune.plan.whatif import Answer, Question
from thriftune.prepare import prepare
from thriftune.project.project import Project
from thriftune.session import Listener, Session, Span, open_session, recipe_text
from thriftune.sizes import size_of
from thriftune.tasks.heads import can_have_heads
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    import polars as pl
    import torch

    from thriftune.money.queue import Turn
    from thriftune.prepare.types import Splits
    from thriftune.tasks.base import Answerer, Predictor, Task
    from thriftune.train.machine import Machine
    from thriftune.train.ranks import Group
    from thriftune.train.stopping import Stopping
    from thriftune.train.train import TunedModel, Work

ANSWERS_SHARE = 0.05  # of what is left, at most, goes into timing answers to their ends
SHORT, LONGER = 2, 10  # tokens of answers that are timed in their place
VERSIONS = ("thriftune", "torch", "transformers", "peft", "scikit-learn", "numpy")


def run(
    project: Project,
    listeners: Sequence[Listener] = (),
    interrupted: Callable[[], bool] = lambda: False,
    group: Group | None = None,
    turn: Turn | None = None,
) -> Path | None:
    """From the project file to the report; goes on where an earlier run stopped.

    Args:
        project: what to do.
        listeners: called with each event.
        interrupted: whether the user has asked to stop.
        group: the processes that train together, of which this is the first; None where it is alone.
        turn: in which this machine is taken (see `queueing`); None to be refused where another has it.

    Returns:
        the HTML report; None where the limits do not hold its writing.

    Raises:
        CannotLand: money or time do not hold the least that works, which it names.
        BadInput: the data, the model or the project file cannot be used.
        Interrupted: the user stopped it; the next run goes on.
    """
    search_line.check(project, alone=group is None and _is_trained_here(project))
    with open_session(project, listeners, interrupted, turn=turn) as session:
        _begin(session)
        reviewer = reviewing.watch(session)
        splits = _data(session)
        reviewer.size = size_of(splits)
        late = asks_fewer(session)  # by how many rows a baseline is judged, the limits say after the probe
        baselines = [] if late else _baselines(session, splits)
        if _is_trained_here(project):
            task, untuned, tuned = _trained_here(session, splits, group, reviewer)
        else:
            task, untuned, tuned = _trained_elsewhere(session, splits, group)
        _evaluate(session, splits, task, baselines + untuned, tuned, alone=group is None)
        return _report(session)


def plan(project: Project, listeners: Sequence[Listener] = ()) -> Plan:
    """What a run will take: the data is prepared and real steps are probed, which is metered like everything else."""
    return ask(project, Question(), listeners).before


def ask(project: Project, question: Question, listeners: Sequence[Listener] = ()) -> Answer:
    """The plan, and what it would be under another budget, deadline, target or number of rows."""
    with open_session(project, listeners, begins=False) as session:
        _begin(session)
        splits = _data(session, must_land=not question.asks)
        if not _is_trained_here(project):
            from thriftune import managed_line

            _refuse_to_guess(question)
            quoted = managed_line.priced(session, splits, managed_line.ordered(session, splits))[0]
            rows = round(size_of(splits).rows)
            return Answer(question, quoted, quoted, (rows, rows), project.file.train.epochs or 0)
        _import(session)
        work = _encode(session, splits)
        bench = _bench(session, splits, work)
        size = size_of(splits)
        made = forecast(session, size, bench)
        proposed = reviewing.proposed(session, bench, made, size)
        return replace(supposing.answer(session, bench, splits, made, question), proposals=proposed)


def _refuse_to_guess(question: Question) -> None:
    if question.asks:
        raise BadInput(
            "what-if questions are about training on this machine",
            where="thriftune plan",
            found="a model that its provider tunes",
            expected="thriftune plan without --budget, --deadline, --target or --rows",
            way_out="change the project file and plan again; a plan of a managed model sends no job",
        )


def _is_trained_here(project: Project) -> bool:
    return provider_of(project.file.model_references[0], project.folder) is None


def _trained_here(
    session: Session, splits: Splits, group: Group | None, reviewer: reviewing.Reviewer
) -> tuple[Answerer, list[Scores], TunedModel | Artifact]:
    """The task, the scores of what the tuned model is held against, and that model, trained here or found."""
    _import(session)
    search_line.searched(session, splits, partial(_meant, session), partial(reviewing.room_for_search, reviewer))
    reviewing.make_again(session)
    work = _encode(session, splits)
    done = session.context.artifacts.find("train", work.key)
    if done is None:
        bench = _bench(session, splits, work, group)
        while group is None and reviewing.move(reviewer, bench):
            del bench  # its model makes room for the next
            work = _encode(session, splits)
            bench = _bench(session, splits, work)
        reviewer.probed = forecast(session, size_of(splits), bench)
        reviewer.probed.require()
        others = _others(session, splits, work.task)
        return work.task, others, _train(session, bench, splits)
    for part in ("load", "probe", "train", "save"):
        session.outlook.done(part)
    answering = f"answer/{session.project.file.model_references[0]}"
    limit_asked(session, session.record.forecast(answering, prior=kind_of(splits.task).answer_seconds))
    return work.task, _others(session, splits, work.task), _opened(session, done)


def _others(session: Session, splits: Splits, task: Answerer) -> list[Scores]:
    """What the tuned model is held against, as far as it is not scored yet: the untuned model, and where it generates
    the baselines, which are asked as many rows as the limits let it be."""
    baselines = _baselines(session, splits) if asks_fewer(session) else []
    return baselines + _untuned(session, splits, task)


def _trained_elsewhere(
    session: Session, splits: Splits, group: Group | None
) -> tuple[Answerer, list[Scores], TunedModel | Artifact]:
    """The same of a model that its provider trains."""
    from thriftune import managed_line

    order = managed_line.ordered(session, splits, alone=group is None)
    done = session.context.artifacts.find("train", order.key)
    if done is not None:
        for part in ("quote", "train"):
            session.outlook.done(part)
        untuned = _untuned(session, splits, order.task)
        _tell_found(session, done)
        return order.task, untuned, done
    _, quote = managed_line.priced(session, splits, order)
    untuned = _untuned(session, splits, order.task)
    return order.task, untuned, managed_line.trained(session, splits, order, quote)


def _begin(session: Session) -> None:
    """Say what begins, and expect everything that is to come from the record and from priors."""
    project, context = session.project, session.context
    file = project.file
    context.events.emit(
        "attempt.started",
        recipe=recipe_text(project),
        seed=file.seed,
        project_file=str(project.path),
        machine=machine_class(),
        versions={name: version(name) for name in VERSIONS} | {"python": platform.python_version()},
        started_at=context.clock.now() - context.meter.seconds_used(),
        deadline_at=context.meter.deadline_at,
        deadline_fixed=context.ledger.balance().deadline_at is not None,
        budget=str(file.budget.total),
        currency=file.budget.currency,
        price_per_hour=str(context.meter.price_per_hour),
        power_watts=str(file.compute.local.power_watts * file.compute.count)
        if file.compute.machine == "local"
        else None,
        electricity_per_kwh=str(file.compute.local.electricity_per_kwh),
        pid=os.getpid(),
    )
    for text in project.warnings:
        context.events.emit("warning", where="prices", what=text)
    if session.turn is None or session.turn.since is None:  # else the process was started before it had the machine
        session.record.add("start", context.meter.seconds_used())
    expect_all(session)
    tell_plan(session)


def _data(session: Session, must_land: bool = True) -> Splits:
    """Sources into splits; refused at once where the rest cannot fit, unless it need not land."""
    file, context = session.project.file, session.context
    _check_model_folders(session.project)
    if must_land:
        session.plan().require(probed=not _is_trained_here(session.project))
    with session.part("collect", metered=False):
        corpus = collect.run(file.data, file.objective.task, file.collect, context, session.project.folder)
    session.outlook.sharpen("prepare", prepare.estimate(corpus.characters))
    several = len(file.parts) > 1 and can_have_heads(file.objective.task)
    with session.part("prepare", metered=False):
        splits = prepare.run(corpus, file.prepare, context, file.train.heads if several else None)
    if several:
        session.decisions.take("heads", lambda: tuple(splits.report["heads"].values()))
    expect_sized(session, size_of(splits))
    return splits


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
    size, before = size_of(splits), resident_bytes()
    amount = baselines_seconds(session, size, asked_rows(session, size.test))
    with session.part("baselines", f"baselines-relative/{splits.task}", amount, metered=False) as span:
        parts = file.parts if splits.by_part else ()
        selection = select.run(splits, file.select, context, session.upper("baselines"), parts)
        span.reused = selection.reused
        test = pl.read_parquet(splits.test)
        scores = [
            _scored(session, span, predictor, selection.content_hash, test, splits)
            for predictor in selection.predictors()
        ]
    if not span.reused:
        note_grown(session, "baselines", resident_bytes() - before)
    return scores


def _scored(
    session: Session,
    span: Span,
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
    options = take_asked(session, len(test))
    told = options.model_dump(mode="json", exclude={"generate_share"}) | {"seed": file.seed}
    key = recipe_key(
        "score", 1, {"predictor": identity, "splits": splits.content_hash}, {"name": predictor.name} | told, {}
    )

    def write(folder: Path) -> None:
        scores = evaluate.score(
            predictor,
            test,
            "test",
            splits.task,
            options,
            context,
            candidate=candidate,
            upper_seconds=upper_seconds,
        )
        scores.save(folder)

    artifact = context.artifacts.build("score", key, {"predictor": predictor.name}, write)
    scores = Scores.load(artifact.folder)
    if artifact.reused:
        span.reused = True
        evaluate.tell(scores, context)
    return scores


def _import(session: Session) -> None:
    """The libraries that take seconds to import."""
    before = resident_bytes()
    with session.part("imports"):
        import torch  # noqa: F401  the import is what takes the time
        import transformers  # noqa: F401

        from thriftune.train import setup  # noqa: F401
    note_grown(session, "imports", resident_bytes() - before)


def _encode(session: Session, splits: Splits) -> Work:
    """The task, and the training and validation rows as its model reads them."""
    import polars as pl

    from thriftune.train import setup

    file = session.project.file
    reference = file.model_references[0]
    rows = sum(splits.report["rows"].values())
    with session.part("encode", f"encode/{reference}", rows):
        target = file.objective.target
        work = setup.work_of(
            splits.task,
            _meant(session, reference),
            session.project.folder,
            file.train,
            file.seed,
            splits.content_hash,
            pl.read_parquet(splits.train),
            pl.read_parquet(splits.validation),
            target.metric if target else None,
            file.parts,
            splits.by_part,
        )
    session.context.events.emit(
        "data.tokens",
        train=int(work.train.lengths.sum()),
        validation=int(work.validation.lengths.sum()),
        cut_tokens=work.train.cut_tokens + work.validation.cut_tokens,
        cut_rows=work.train.cut_rows + work.validation.cut_rows,
        cut_words=work.train.cut_words + work.validation.cut_words,
    )
    return work


def _meant(session: Session, reference: str) -> str:
    """The model that a reference means in this attempt: on the hub, a branch may move while a run is interrupted."""
    from thriftune.models.reference import pinned

    meant = ModelReference.parse(reference, session.project.folder)
    if meant.scheme != "hub":
        return reference
    first = session.decisions.recorded("model")
    of_first = first is None or ModelReference.parse(str(first), session.project.folder).name == meant.name
    what = "model" if of_first else f"model {meant.name}"  # a search may be over several
    because = f"this is what {reference} stood for when the attempt first opened it"
    return str(session.decisions.take(what, lambda: (pinned(reference, session.project.folder), because)))


def _opened(session: Session, artifact: Artifact) -> TunedModel:
    """The tuned model that this recipe made before."""
    from thriftune.train.train import open_tuned

    _tell_found(session, artifact)
    return open_tuned(artifact)


def _tell_found(session: Session, artifact: Artifact) -> None:
    session.context.events.emit("stage.started", stage="train", key=artifact.key)
    session.context.events.emit("stage.finished", stage="train", key=artifact.key, seconds=0.0, reused=True)


def _bench(session: Session, splits: Splits, work: Work, group: Group | None = None) -> Bench:
    """The fresh model on this machine, its training probed, and one answer timed."""
    from thriftune.train.loop import Loop
    from thriftune.train.machine import choose_machine
    from thriftune.train.probe import probe_costs
    from thriftune.train.ranks import ALONE
    from thriftune.train.supervision import Supervision
    from thriftune.train.validation_rows import VALIDATED, validated_rows, with_validation

    file, context = session.project.file, session.context
    reference = file.model_references[0]
    machine = choose_machine(session.decisions.take, work.hidden_size, file.train, session.record)
    with session.part("load", f"load/{reference}"):
        model = work.task.build()
    probe = _probe_seconds(session)
    ranks = ALONE if group is None else group
    with session.part("probe", f"probe/{reference}"), ranks.lost():
        answering = None if group is None else _together(session, splits, work, model, machine, group)
        watch = Supervision(session.decisions, context.events, None, None, context.root / "probe")
        loop = Loop(work.task, model, work.train, work.validation, work.recipe, machine, watch, ranks)
        costs = probe_costs(loop, probe, context.root)
        answering = answering or _probe_answers(session, splits, work.task, model)
        if group is None:
            known = session.decisions.recorded(VALIDATED)
            rows = validated_rows(work, costs, session.limits().seconds) if known is None else known
            work, costs = with_validation(work, costs, rows)
        bench = Bench(work, model, machine, costs, answering, ranks)
    expect_measured(session, size_of(splits), bench)
    return bench


def _together(
    session: Session, splits: Splits, work: Work, model: torch.nn.Module, machine: Machine, group: Group
) -> Answering:
    """Choose how to spread the model over the processes and let them begin; one answer is timed before."""
    from thriftune.memory import usable_bytes
    from thriftune.train.launch import machines_launched, ranks_on_this_machine
    from thriftune.train.ranks import choose_parallel
    from thriftune.train.worker import check_together, opening

    check_together(work, machine)
    file, context = session.project.file, session.context
    free = usable_bytes() / ranks_on_this_machine()
    parallel = session.decisions.take("parallel", lambda: choose_parallel(file.train.parallel, model, free))
    answering = _probe_answers(session, splits, work.task, model)
    known = opening(work, machine, splits.task, file.model_references[0], splits.folder, context.root)
    machines, paid = machines_launched(), file.compute.count
    if machines > paid:
        context.events.emit("warning", where="compute.count", what=f"{machines} machines train, {paid} are paid for")
    group.start(parallel, session.interrupted, **known)
    return answering


def _probe_answers(session: Session, splits: Splits, task: Task, model: torch.nn.Module) -> Answering:
    """How the model answers a few validation rows; their time comes from the record where it tells, or is scaled as it
    says that many rows together take less a row than a few."""
    import polars as pl

    from thriftune.evaluate.asking import answers_of, drawn

    known = session.record.forecast(f"answer/{session.project.file.model_references[0]}")
    rows = drawn(pl.read_parquet(splits.validation), kind_of(splits.task).probe_rows)

    def seconds_of(asked: Task) -> float:
        began = time.monotonic()
        answers_of(asked.predictor(model, "probe"), rows, splits.task)
        return time.monotonic() - began

    with peak() as seen:
        if kind_of(splits.task).generates_when_asked:
            taken = _seconds_of_answers(seconds_of, task, ANSWERS_SHARE * session.limits().seconds)
        else:
            taken = seconds_of(task)
    session.probed_answer = taken / len(rows)
    together = session.record.forecast(f"{ANSWER_RELATIVE}/{splits.task}")
    seconds = session.probed_answer * together.p50
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    # The one that is asked is another copy of the model than the one that is trained.
    return Answering(known.p50 if known.basis == "record" else seconds, seen.bytes + model_bytes)


def _seconds_of_answers(seconds_of: Callable[[Task], float], task: Task, most: float) -> float:
    """Seconds of generated answers: of whole ones, or where these may take longer than `most` what they take if none
    ends before its bound, by how much longer `LONGER` tokens take than `SHORT`."""
    longest: int = cast(Any, task).max_new_tokens
    if longest > LONGER:
        short, longer = (seconds_of(replace(cast(Any, task), max_new_tokens=tokens)) for tokens in (SHORT, LONGER))
        at_most: float = short + max(0.0, longer - short) * (longest - SHORT) / (LONGER - SHORT)
        if at_most > most:
            return at_most
    return seconds_of(task)


def _probe_seconds(session: Session) -> float:
    """How long to go on with steps past the first two."""
    options = session.project.file.plan
    most: float = min(options.probe_seconds, options.probe_share * session.limits().seconds)
    return most


def _untuned(session: Session, splits: Splits, task: Answerer) -> list[Scores]:
    """The model as it came, on the test split, where it is a baseline: an encoder without a head does not tag words."""
    import polars as pl

    if "untuned" not in kind_of(splits.task).baselines:
        return []
    test = pl.read_parquet(splits.test)
    reference = session.project.file.model_references[0]
    size = size_of(splits)
    asked = asked_rows(session, size.test)
    identity = json.dumps(task.describe(), sort_keys=True)
    upper = session.upper("untuned")
    with session.part("untuned", f"untuned/{reference}", asked, metered=False) as span:
        scores = _scored(session, span, task.untuned(), identity, test, splits, upper_seconds=upper)
    if not span.reused:
        session.record.add(f"answer/{reference}", scores.seconds, asked)
        if session.probed_answer:
            session.record.add(f"{ANSWER_RELATIVE}/{splits.task}", scores.seconds, asked * session.probed_answer)
        measuring = measuring_seconds(session, size, asked)
        session.record.add(f"measure-relative/{splits.task}", span.seconds - scores.seconds, measuring)
        row_seconds = Forecast.lognormal(scores.seconds / asked, ANSWER_SPREAD, "measured")
        expect_answers(session, "tuned", size, row_seconds)
    return [scores]


def _train(session: Session, bench: Bench, splits: Splits) -> TunedModel:
    """Train under the governor, with what follows kept free."""
    from thriftune.train import train
    from thriftune.train.ranks import ALONE
    from thriftune.train.validation_rows import VALIDATED

    began = time.monotonic()
    session.context.events.emit("stage.started", stage="train", key=bench.work.key)
    if bench.ranks is ALONE:
        rows, there = len(bench.work.validation), splits.report["rows"]["validation"]
        because = f"a pass takes {bench.costs.validation:.2f} s; the split has {there}"
        session.decisions.take(VALIDATED, lambda: (rows, because))
    with session.watching("training"), bench.ranks.lost():
        tuned = train.run(
            bench.work,
            bench.model,
            bench.machine,
            bench.costs,
            session.outlook.tail("train", session.limits().seconds - TAIL_FLOOR) + TAIL_FLOOR,
            session.decisions,
            session.reached,
            session.project.file.train,
            session.context,
            session.interrupted,
            session.project.file.plan.dead_band,
            {"serving_steps": list(splits.serving_steps), "project": session.project.file.name},
            bench.ranks,
            _stopping(session),
        )
    seconds = time.monotonic() - began
    session.context.events.emit("stage.finished", stage="train", key=bench.work.key, seconds=seconds, reused=False)
    for part in ("train", "save"):
        session.outlook.done(part)
    session.did_all = session.reached == 0 and tuned.outcome.steps == bench.work.full_steps
    return tuned


def _stopping(session: Session) -> Stopping | None:
    """What a point is worth, where the project file says that training asks."""
    from thriftune.train.stopping import Stopping

    file, worth = session.project.file, session.project.file.worth_of_training
    price = session.context.meter.price_per_hour
    return None if worth is None else Stopping(worth, price, file.budget.currency)


def _evaluate(
    session: Session,
    splits: Splits,
    task: Answerer,
    baselines: list[Scores],
    tuned: TunedModel | Artifact,
    alone: bool,
) -> None:
    """The tuned model as it was saved, on the test split, against everyone; and the verdict, by more rows where those
    cannot tell and one process trains."""
    import polars as pl

    from thriftune.evaluate import evaluate

    file, context = session.project.file, session.context
    reference = file.model_references[0]
    with session.part("open", f"open/{reference}") as opening:
        predictor = task.predictor(task.load(tuned.folder), "tuned")
    if _is_trained_here(session.project):
        note_opened(session, opening.seconds)
    upper = session.upper("tuned")
    size = size_of(splits)
    asked = asked_rows(session, size.test)
    with session.part("tuned", f"tuned/{reference}", asked, metered=False) as span:
        test = pl.read_parquet(splits.test)
        scores = _scored(
            session,
            span,
            predictor,
            tuned.content_hash,
            test,
            splits,
            candidate=tuned.content_hash,
            upper_seconds=upper,
        )
    target = file.objective.target
    latency = None
    if target and target.latency_p95_ms is not None:
        from thriftune.evaluate.latency import measure_latency

        latency = measure_latency(predictor, test, file.evaluate, context)
    upper = session.upper("verdict")
    comparing = verdict_seconds(session, size, asked)
    with session.part("verdict", f"verdict-relative/{splits.task}", comparing, metered=False):
        evaluation = evaluate.conclude(
            scores, baselines, file.evaluate, context, target=target, latency=latency, upper_seconds=upper
        )
    if alone:
        evidence_line.gathered(session, splits, evaluation, partial(_meant, session))


def _report(session: Session) -> Path | None:
    """The page, from the events and the ledger; none where the limits do not hold it.

    The model is judged by then, and the page can be written at any time: a run that lacks nothing else has landed.
    """
    from thriftune.report.html import report_path, write_html
    from thriftune.report.load import load_report
    from thriftune.report.summary import summarise

    context = session.context
    tell_actuals(session)
    try:
        with session.part("report"):
            began = context.clock.now()
            report = load_report(context.store, summarise(session.project.file), context.attempt)
            context.meter.go_on("the report's page", context.clock.now() - began)  # as long again, about
            path = write_html(report, report_path(context.root, context.attempt))
    except CannotLand as refusal:
        what = f"the report's page was not written: {refusal.found}; thriftune report writes it"
        context.events.emit("warning", where="report", what=what)
        return None
    if session.did_all:
        note_residuals(session)
    session.outlook.done("exit")
    return path
