"""Asking predictors, scoring their answers, holding them against each other.

`score` asks one predictor all rows of a split, metered; `conclude` compares the tuned model with every baseline and
gives the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from thriftune.budget.forecast import Forecast
from thriftune.errors import BadInput
from thriftune.evaluate.asking import Asking, Progress, asked_rows, unit
from thriftune.evaluate.looks import error_share, record_look
from thriftune.evaluate.options import EvaluateOptions, Target
from thriftune.evaluate.suites import measure, pair, primary_metric, suite_for
from thriftune.evaluate.types import Comparison, Evaluation, Latency, Scores, Verdict
from thriftune.evaluate.verdict import verdict
from thriftune.metrics.intervals import FEWEST_RESAMPLES
from thriftune.metrics.paired import outcome
from thriftune.metrics.statistics import DEAR_WORK
from thriftune.tasks.kinds import kind_of
from thriftune.tasks.targets import class_count

if TYPE_CHECKING:
    import polars as pl

    from thriftune.context import Context
    from thriftune.tasks.base import Predictor

# Metrics and intervals, measured on one core of a 2-core machine that eight processes shared: sacrebleu and parts of
# SciPy are imported once; texts are read (answers of up to some 200 words); then come the resamples, by the numbers
# that they touch.
METRICS_START_SECONDS = 0.5
CURVE_NUMBER_SECONDS = 6e-8  # a number is a row of a class in a resample
CELL_SECONDS = 1.6e-7  # a cell is a pair of answers to a target in a resample
METRICS_SPREAD = 1.5  # 95th percentile over the median


def score(
    predictor: Predictor,
    frame: pl.DataFrame,
    split: str,
    task: str,
    options: EvaluateOptions,
    context: Context,
    *,
    candidate: str = "",
    upper_seconds: float | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Ask a predictor the rows of a split and measure its answers.

    On the test split the look is recorded first. Rows are asked longest first, in batches; each batch is a metered
    unit, unless `upper_seconds` is known, when all of it is one unit.

    Args:
        predictor: who is asked.
        frame: the split's rows.
        split: `validation` or `test`.
        task: its name; where answers are generated, at most `options.generate_rows` rows are asked, the same for
            everyone.
        options: evaluation's part of the project file.
        context: the run's surroundings.
        candidate: content hash of a model that may ship, whose look at the test split counts; empty for a baseline.
        upper_seconds: the longest that asking and measuring can take; None to find out by the first batch.
        progress: hears how many rows are answered.

    Raises:
        BadInput: the split has no rows.
        OutOfBudget: money or time do not hold the next unit.
    """
    rows = asked_rows(frame, task, options)
    if rows.is_empty():
        raise BadInput(
            "there are no rows to evaluate on",
            where=f"the {split} split",
            found="0 rows",
            expected="at least 1 row",
            way_out="add rows, or give this side a larger share in prepare.split",
        )
    look = record_look(context.events, predictor.name, candidate, rows["id"].to_list()) if split == "test" else 0
    with unit(context, f"evaluate {predictor.name}", upper_seconds):
        began = context.clock.now()
        answers = Asking(predictor, task, options, context, metered=upper_seconds is None, progress=progress).ask(rows)
        seconds = context.clock.now() - began
        classes = class_count(answers["target"], task)
        measuring = metrics_seconds(len(rows), task, options, classes).p95 if upper_seconds is None else None
        with unit(context, f"measure {predictor.name}", measuring):
            metrics, by_class = measure(answers, task, options.resamples, options.confidence, context.seed)
            by_part = {
                part: measure(own, task, options.resamples, options.confidence, context.seed)[0]
                for part, own in parts_of(answers)
            }
    scores = Scores(
        predictor.name, task, split, len(rows), metrics, by_class, by_part, seconds, look, candidate, answers
    )
    tell(scores, context)
    return scores


def parts_of(predictions: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """The predictions for each part of the data, by its name; none where the data is one."""
    names = predictions["part"].drop_nulls().unique().sort().to_list()
    return [(name, predictions.filter(predictions["part"] == name)) for name in names] if len(names) > 1 else []


def compare(
    tuned: Scores,
    baseline: Scores,
    options: EvaluateOptions,
    metric: str | None = None,
    seed: int = 0,
    part: str = "",
) -> Comparison | None:
    """Hold a tuned model against a baseline on the same rows.

    The interval's confidence is 1 minus what the tuned model's look may spend of the error budget (`looks.py`).

    Args:
        tuned: the tuned model's scores.
        baseline: the baseline's, on the same split.
        options: evaluation's part of the project file.
        metric: the metric, by default the task's own.
        seed: of the resamples.
        part: of the data, to compare its rows alone.

    Returns:
        None where one of the two does not have the metric, or the look is beyond those that are allowed.

    Raises:
        ValueError: the two were not asked the same rows.
    """
    if set(tuned.predictions["id"]) != set(baseline.predictions["id"]) or tuned.rows != baseline.rows:
        raise ValueError(f"{tuned.predictor} and {baseline.predictor} were not asked the same rows")
    share = error_share(tuned.look, options.looks, options.error_budget)
    if share == 0:
        return None
    name = primary_metric(tuned.task, metric)
    ours, theirs = (
        (frame.filter(frame["part"] == part) if part else frame).sort("id")
        for frame in (tuned.predictions, baseline.predictions)
    )
    result = pair(ours, theirs, tuned.task, name, options.comparison_resamples, 1 - share, seed)
    if result is None:
        return None
    return Comparison(
        baseline=baseline.predictor,
        metric=name,
        difference=result.difference,
        low=result.low,
        high=result.high,
        p_value=result.p_value,
        confidence=result.confidence,
        outcome=outcome(result, options.minimum_gain),
        rows=result.rows,
        differing=result.differing,
        part=part,
    )


def conclude(
    tuned: Scores,
    baselines: Sequence[Scores],
    options: EvaluateOptions,
    context: Context,
    *,
    target: Target | None = None,
    latency: Latency | None = None,
    upper_seconds: float | None = None,
    note: str = "",
) -> Evaluation:
    """Compare a tuned model with every baseline and give the verdict, with an event for each, in one metered unit.

    Args:
        tuned: the tuned model's scores on the test split.
        baselines: everyone else's, on the same rows: cheap ones, the untuned model, the previous one.
        options: evaluation's part of the project file.
        context: the run's surroundings.
        target: what the project wants.
        latency: the tuned model's, where it was measured.
        upper_seconds: the longest that comparing can take; None for `comparison_seconds`.
        note: what the verdict is to say besides its reasons.

    Raises:
        OutOfBudget: money or time do not hold it.
    """
    target = target or Target()
    metric = primary_metric(tuned.task, target.metric)
    also = [name for name in suite_for(tuned.task).shares if name != metric][:1]
    if upper_seconds is None:
        classes = class_count(tuned.predictions["target"], tuned.task)
        upper_seconds = comparison_seconds(tuned.rows, tuned.task, options, len(baselines), classes).p95
    with unit(context, "compare", upper_seconds):
        pairs = [(name, "") for name in (metric, *also)] + [(metric, part) for part in tuned.by_part]
        comparisons = _compared(tuned, baselines, pairs, options, context)
    whole = [comparison for comparison in comparisons if not comparison.part]
    decided = verdict(whole, tuned, [scores.predictor for scores in baselines], target, options, latency)
    if note:
        decided = Verdict(decided.decision, (*decided.reasons, note))
    for comparison in comparisons:
        context.events.emit("evaluation.comparison", **vars(comparison))
    context.events.emit("verdict", decision=decided.decision, reasons=list(decided.reasons))
    return Evaluation(metric, tuned, tuple(baselines), comparisons, decided, latency)


def _compared(
    tuned: Scores,
    baselines: Sequence[Scores],
    pairs: Sequence[tuple[str, str]],
    options: EvaluateOptions,
    context: Context,
) -> tuple[Comparison, ...]:
    """The tuned model against every baseline on each metric of each part (empty for the whole); within a unit, the
    limits are asked before each comparison but the first."""
    found: list[Comparison] = []
    slowest = 0.0
    for (name, part), baseline in product(pairs, baselines):
        if slowest:
            context.meter.go_on("compare", slowest)
        began = context.clock.now()
        comparison = compare(tuned, baseline, options, name, context.seed, part)
        slowest = max(slowest, context.clock.now() - began)
        if comparison is not None:
            found.append(comparison)
    return tuple(found)


def metrics_seconds(rows: int, task: str, options: EvaluateOptions, classes: int = 2) -> Forecast:
    """Seconds for the metrics and intervals of so many rows, with so many labels."""
    numbers = 0
    if kind_of(task).classes:
        numbers = min(options.resamples * rows * classes, max(DEAR_WORK, FEWEST_RESAMPLES * rows * classes))
    median = METRICS_START_SECONDS + rows * kind_of(task).metrics_row_seconds + numbers * CURVE_NUMBER_SECONDS
    return Forecast.lognormal(median, METRICS_SPREAD, "record")


def comparison_seconds(rows: int, task: str, options: EvaluateOptions, baselines: int, classes: int = 2) -> Forecast:
    """Seconds for `conclude` over so many rows, labels and baselines."""
    kind = kind_of(task)
    cells = min(rows, classes**3) if kind.classes and kind.target == "whole" else rows
    one = 2 * rows * kind.metrics_row_seconds + cells * options.comparison_resamples * CELL_SECONDS
    return Forecast.lognormal(METRICS_START_SECONDS + baselines * one, METRICS_SPREAD, "record")


def tell(scores: Scores, context: Context) -> None:
    """Put scores into the attempt's record; also those that an earlier attempt found."""
    context.events.emit(
        "evaluation.scores",
        predictor=scores.predictor,
        split=scores.split,
        rows=scores.rows,
        metrics={name: vars(interval) for name, interval in scores.metrics.items()},
        by_class=dict(scores.by_class),
        by_part={part: {name: vars(i) for name, i in metrics.items()} for part, metrics in scores.by_part.items()},
        seconds=scores.seconds,
    )
