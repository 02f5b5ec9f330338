"""What the plan would be under another budget, deadline, target or number of rows: from this run's own forecasts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thriftune.asked import answers_seconds, baselines_seconds, most_asked, verdict_seconds, wanted_rows
from thriftune.budget.forecast import Forecast
from thriftune.collect import collect
from thriftune.forecasting import ANSWER_SPREAD, CONFORMED, PRIOR_ENCODE_ROW, affordable_steps
from thriftune.plan.outlook import Outlook
from thriftune.plan.plan import Limits, Part, Plan
from thriftune.plan.whatif import Answer, Question, asked_limits, most_rows, reached
from thriftune.session import Session
from thriftune.sizes import Size, size_of
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    from thriftune.forecasting import Bench
    from thriftune.prepare.types import Splits


def answer(session: Session, bench: Bench, splits: Splits, plan: Plan, question: Question) -> Answer:
    """The plan as asked, beside the one that the project file gives; nothing is recorded and nothing changed.

    Args:
        plan: by the project file.
        question: what is asked.
    """
    file, context = session.project.file, session.context
    size = size_of(splits)
    if not question.asks:
        return Answer(question, plan, plan, (round(size.rows), round(size.rows)), bench.work.recipe.epochs)
    balance = context.ledger.balance()
    begun = balance.deadline_at is not None
    limits = asked_limits(plan.limits, question, balance.total, begun, context.clock.now())
    rows = round(size.rows)
    asked = rows if question.rows is None else question.rows

    def plan_of(number: int) -> Plan:
        return _plan_of(session, bench, plan, limits, size, number)

    after = plan_of(asked)
    found = Answer(question, plan, after, (rows, asked), bench.work.recipe.epochs)
    if found.outcome != "whole":
        found = replace(found, most_rows=most_rows(plan_of, asked))
    if question.target is None:
        return found
    stated = file.objective.target
    metric = (stated.metric if stated else None) or kind_of(file.objective.task).metrics[0]
    seen = reached(context.events.read(kinds=["evaluation.scores", "training.validation"]), metric, question.target)
    steps = next((one.step for one in seen if one.step is not None), None)
    shorter = None if steps is None else _plan_of(session, bench, plan, limits, size, asked, steps)
    return replace(found, metric=metric, reached=seen, target_plan=shorter)


def _plan_of(
    session: Session, bench: Bench, plan: Plan, limits: Limits, size: Size, rows: int, steps: int | None = None
) -> Plan:
    """The plan for another number of rows, or for fewer steps: what grows with the rows is taken that many times.

    Args:
        size: of the data that is there.
        rows: instead of its own.
        steps: of training; all epochs by default.
    """
    from thriftune.train import train

    file = session.project.file
    factor = rows / size.rows
    other = Size(rows, size.train * factor, size.test * factor, size.classes)
    outlook = Outlook(memory=dict(session.outlook.memory))
    if rows != round(size.rows):
        outlook.expect("collect", "collection", collect.estimate(file.data, session.project.folder).scaled(factor))
        outlook.expect("prepare", "collection", session.record.forecast("prepare").scaled(factor))
        encoded = session.record.forecast(f"encode/{file.model_references[0]}", rows, PRIOR_ENCODE_ROW)
        outlook.expect("encode", "training", encoded)
    task = file.objective.task
    answer = Forecast.lognormal(bench.answering.row_seconds, ANSWER_SPREAD, "probe")
    wanted, most = wanted_rows(session, other.test), most_asked(session, limits.seconds, answer)
    asked = wanted if most is None else min(wanted, most)
    answers = answers_seconds(session, other, asked, answer)
    grown = {
        "baselines": session.record.forecast(f"baselines-relative/{task}", baselines_seconds(session, other, asked)),
        "verdict": session.record.forecast(f"verdict-relative/{task}", verdict_seconds(session, other, asked)),
        "untuned": answers,
        "tuned": answers,
    }
    full_steps = max(1, round(plan.full_steps * factor)) if steps is None else steps
    for name, part in session.outlook.parts.items():
        if name == "train":
            seconds, least = part.seconds.scaled(factor), part.minimum
            if steps is not None:
                every, _ = train.validate_every(bench.work, bench.costs)
                seconds = train.estimate(bench.work, bench.costs, every, steps, file.train)
            outlook.parts[name] = Part(part.phase, name, seconds, least)
        else:
            same = rows == round(size.rows) and round(asked) == plan.planned_rows
            outlook.parts[name] = part if same else replace(part, seconds=grown.get(name, part.seconds))
    planned = min(full_steps, affordable_steps(session, bench, limits, outlook, full_steps))
    workload = plan.workload
    if workload is not None:
        share = full_steps / max(1, plan.full_steps)
        workload = replace(
            workload, flops=workload.flops * share, updates=full_steps, tokens=round(workload.tokens * share)
        )
    tokens = round(plan.tokens * factor)
    made = outlook.plan(
        limits,
        full_steps=full_steps,
        planned_steps=planned,
        tokens=tokens,
        full_rows=round(wanted),
        planned_rows=round(asked),
        workload=workload,
    )
    return replace(made, conformed={what: session.residuals.conformed(what, made.summed(what)) for what in CONFORMED})
