"""The verdict as one sentence that a busy reader may stop at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from thriftune.report.model import Comparison, Report, Searched, Worth
from thriftune.report.returns import best_baseline
from thriftune.report.wording import (
    count,
    duration,
    estimate,
    interval_of_points,
    metric_name,
    money,
    periods,
    plain,
    points,
    predictor_name,
    times,
)

TITLES = {
    "ship": ("good", "Ship it."),
    "hold": ("warn", "Hold."),
    "reject": ("bad", "Do not ship."),
    "cannot tell": ("warn", "We cannot tell yet."),
}
ENDINGS = {
    "refused": ("bad", "Refused before it started."),
    "interrupted": ("warn", "Interrupted."),
    "failed": ("bad", "Failed."),
    "done": ("warn", "Done, without a verdict."),
    "planned": ("warn", "Planned, not yet run."),
}

AFTERMATHS = {"failed": "failed", "interrupted": "was interrupted"}
OTHERWISE = {
    "planned": "`thriftune run` does it.",
    "interrupted": "The next `thriftune run` goes on from here.",
}


@dataclass(frozen=True)
class Headline:
    """`tone` is good, warn or bad; `title` two or three words; `sentence` the evidence."""

    tone: str
    title: str
    sentence: str


def headline(report: Report) -> Headline:
    """The verdict, or, where there is none, how the attempt stands."""
    if report.verdict is not None:
        tone, title = TITLES.get(report.verdict.decision, ("warn", plain(report.verdict.decision).capitalize() + "."))
        return Headline(tone, title, evidence(report) + _aftermath(report))
    if report.outcome is None:
        return Headline("warn", "No verdict yet.", "The attempt has not ended: these are the figures so far.")
    tone, title = ENDINGS.get(report.outcome, ("warn", plain(report.outcome).capitalize() + "."))
    return Headline(tone, title, plain(report.message) or OTHERWISE.get(report.outcome, ""))


def _aftermath(report: Report) -> str:
    """What went wrong after the verdict, where something did."""
    if report.outcome not in AFTERMATHS:
        return ""
    message = f": {plain(report.message)}" if report.message else ""
    return f" The run {AFTERMATHS[report.outcome]} after the verdict{message}."


def evidence(report: Report) -> str:
    """Tuned against the strongest baseline, in one sentence."""
    tuned = report.tuned
    strongest = best_baseline(report.comparisons, report.metric)
    if tuned is None:
        return "The tuned model was not evaluated on the test split."
    name = metric_name(report.metric)
    rows = f" on {count(tuned.rows)} held-out rows" if tuned.rows is not None else " on held-out rows"
    scored = f"The tuned model scores {name} {estimate(tuned.metrics.get(report.metric or ''))}{rows}"
    if strongest is None:
        return f"{scored}; it was not compared with a baseline."
    judged = "" if strongest.rows in (None, tuned.rows) else f", by {count(strongest.rows)} rows"
    return f"{scored}: {_against(strongest)}{judged}."


def _against(comparison: Comparison) -> str:
    baseline = predictor_name(comparison.baseline)
    gap = interval_of_points(100 * comparison.difference, 100 * comparison.low, 100 * comparison.high)
    if comparison.outcome == "better":
        return f"{gap} against {baseline}, the strongest baseline"
    if comparison.outcome == "not better":
        return f"not better than {baseline}, the strongest baseline, {gap}"
    return f"not yet told apart from {baseline}, the strongest baseline, {gap}"


def return_sentence(report: Report) -> str:
    """What the gain is worth, said with no more certainty than there is."""
    found = report.returns
    cost = money(found.cost, report.cost.currency)
    if found.status == "not measured":
        return f"No gain was measured, so there is no return to state. Spent so far: {cost}."
    if found.status == "not in points":
        return f"{metric_name(found.metric)} is not on a scale from 0 to 1, so a gain in it has no worth in points."
    gap = interval_of_points(found.points_gained, found.points_low, found.points_high)
    gain = f"{gap} of {metric_name(found.metric)} over {predictor_name(found.baseline or '')}"
    if found.status == "no gain":
        return f"No gain: {gain}. The {cost} spent bought none."
    unproven = " The gain is not proven: its interval holds zero." if found.status == "not proven" else ""
    per_point = f"{money(found.cost_per_point, report.cost.currency)} a point"
    if report.project.worth is None:
        return f"{gain} for {cost}: {per_point}. The project file states no worth, so no return follows.{unproven}"
    return f"{gain} {_worth(report, report.project.worth)}, {per_point}.{unproven}"


def _worth(report: Report, worth: Worth) -> str:
    found, currency = report.returns, report.cost.currency
    low, high = money(found.value_low, currency), money(found.value_high, currency)
    value = f"is worth {money(found.value, currency)} ({low} to {high}) over {worth.horizon}"
    if found.ratio is None:
        return f"{value}; nothing was spent"
    multiple = (
        f"{times(found.ratio)} its cost of {money(found.cost, currency)} "
        f"({times(found.ratio_low)} to {times(found.ratio_high)})"
    )
    if found.status == "not proven" or worth.per == "once":
        return f"{value}: {multiple}"
    return f"{value}: {multiple}, paid back in {periods(found.break_even_periods, worth.per)}"


def budget_sentence(report: Report) -> str:
    """Spent against the budget and used against the deadline."""
    cost, time = report.cost, report.time
    spent = money(cost.spent, cost.currency)
    of_budget = f"{spent} of {money(cost.budget, cost.currency)}" if cost.budget is not None else f"{spent}, no budget"
    used = duration(time.used_s)
    of_deadline = f"{used} of {duration(time.deadline_s)}" if time.deadline_s is not None else f"{used}, no deadline"
    waited = f", {duration(time.waited_s)} of it waiting for the machine" if time.waited_s else ""
    return f"{of_budget}; {of_deadline}{waited}"


def target_sentence(report: Report) -> str:
    """Whether the value that the project asked for was reached; empty where it asked for none."""
    target = report.project.target
    if target is None or target.at_least is None:
        return ""
    metric = target.metric or report.metric
    measured = report.tuned.metrics.get(metric or "") if report.tuned else None
    asked = f"{metric_name(metric)} of at least {target.at_least:g}"
    if measured is None:
        return f"Target: {asked}; not measured."
    gap = points(100 * (measured.value - target.at_least))
    return f"Target: {asked}; {'reached' if measured.value >= target.at_least else 'missed'} ({gap} points)."


def judged_sentence(report: Report) -> str:
    """By how many rows the tuned model was held against the others, where there are more than in the test split."""
    rows = {one.rows for one in report.comparisons if one.rows is not None}
    tested = None if report.tuned is None else report.tuned.rows
    if tested is None or not rows or max(rows) <= tested:
        return ""
    more = max(rows) - tested
    return (
        f"Values are of the {count(tested)} test rows; gains are by {count(max(rows))} rows, {count(more)} of them "
        "training rows that were held out in turn."
    )


def search_sentence(search: Searched) -> str:
    """What a search ended with, and why it ended."""
    looks = sum(tried.looks for tried in search.configurations)
    if not search.winner:
        return f"Nothing was tried: {search.because}. The options stay as they came."
    found = ", ".join(f"{name} {value}" for name, value in search.winner.items())
    said = [
        f"{len(search.configurations)} configurations, {looks} looks, {duration(search.seconds)}: {found}.",
        f"It ended because {search.because}.",
    ]
    if search.top != search.winner:
        top = ", ".join(f"{name} {value}" for name, value in search.top.items())
        said.append(f"The best expected score has {top}; the winner is another because {search.chosen_because}.")
    if search.left:
        saved = duration(search.saved_seconds)
        said.append(f"{search.left} were left before the end of a training; to see those to their end, {saved} more.")
    if search.importance:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in search.importance.items())
        said.append(f"What the differences in score come from: {shares}.")
    if len(search.nested) > 1:
        error = stdev(search.nested) / math.sqrt(len(search.nested))
        said.append(
            f"Searching gives {fmean(search.nested):.3f} ± {error:.3f} (standard error) on rows that it has not seen, "
            f"by {len(search.nested)} outer folds."
        )
    return " ".join(said)


def forgetting_figure(report: Report) -> str:
    """The figure of the forgetting matrix: the report's metric where validation has it, else the loss."""
    figures = next(iter(report.forgetting[0].parts.values()))
    return report.metric if report.metric is not None and report.metric in figures else "loss"
