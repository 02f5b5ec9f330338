"""What a run expects of itself: every part of it, first from the record and priors, then measured; and how it is told.

The outlook is filled here and sharpened as more is known. Forecasts are events; the first of each quantity is the one
that the report holds against what happened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING

from thriftune.asked import answering, asked_rows, expect_asked, in_turn_seconds, limit_asked, wanted_rows
from thriftune.budget.forecast import Forecast, largest, total
from thriftune.collect import collect
from thriftune.managed.backends import provider_of
from thriftune.managed.job import at_work
from thriftune.memory import resident_bytes, usable_bytes
from thriftune.money.tokens import CATEGORY
from thriftune.plan.outlook import Outlook
from thriftune.plan.plan import NOTHING, PHASES, WHOLE, Limits, Plan, Workload
from thriftune.plan.workload import FLOPS_PART
from thriftune.prepare import prepare
from thriftune.search.options import ALLOWANCE, Nodes, allowance
from thriftune.session import EXIT_SECONDS, Session
from thriftune.sizes import PRIOR_CLASSES, Size
from thriftune.tasks.kinds import KINDS, kind_of

if TYPE_CHECKING:
    import torch

    from thriftune.train.costs import Costs
    from thriftune.train.machine import Machine
    from thriftune.train.ranks import Ranks
    from thriftune.train.train import Work

BYTES_PER_ROW = 150.0  # prior of a row's size, before the rows are counted
TEST_SHARE = 0.1  # prior of the share of rows that is tested on, before they are split
# Priors, in seconds a unit, for what this machine class has never done; a run's own figures take over at once.
ROW_EPOCH_PART = "row-pass"  # the record's part: seconds of training for a row and a pass over it
OPEN_RELATIVE = "open-relative"  # and of opening the tuned model, a second that loading it untuned takes
ANSWER_RELATIVE = "answer-relative"  # and of an answer among many, a second that it takes among the probe's few
GROWN_BYTES = "bytes/grown"  # and by how much imports and baselines together let this process grow
GROWING = ("imports", "baselines")
PRIOR_BASELINE_BYTES = 1.2e8  # scikit-learn and SciPy
PRIOR_IMPORTS = 6.0
PRIOR_LOAD = 3.0
PRIOR_SAVE = 1.0
PRIOR_ENCODE_ROW = 1e-3
PRIOR_REPORT = 2.0
PRIOR_COUNT_ROW = 2e-3  # a row's tokens counted by a provider
PRIOR_JOB_LEFT = 1.0  # of a tuning job that is at work already
PRIOR_REMOTE_ANSWER = 0.3  # a managed model's answer, several being asked at once
ANSWERS_BOUND = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # what answers cost, of their upper bound
PRIOR_TRAINING = 10.0
LANDING_SLACK = 0.1  # how far below what is left the governor may end training: its dead band, twice
CONFORMED = ("training", "evaluation", WHOLE)  # what is foretold after the probe
TAIL_FLOOR = 1.0  # seconds kept free for the small things between the parts after training
ANSWER_SPREAD = 0.3  # 95th percentile over the median of a predictor's time, once a sample of rows was timed
SAVE_SPREAD = 1.0
MEMORY_SPREAD = 0.15  # the same for training's peak, from real updates
ANSWER_MEMORY_SPREAD = 0.25  # and for evaluation's, from a few answers


@dataclass(frozen=True)
class Answering:
    """How the model answers, from a few validation rows.

    Args:
        row_seconds: a row.
        peak_bytes: the most of this process that was in memory meanwhile.
    """

    row_seconds: float
    peak_bytes: float


@dataclass(frozen=True)
class Bench:
    """Everything that training needs, probed: what a plan is made from."""

    work: Work
    model: torch.nn.Module
    machine: Machine
    costs: Costs
    answering: Answering
    ranks: Ranks


def expect_all(session: Session) -> None:
    """Expect everything that is to come, in its order, with nothing known but the sizes of the files."""
    project = session.project
    file, base = project.file, project.folder
    task, reference = file.objective.task, file.model_references[0]
    bytes_there = sum((base / source.file).stat().st_size for source in file.data if (base / source.file).is_file())
    rows = bytes_there / BYTES_PER_ROW
    outlook = session.outlook
    outlook.expect("collect", "collection", collect.estimate(file.data, base))
    outlook.expect("prepare", "collection", prepare.estimate(bytes_there))
    outlook.expect("baselines", "evaluation", Forecast.exact(0.0))
    provider = provider_of(reference, base)
    if provider is None:
        session.expect("imports", "training", prior=PRIOR_IMPORTS)
        if file.search is not None:
            outlook.expect("search", "training", Forecast.exact(0.0))
        session.expect("encode", "training", f"encode/{reference}", rows, PRIOR_ENCODE_ROW)
        session.expect("load", "training", f"load/{reference}", prior=PRIOR_LOAD)
        session.expect("probe", "training", f"probe/{reference}", prior=KINDS[task].probe_seconds)
    else:
        session.expect("quote", "training", f"quote/{reference}", rows, PRIOR_COUNT_ROW)
    if "untuned" in answering(task):
        outlook.expect("untuned", "evaluation", Forecast.exact(0.0))
    if provider is None:
        outlook.expect("train", "training", session.record.forecast(f"least/{reference}", 1, PRIOR_TRAINING))
        session.expect("save", "training", f"save/{reference}", prior=PRIOR_SAVE)
    elif not at_work(session.context.ledger):
        session.expect("train", "training", f"job/{reference}", prior=provider.job_seconds)
    else:  # its job is at work: how long it still takes is seen by waiting
        outlook.expect("train", "training", Forecast.lognormal(PRIOR_JOB_LEFT, SAVE_SPREAD, "prior"))
    outlook.expect("open", "evaluation", open_seconds(session))
    for what in ("tuned", "verdict"):
        outlook.expect(what, "evaluation", Forecast.exact(0.0))
    session.expect("report", "evaluation", prior=PRIOR_REPORT)
    session.expect("exit", "evaluation", prior=EXIT_SECONDS)
    expect_sized(session, Size(rows, rows, rows * TEST_SHARE, PRIOR_CLASSES))


def open_seconds(session: Session) -> Forecast:
    """Seconds to open the tuned model: what this one took before, else in proportion to loading it untuned."""
    reference = session.project.file.model_references[0]
    if session.record.seen(f"open/{reference}"):
        return session.record.forecast(f"open/{reference}")
    return session.record.forecast(OPEN_RELATIVE, _load_seconds(session))


def note_opened(session: Session, seconds: float) -> None:
    """Note what opening the tuned model took, for those that are opened for the first time."""
    session.record.add(OPEN_RELATIVE, seconds, _load_seconds(session))


def _load_seconds(session: Session) -> float:
    """Seconds to load the model untuned, at the median."""
    return session.record.forecast(f"load/{session.project.file.model_references[0]}", prior=PRIOR_LOAD).p50


def note_grown(session: Session, what: str, grown: int) -> None:
    """Note by how many bytes the imports or the baselines let this process grow, and once both have, the sum for
    forecasts that are made before the baselines ran: whichever is second finds libraries that the first has loaded.

    Args:
        what: `imports` or `baselines`.
    """
    session.grown[what] = grown
    if len(session.grown) == len(GROWING):
        session.record.add(_grown_part(session), max(1.0, sum(session.grown.values())))


def _left_by_baselines(session: Session) -> Forecast:
    """Bytes that baselines which are still to come will leave in memory beside what was imported."""
    both = session.record.seen(_grown_part(session))
    if not both:
        return Forecast.lognormal(PRIOR_BASELINE_BYTES, ANSWER_MEMORY_SPREAD, "prior")
    more = median(both) - session.grown.get("imports", 0)
    return Forecast.lognormal(max(1.0, more), ANSWER_MEMORY_SPREAD, "record")


def _grown_part(session: Session) -> str:
    return f"{GROWN_BYTES}/{session.project.file.objective.task}"


def expect_sized(session: Session, size: Size) -> None:
    """Sharpen what depends on the number of rows and labels: encoding, baselines, answers, the comparison."""
    file = session.project.file
    task, reference = file.objective.task, file.model_references[0]
    session.sharpen("encode", f"encode/{reference}", size.rows, PRIOR_ENCODE_ROW)
    here = provider_of(reference, session.project.folder) is None
    prior = KINDS[task].answer_seconds if here else PRIOR_REMOTE_ANSWER
    expect_asked(session, size, session.record.forecast(f"answer/{reference}", prior=prior))


def expect_measured(session: Session, size: Size, bench: Bench) -> None:
    """Sharpen what the probe has measured: training, saving, answering, and the memory of both."""
    from thriftune.train import train

    file = session.project.file
    work, costs = bench.work, bench.costs
    every, _ = train.validate_every(work, costs)
    full = train.estimate(work, costs, every, work.full_steps, file.train)
    least = train.minimum(work, costs)
    session.record.add(f"least/{file.model_references[0]}", least.p50)  # for the refusal that comes before a probe
    session.record.add(f"{ROW_EPOCH_PART}/{file.model_references[0]}", full.p50, size.train * work.recipe.epochs)
    outlook = session.outlook
    outlook.sharpen("train", full, least)
    if file.search is not None:
        room = session.limits().seconds - outlook.after("train") - full.p50
        seconds = search_seconds(session, max(0.0, room) + full.p50, full.p50)
        outlook.sharpen("search", Forecast.of([0.0, 0.5 * seconds, seconds, seconds, seconds], "probe"), NOTHING)
    outlook.sharpen("save", Forecast.lognormal(costs.checkpoint / 2, SAVE_SPREAD, "probe"))
    outlook.sharpen("open", open_seconds(session))
    answer = Forecast.lognormal(bench.answering.row_seconds, ANSWER_SPREAD, "probe")
    limit_asked(session, answer)
    expect_asked(session, size, answer)
    training = Forecast.lognormal(costs.peak_bytes, MEMORY_SPREAD, "probe")
    asked = Forecast.lognormal(bench.answering.peak_bytes, ANSWER_MEMORY_SPREAD, "probe")
    if "baselines" in outlook.parts:  # what they leave in memory was not there yet when the probe looked
        left = _left_by_baselines(session)
        training, asked = total([training, left]), total([asked, left])
    # What training freed stays with the process (memory.keep_freed_memory).
    for phase, most in {"training": training, "evaluation": largest([asked, training])}.items():
        outlook.memory[phase] = session.residuals.foretell(f"memory/{phase}", most)
    outlook.memory["collection"] = Forecast.exact(session.peaks.get("collection", 0), "measured")


def money_for(limits: Limits, room: float) -> Decimal:
    """What is left for parts that have so many seconds together: all but what this machine costs in the others."""
    others = Decimal(max(0.0, limits.seconds - room)) if math.isfinite(limits.seconds) else Decimal(0)
    if limits.money_left is None:
        return Decimal(0)
    return max(Decimal(0), limits.money_left - limits.to_buy - others * limits.price_per_hour / 3600)


def search_seconds(session: Session, room: float, full: float) -> float:
    """What a search may take; until it has begun, what its nodes may cost is noted as still to be bought.

    Args:
        room: seconds that are left for search and training together.
        full: of a whole training.
    """
    file = session.project.file
    assert file.search is not None
    if file.compute.cluster is None:
        return allowance(file.search, room, full)
    session.to_buy.pop("search", None)
    limits = session.limits()
    nodes = Nodes(file.compute.cluster, money_for(limits, room), limits.price_per_hour)
    seconds = allowance(file.search, room, full, nodes)
    if seconds and session.decisions.recorded(ALLOWANCE) is None:
        session.to_buy["search"] = nodes.cost(file.search, seconds)
    return seconds


def forecast(session: Session, size: Size, bench: Bench) -> Plan:
    """The plan as of now, recorded for the report to score."""
    work = bench.work
    plan = session.plan(
        planned_steps=affordable_steps(session, bench),
        full_steps=work.full_steps,
        tokens=int(work.train.lengths.sum()) * work.recipe.epochs,
        full_rows=round(wanted_rows(session, size.test)),
        planned_rows=round(asked_rows(session, size.test)),
        workload=workload_of(session, bench),
    )
    plan = replace(plan, conformed={what: session.residuals.foretell(what, plan.summed(what)) for what in CONFORMED})
    phases = {phase: plan.phase(phase) for phase in ("training", "evaluation")}
    session.foretold_at = {phase: _used(session, phase) for phase in phases}
    ahead, cut = plan.full, None
    if not plan.fits_whole:
        phases["training"] = cut = _fitted(session, plan)
        ahead = total(list(phases.values()))
    limits = plan.limits
    training = session.outlook.parts["train"].seconds
    plan = replace(plan, in_turn=in_turn_seconds(session, size, training, limits.seconds - ahead.p95))
    phases["training"], ahead = total([phases["training"], plan.in_turn]), total([ahead, plan.in_turn])
    for phase, seconds in phases.items():
        _tell_seconds(session, phase, seconds.plus(session.foretold_at[phase]))
    _tell_seconds(session, "total", ahead.plus(limits.seconds_used).capped(limits.seconds_used + limits.seconds))
    for phase in phases:
        _tell(session, phase, "memory_bytes", session.outlook.memory[phase])
    _warn_of_memory(session, session.outlook.memory["training"])
    tell_plan(session, cut)
    return plan


def note_residuals(session: Session) -> None:
    """Note how far off the forecasts of this process were, for the next ones: of a run that did all it foretold."""
    residuals = session.residuals
    ahead = {phase: _used(session, phase) - before for phase, before in session.foretold_at.items()}
    for phase, seconds in ahead.items():
        residuals.came(phase, seconds)
        residuals.came(f"memory/{phase}", session.peaks.get(phase, 0))
    residuals.came(WHOLE, math.fsum(ahead.values()))


def forecast_managed(session: Session, plan: Plan, job: Forecast, answers_upper: float) -> None:
    """Record the plan of a run that somebody else's machines train, for the report to score.

    Args:
        plan: as of now.
        job: money that the tuning job costs.
        answers_upper: the most that all answers cost.
    """
    bought = {"training": job, "evaluation": Forecast.of((share * answers_upper for share in ANSWERS_BOUND), "prior")}
    price = float(session.context.meter.price_per_hour) / 3600
    seconds = {phase: plan.phase(phase) for phase in bought}
    for phase, ahead in seconds.items():
        whole = ahead.plus(_used(session, phase))
        _tell(session, phase, "time_s", whole)
        _tell(session, phase, "cost", total([whole.scaled(price), bought[phase]]))
    whole = total(list(seconds.values())).plus(plan.limits.seconds_used)
    _tell(session, "total", "time_s", whole)
    _tell(session, "total", "cost", total([whole.scaled(price), *bought.values()]))


def tell_plan(session: Session, cut: Forecast | None = None) -> None:
    """Record every part that is to come with its forecast, for the timeline.

    Args:
        cut: training's seconds where the limits cut it.
    """
    parts = []
    for part in session.outlook.parts.values():
        seconds = cut if cut is not None and part.what == "train" else part.seconds
        quantiles = dict(zip(("p5", "p25", "p50", "p75", "p95"), seconds.quantiles(), strict=True))
        parts.append({"phase": part.phase, "what": part.what, **quantiles, "basis": seconds.basis})
    session.context.events.emit("plan.made", parts=parts, cut=cut is not None)


def workload_of(session: Session, bench: Bench) -> Workload:
    """What the run asks of a machine; the speed of this one is noted in the record."""
    from thriftune.models.flops import depth, training_flops

    file = session.project.file
    work, record = bench.work, session.record
    reference = file.model_references[0]
    padded = work.mean_step_tokens * work.full_steps
    flops = training_flops(bench.model, padded, float(work.train.lengths.mean()))
    seconds = bench.costs.by_phase()[0] * padded
    record.add(f"{FLOPS_PART}/{work.task.name}", seconds, flops / 1e12)
    priors = {"imports": PRIOR_IMPORTS, f"load/{reference}": PRIOR_LOAD}
    restart = [record.forecast(what, prior=prior) for what, prior in priors.items()]
    probing = record.forecast(f"probe/{reference}", prior=KINDS[file.objective.task].probe_seconds)
    encoding = record.forecast(f"encode/{reference}", len(work.train) + len(work.validation), PRIOR_ENCODE_ROW)
    begun = [record.forecast(what) for what in ("start", "collect", "prepare")]
    return Workload(
        flops=flops,
        updates=work.full_steps,
        layers=depth(bench.model),
        tokens=int(work.train.lengths.sum()) * work.recipe.epochs,
        flops_per_second=flops / seconds,
        again=total([*begun, *restart, encoding, probing]),
        restart=total(restart),
        checkpoint_seconds=file.train.checkpoint_seconds,
        managed=kind_of(file.objective.task).generates_when_asked,
    )


def affordable_steps(
    session: Session,
    bench: Bench,
    limits: Limits | None = None,
    outlook: Outlook | None = None,
    full_steps: int | None = None,
) -> int:
    """The steps that training would begin with, if it began now and what comes before it were done.

    Args:
        limits: other ones than the session's.
        outlook: another one than the session's.
        full_steps: another number than that of the data's epochs.
    """
    from thriftune.train import train

    limits, outlook = limits or session.limits(), outlook or session.outlook
    remaining = limits.seconds - outlook.before("train").p50
    tail = outlook.tail("train", remaining - TAIL_FLOOR) + TAIL_FLOOR
    options = session.project.file.train
    governor = train.governor_of(
        bench.work, bench.costs, None, options, lambda: remaining, tail, session.project.file.plan.dead_band
    )
    if full_steps is not None:
        governor = replace(governor, full_steps=full_steps)
    return train.best_way(bench.work, bench.costs, options, governor)[1]


def tell_actuals(session: Session) -> None:
    """What each phase really took, to be held against its forecast.

    The report that tells it is still to be written: what is left is taken to last as long as it usually does.
    """
    price = float(session.context.meter.price_per_hour) / 3600
    used = {phase: _used(session, phase) for phase in PHASES}
    used["total"] = session.context.meter.seconds_used()
    for part in session.outlook.parts.values():
        used[part.phase] += part.seconds.p50
        used["total"] += part.seconds.p50
    bought = {phase: _bought(session, phase) for phase in PHASES}
    bought["total"] = math.fsum(bought.values())
    for phase, seconds in used.items():
        session.context.events.emit("actual", phase=phase, quantity="time_s", value=seconds)
        session.context.events.emit("actual", phase=phase, quantity="cost", value=seconds * price + bought[phase])
    for phase, most in session.peaks.items():
        session.context.events.emit("actual", phase=phase, quantity="memory_bytes", value=most)


def _fitted(session: Session, plan: Plan) -> Forecast:
    """Training's seconds where the limit cuts it: what the governor will find left when the rest is kept free.

    The longer what comes before it takes, the less is left, so the quantiles turn round.
    """
    before = session.outlook.before("train")
    left = plan.limits.seconds - TAIL_FLOOR
    room = left - session.outlook.tail("train", left - before.p50)
    landing = (1 - LANDING_SLACK, 1 - LANDING_SLACK / 2, 1 - LANDING_SLACK / 4, 1.0, 1.0)
    ahead = [max(0.0, room - taken) * share for taken, share in zip(reversed(before.quantiles()), landing, strict=True)]
    return Forecast.of(ahead, "probe")


def _warn_of_memory(session: Session, training: Forecast) -> None:
    usable = usable_bytes() + resident_bytes()
    if training.p95 > usable:
        session.context.events.emit(
            "warning",
            where="memory",
            what=f"training may need {training.p95 / 2**30:.1f} GiB and this process can have {usable / 2**30:.1f}: "
            "set train.micro_batch_tokens, or a smaller train.max_tokens",
        )


def _used(session: Session, phase: str) -> float:
    """Seconds charged to a phase in this attempt so far."""
    charges = session.context.events.read(attempt=session.context.attempt, kinds=["charge"])
    return math.fsum(event.data["seconds"] for event in charges if event.data["phase"] == phase)


def _bought(session: Session, phase: str) -> float:
    """Money charged to a phase in this attempt so far for tokens."""
    charges = session.context.events.read(attempt=session.context.attempt, kinds=["charge"])
    mine = [event.data for event in charges if (event.data["phase"], event.data["category"]) == (phase, CATEGORY)]
    return math.fsum(float(data["amount"]) for data in mine)


def _tell_seconds(session: Session, phase: str, seconds: Forecast) -> None:
    price = float(session.context.meter.price_per_hour) / 3600
    _tell(session, phase, "time_s", seconds)
    _tell(session, phase, "cost", seconds.scaled(price))


def _tell(session: Session, phase: str, quantity: str, forecast: Forecast) -> None:
    p5, p25, p50, p75, p95 = forecast.quantiles()
    session.context.events.emit(
        "forecast", phase=phase, quantity=quantity, basis=forecast.basis, p5=p5, p25=p25, p50=p50, p75=p75, p95=p95
    )
