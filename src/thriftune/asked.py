"""What it is expected to take to ask the models and to compare their answers: it hangs on how many test rows are asked.

Where answers are generated on this machine, limits that are tight let fewer rows be asked, the same of every model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from thriftune.budget.forecast import Forecast, total
from thriftune.evaluate.evaluate import comparison_seconds, metrics_seconds
from thriftune.evaluate.options import FEWEST_ASKED, EvaluateOptions
from thriftune.managed.backends import provider_of
from thriftune.plan.plan import NOTHING
from thriftune.select import select
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    from thriftune.session import Session
    from thriftune.sizes import Size

ASKED = "test rows asked"
ENOUGH_TESTED = 1000  # so many test rows tell what is worth telling
PRIOR_BASELINE_ROW = 1e-3  # seconds of a cheap baseline's answer where this machine class has never done it


def expect_asked(session: Session, size: Size, row_seconds: Forecast) -> None:
    """Sharpen what depends on how many test rows are asked: baselines, answers, the comparison."""
    task = session.project.file.objective.task
    asked = asked_rows(session, size.test)
    session.sharpen("baselines", f"baselines-relative/{task}", baselines_seconds(session, size, asked))
    for who in answering(task):
        expect_answers(session, who, size, row_seconds)
    session.sharpen("verdict", f"verdict-relative/{task}", verdict_seconds(session, size, asked))


def answering(task: str) -> tuple[str, ...]:
    """Which models answer the test rows: the tuned one, and the untuned one of a task that it can do."""
    return ("untuned", "tuned") if "untuned" in kind_of(task).baselines else ("tuned",)


def expect_answers(session: Session, who: str, size: Size, row_seconds: Forecast) -> None:
    """Sharpen what a predictor's answers to the test split will take, with the measuring of them."""
    asked = asked_rows(session, size.test)
    least = None
    if asks_fewer(session):
        least = answers_seconds(session, size, min(asked, FEWEST_ASKED), row_seconds)
    session.outlook.sharpen(who, answers_seconds(session, size, asked, row_seconds), least)


def answers_seconds(session: Session, size: Size, asked: float, row_seconds: Forecast) -> Forecast:
    """Seconds of a predictor's answers to so many test rows, with the measuring of them."""
    task = session.project.file.objective.task
    measuring = session.record.forecast(f"measure-relative/{task}", measuring_seconds(session, size, asked))
    return total([row_seconds.scaled(asked), measuring])


def wanted_rows(session: Session, rows: float) -> float:
    """How many rows of so many a predictor is asked where no limit binds."""
    file = session.project.file
    return min(rows, file.evaluate.generate_rows) if kind_of(file.objective.task).generates_when_asked else rows


def asked_rows(session: Session, rows: float) -> float:
    """How many rows of so many a predictor is asked."""
    return min(wanted_rows(session, rows), math.inf if session.most_asked is None else session.most_asked)


def asks_fewer(session: Session) -> bool:
    """Whether fewer test rows are asked where the limits are tight: of a model that generates on this machine."""
    file = session.project.file
    here = provider_of(file.model_references[0], session.project.folder) is None
    return here and kind_of(file.objective.task).generates_when_asked


def limit_asked(session: Session, row_seconds: Forecast) -> None:
    """Let so many test rows be asked as a share of what is left holds, where answers are generated; or as many as
    this attempt asked before."""
    session.most_asked = most_asked(session, session.limits().seconds, row_seconds)


def most_asked(session: Session, seconds: float, row_seconds: Forecast) -> int | None:
    """How many test rows are asked at most where so many seconds are left; None where the limits do not matter."""
    if not asks_fewer(session):
        return None
    file = session.project.file
    room = file.evaluate.generate_share * seconds
    holds = min(room / (len(answering(file.objective.task)) * row_seconds.p95), file.evaluate.generate_rows)
    return session.decisions.recorded(ASKED) or max(FEWEST_ASKED, int(holds))


def judged_in_turn(session: Session, by_part: bool) -> bool:
    """Whether training rows may be held out in turn where the test rows cannot tell: of a model that is trained here
    to give labels, with one head, by options that no search has chosen by these very rows.

    Args:
        session: the run.
        by_part: whether each part of the data has a head of its own.
    """
    file = session.project.file
    here = provider_of(file.model_references[0], session.project.folder) is None
    fitting = kind_of(file.objective.task).classes and not by_part and file.search is None
    return file.evaluate.held_out_in_turn > 0 and here and fitting


def in_turn_seconds(session: Session, size: Size, training: Forecast, room: float) -> Forecast:
    """Seconds of the trainings without some rows, should the test rows not tell: nobody knows before the verdict.

    Args:
        session: the run.
        size: the dimensions of its data.
        training: a whole training.
        room: seconds that nothing else needs.
    """
    parts = session.project.file.evaluate.held_out_in_turn
    if not judged_in_turn(session, by_part=False) or size.test >= ENOUGH_TESTED or room < training.p50:
        return NOTHING
    most = min(parts * training.p50, room)
    return Forecast.of([0.0, 0.0, 0.0, most / 2, most], "prior")


def take_asked(session: Session, rows: int) -> EvaluateOptions:
    """How the rest of this attempt evaluates; how many of so many test rows are asked is decided here, once."""
    options: EvaluateOptions = session.project.file.evaluate
    if session.most_asked is None:
        return options
    asked, wanted = round(asked_rows(session, rows)), round(wanted_rows(session, rows))
    share = f"{options.generate_share:.0%} of what is left before training"
    because = f"{wanted} rows' answers fit into {share}"
    if asked < wanted:
        because = f"{wanted} rows' answers do not fit into {share}; intervals are wider for it"
    chosen = session.decisions.take(ASKED, lambda: (asked, because))
    return options.model_copy(update={"generate_rows": chosen})


def measuring_seconds(session: Session, size: Size, asked: float) -> float:
    """Seconds that metrics and intervals of one predictor's answers take on the machine of the stage's own figures."""
    file = session.project.file
    return metrics_seconds(round(asked), file.objective.task, file.evaluate, size.classes).p50


def baselines_seconds(session: Session, size: Size, asked: float) -> float:
    """Seconds to fit and to score the cheap baselines on the machine of the stages' own figures.

    The record keeps what this machine took as a multiple of it, and so holds for data of other sizes.
    """
    file = session.project.file
    task = file.objective.task
    fitting = select.estimate(round(size.train), size.classes, task, file.select).p50
    scoring = measuring_seconds(session, size, asked) + PRIOR_BASELINE_ROW * asked
    return fitting + len(select.fitted(file.select, task)) * scoring


def verdict_seconds(session: Session, size: Size, asked: float) -> float:
    """Seconds to compare with every baseline on the machine of the stage's own figures."""
    file = session.project.file
    task = file.objective.task
    baselines = len(file.select.baselines_for(task))
    return comparison_seconds(round(asked), task, file.evaluate, baselines, size.classes).p50
