"""The gate: ship, hold, reject, or say that one cannot tell. Missing evidence never passes.

- reject: on the metric, the tuned model is not better than some baseline (so not than the best), or it misses the
  target for certain (the whole interval does).
- ship: it is better than every baseline, and its measured values meet every target. A value that meets the target
  while its interval reaches beyond is let through, and the reason says so.
- hold: it is better than every baseline, but a target is missed, though not for certain, or was not measured.
- cannot tell: no test rows, no baseline, a baseline that was not compared, too few rows to tell, or a test split
  that has been looked at too often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from thriftune.evaluate.options import EvaluateOptions, Target
from thriftune.evaluate.suites import primary_metric
from thriftune.evaluate.types import Comparison, Latency, Scores, Verdict
from thriftune.metrics.intervals import Interval
from thriftune.metrics.paired import BETTER, CANNOT_TELL, NOT_BETTER

Met = Literal["met", "missed", "unsure"]


def verdict(
    comparisons: Sequence[Comparison],
    tuned: Scores | None,
    baselines: Sequence[str],
    target: Target,
    options: EvaluateOptions,
    latency: Latency | None = None,
) -> Verdict:
    """Decide on a tuned model.

    Args:
        comparisons: with each baseline; only those on the target's metric decide.
        tuned: the tuned model's scores; None where it was not scored.
        baselines: everyone it must be better than.
        target: what the project wants.
        options: evaluation's part of the project file.
        latency: the tuned model's, where it was measured.
    """
    missing = _missing(comparisons, tuned, baselines, target, options)
    if tuned is None or missing:
        return Verdict("cannot tell", tuple(missing))
    deciding = _deciding(comparisons, tuned, target)
    checks = _checks(tuned, target, latency)
    reasons = tuple([_sentence(comparison) for comparison in deciding] + [reason for _, reason in checks])
    outcomes = {comparison.outcome for comparison in deciding}
    standings = {met for met, _ in checks}
    if NOT_BETTER in outcomes or "missed" in standings:
        return Verdict("reject", reasons)
    if CANNOT_TELL in outcomes:
        return Verdict("cannot tell", reasons)
    return Verdict("hold" if "unsure" in standings else "ship", reasons)


def _missing(
    comparisons: Sequence[Comparison],
    tuned: Scores | None,
    baselines: Sequence[str],
    target: Target,
    options: EvaluateOptions,
) -> list[str]:
    if tuned is None:
        return ["The tuned model was not evaluated."]
    if tuned.split != "test":
        return [f"The tuned model was evaluated on the {tuned.split} split; a verdict needs the test split."]
    if tuned.look == 0:
        return ["The look at the test split was not counted, because the model was not named as a candidate."]
    if tuned.look > options.looks:
        return [
            f"The test split has been spent: this was look {tuned.look} of at most {options.looks} at these rows, "
            "and one more would find a winner by luck. Add fresh labelled rows to the data, and run again."
        ]
    if not baselines:
        return ["There was no baseline to compare with."]
    compared = {comparison.baseline for comparison in _deciding(comparisons, tuned, target)}
    metric = primary_metric(tuned.task, target.metric)
    return [f"There is no comparison with {name} on {metric}." for name in baselines if name not in compared]


def _deciding(comparisons: Sequence[Comparison], tuned: Scores, target: Target) -> list[Comparison]:
    metric = primary_metric(tuned.task, target.metric)
    return [comparison for comparison in comparisons if comparison.metric == metric]


def _sentence(comparison: Comparison) -> str:
    figures = (
        f"{comparison.metric} {comparison.difference:+.4f} "
        f"({100 * comparison.confidence:.4g} % interval {comparison.low:+.4f} to {comparison.high:+.4f}, "
        f"p = {comparison.p_value:.2g}, {comparison.rows} rows)"
    )
    if comparison.outcome == BETTER:
        return f"Better than {comparison.baseline}: {figures}."
    if comparison.outcome == NOT_BETTER:
        return f"Not better than {comparison.baseline}: {figures}."
    return f"Cannot tell whether it is better than {comparison.baseline}: {figures}{_rows_needed(comparison)}."


def _rows_needed(comparison: Comparison) -> str:
    # An interval narrows with the square root of the rows.
    if comparison.difference <= 0:
        return ""
    half = comparison.difference - comparison.low
    rows = comparison.rows * (half / comparison.difference) ** 2
    if rows <= comparison.rows:
        return f"; only {comparison.differing} rows differ, which is too few to be sure"
    return f"; if the difference stays, about {math.ceil(rows):,} test rows would tell"


def _checks(tuned: Scores, target: Target, latency: Latency | None) -> list[tuple[Met, str]]:
    metric = primary_metric(tuned.task, target.metric)
    found = tuned.metrics.get(metric)
    checks = []
    if target.at_least is not None:
        checks.append(_check(metric, found, target.at_least, at_least=True))
    if target.at_most is not None:
        checks.append(_check(metric, found, target.at_most, at_least=False))
    if target.latency_p95_ms is not None:
        p95 = None if latency is None else latency.p95_ms
        checks.append(_check("latency_p95_ms", p95, target.latency_p95_ms, at_least=False))
    return checks


def _check(name: str, found: Interval | None, wanted: float, at_least: bool) -> tuple[Met, str]:
    sign, word = (1, "at least") if at_least else (-1, "at most")
    goal = f"the target of {word} {wanted:g}"
    if found is None or math.isnan(found.value):
        return "unsure", f"{name} was not measured, so {goal} is not known to be met."
    figures = f"{name} is {found.value:.4g} ({found.low:.4g} to {found.high:.4g})"
    best, worst = (found.high, found.low) if at_least else (found.low, found.high)
    if sign * found.value >= sign * wanted:
        doubt = "" if sign * worst >= sign * wanted else ", though its interval reaches beyond it"
        return "met", f"{figures}, which meets {goal}{doubt}."
    if sign * best < sign * wanted:
        return "missed", f"{figures}, which misses {goal}."
    return "unsure", f"{figures}, which misses {goal}, but not for certain."
