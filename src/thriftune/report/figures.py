"""The report's charts: one function each, from the report to a plain Plotly figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thriftune.report.model import Comparison, ForecastScore, PhaseCost, Report, Span
from thriftune.report.plotting import (
    Figure,
    curve,
    height_of,
    label,
    layout_of,
    note_at,
    running_mean,
    thinned,
    vertical,
)
from thriftune.report.search_figures import search_curve, search_frontier
from thriftune.report.wording import (
    MISSING,
    duration,
    estimate,
    interval_of_points,
    metric_name,
    money,
    predictor_name,
    quantity,
    signed_share,
    yes_no,
)
from thriftune.report.wording import score as score_text

FORECAST_HEADERS = (
    "forecast",
    "median",
    "50 % interval",
    "90 % interval",
    "actual",
    "error",
    "inside 50 %",
    "inside 90 %",
    "basis",
)
QUANTITY_NAMES = {"time_s": "time", "cost": "cost", "memory_bytes": "memory", "tokens": "tokens"}


def figures(report: Report) -> dict[str, Figure]:
    """Every chart that the report has something to show in, by name."""
    drawn = (
        scores(report),
        gains(report),
        spending(report),
        timeline(report),
        forecast(report),
        search_curve(report),
        search_frontier(report),
        loss_curves(report),
        metric_curve(report),
        rate_curve(report),
    )
    return {figure.name: figure for figure in drawn if figure is not None}


def scores(report: Report) -> Figure | None:
    """Every predictor's value on the primary metric, with its interval."""
    shown = [s for s in (report.tuned, *report.baselines) if s is not None and (report.metric or "") in s.metrics]
    if not shown:
        return None
    shown.sort(key=lambda s: s.metrics[report.metric or ""].value)
    values = [s.metrics[report.metric or ""] for s in shown]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [v.value for v in values],
        "y": [label(predictor_name(s.predictor)) for s in shown],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [0 if v.high is None else v.high - v.value for v in values],
            "arrayminus": [0 if v.low is None else v.value - v.low for v in values],
            "color": "@muted",
            "thickness": 2,
            "width": 6,
        },
        "marker": {"size": 13, "color": ["@accent" if s.predictor == "tuned" else "@muted" for s in shown]},
        "text": [label(estimate(v)) for v in values],
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "showlegend": False,
    }
    rows = [(predictor_name(s.predictor), estimate(s.metrics[report.metric or ""]), s.split) for s in reversed(shown)]
    said = "; ".join(f"{name} {value}" for name, value, _ in rows)
    layout = layout_of(xaxis={"title": {"text": label(metric_name(report.metric))}}, yaxis={"type": "category"})
    target = report.project.target
    if target is not None and target.at_least is not None and target.metric in (None, report.metric):
        layout["shapes"] = [vertical(target.at_least, "@warn", "dash")]
        layout["annotations"] = [note_at(target.at_least, f"target {target.at_least:g}", "@warn")]
        layout["margin"]["t"] = 26
    alt = f"{metric_name(report.metric)} with intervals: {said}."
    return Figure(
        "scores", alt, [trace], layout, height_of(len(shown)), ("predictor", metric_name(report.metric), "split"), rows
    )


def gains(report: Report) -> Figure | None:
    """A forest plot: the tuned model minus each baseline, in points, with the paired interval and a line at zero."""
    shown = sorted((c for c in report.comparisons if c.metric == report.metric), key=lambda c: -c.difference)
    if not shown:
        return None
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [100 * c.difference for c in shown],
        "y": [label(f"vs {predictor_name(c.baseline)}") for c in shown],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [100 * (c.high - c.difference) for c in shown],
            "arrayminus": [100 * (c.difference - c.low) for c in shown],
            "color": "@muted",
            "thickness": 2,
            "width": 6,
        },
        "marker": {"size": 13, "symbol": "square", "color": [_tone(c) for c in shown]},
        "text": [label(f"{_in_points(c)}, {c.outcome}") for c in shown],
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "showlegend": False,
    }
    rows = [(predictor_name(c.baseline), _in_points(c), _p_value(c.p_value), c.outcome) for c in reversed(shown)]
    said = "; ".join(f"against {name} {gain}, {outcome}" for name, gain, _, outcome in rows)
    layout = layout_of(
        xaxis={"title": {"text": f"points of {label(metric_name(report.metric))} gained"}, "rangemode": "tozero"},
        yaxis={"type": "category"},
    )
    layout["shapes"] = [vertical(0, "@ink", "solid")]
    return Figure(
        "gains",
        f"Tuned minus baseline with intervals: {said}.",
        [trace],
        layout,
        height_of(len(shown) + 1),  # as tall as the scores beside it, which have the tuned model as well
        ("baseline", "gain", "p", "outcome"),
        rows,
    )


def spending(report: Report) -> Figure | None:
    """Each phase's spending in front of its allowance."""
    phases = [p for p in reversed(report.cost.phases) if p.spent or p.allowance]
    if not phases:
        return None
    currency = report.cost.currency
    names = [label(p.phase) for p in phases]
    allowed = {
        "type": "bar",
        "orientation": "h",
        "name": "allowance",
        "y": names,
        "x": [None if p.allowance is None else float(p.allowance) for p in phases],
        "width": 0.62,
        "marker": {"color": "@faint", "line": {"color": "@line", "width": 1}},
        "text": [label(money(p.allowance, currency)) for p in phases],
        "textposition": "none",
        "hovertemplate": "%{y}: %{text} allowed<extra></extra>",
    }
    spent = {
        "type": "bar",
        "orientation": "h",
        "name": "spent",
        "y": names,
        "x": [float(p.spent) for p in phases],
        "width": 0.32,
        "marker": {
            "color": ["@bad" if p.allowance is not None and p.spent > p.allowance else "@accent" for p in phases]
        },
        "text": [label(money(p.spent, currency)) for p in phases],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{text} spent<extra></extra>",
    }
    rows = [_phase_row(p, currency) for p in report.cost.phases]
    said = "; ".join(f"{name} {spent} of {allowance}" for name, spent, allowance, *_ in rows)
    layout = layout_of(
        xaxis={"title": {"text": label(f"{currency}".strip() or "money")}, "rangemode": "tozero"},
        yaxis={"type": "category"},
        barmode="overlay",
        showlegend=True,
    )
    return Figure(
        "spending",
        f"Spent against allowance by phase: {said}.",
        [allowed, spent],
        layout,
        height_of(len(phases)) + 34,
        ("phase", "spent", "allowance", "moved in", "moved out", "machine time"),
        rows,
    )


def timeline(report: Report) -> Figure | None:
    """When each stage ran, in seconds from the attempt's start."""
    if not report.spans:
        return None
    stages = list(dict.fromkeys(span.stage for span in reversed(report.spans)))
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": [label(span.stage) for span in report.spans],
        "base": [span.started_at - report.started_at for span in report.spans],
        "x": [max(_span_seconds(span, report.as_of), 0.0) for span in report.spans],
        "width": 0.5,
        "marker": {"color": [_span_colour(span) for span in report.spans]},
        "text": [_span_said(span, report.as_of) for span in report.spans],
        "textposition": "none",
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "showlegend": False,
    }
    rows = [
        (span.stage, duration(span.started_at - report.started_at), _span_said(span, report.as_of))
        for span in report.spans
    ]
    said = "; ".join(f"{stage} {lasted}" for stage, _, lasted in rows)
    layout = layout_of(
        xaxis={"title": {"text": "seconds from the attempt's start"}, "rangemode": "tozero"},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": [label(stage) for stage in stages]},
        barmode="overlay",
    )
    return Figure(
        "timeline",
        f"Stages in time: {said}.",
        [trace],
        layout,
        height_of(len(stages), 30),
        ("stage", "began after", "lasted"),
        rows,
    )


def forecast(report: Report) -> Figure | None:
    """Every forecast on one scale (its median is 1), its intervals as bars, what happened as a diamond."""
    shown = [score for score in reversed(report.forecasts) if score.p50 > 0]
    if not shown:
        return None
    currency = report.cost.currency
    names = [label(forecast_name(score)) for score in shown]
    data = [
        _band(names, shown, "p5", "p95", "90 % interval", "@band", 0.3),
        _band(names, shown, "p25", "p75", "50 % interval", "@accent-soft", 0.56),
        {
            "type": "scatter",
            "mode": "markers",
            "name": "actual",
            "y": [n for n, s in zip(names, shown, strict=True) if s.actual is not None],
            "x": [s.actual / s.p50 for s in shown if s.actual is not None],
            "marker": {
                "symbol": "diamond",
                "size": 13,
                "color": ["@good" if s.inside_90 else "@bad" for s in shown if s.actual is not None],
                "line": {"color": "@card", "width": 1.5},
            },
            "text": [label(_actual_said(s, currency)) for s in shown if s.actual is not None],
            "hovertemplate": "%{y}: %{text}<extra></extra>",
        },
    ]
    said = "; ".join(f"{forecast_name(s)}: {_actual_said(s, currency)}" for s in reversed(shown))
    rows = [_forecast_row(score, currency) for score in report.forecasts]
    layout = layout_of(
        xaxis={"title": {"text": "times the forecast's median"}},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": names},
        barmode="overlay",
        showlegend=True,
    )
    layout["shapes"] = [vertical(1, "@ink", "dot")]
    return Figure(
        "forecast",
        f"Forecast and actual: {said}.",
        data,
        layout,
        height_of(len(shown), 34) + 34,
        (
            "forecast",
            "median",
            "50 % interval",
            "90 % interval",
            "actual",
            "error",
            "inside 50 %",
            "inside 90 %",
            "basis",
        ),
        rows,
    )


def loss_curves(report: Report) -> Figure | None:
    """Training loss by step, its running mean, and validation loss."""
    steps = thinned([step for step in report.steps if step.loss is not None])
    validations = [v for v in report.validations if v.loss is not None]
    if not steps and not validations:
        return None
    x = [step.step for step in steps]
    losses = [step.loss for step in steps if step.loss is not None]
    data = [
        curve(x, losses, "training, each step", "@band", 1),
        curve(x, running_mean(losses), "training, running mean", "@accent", 2.5),
        curve([v.step for v in validations], [v.loss for v in validations], "validation", "@second", 2.5, marks=True),
    ]
    layout = layout_of(xaxis={"title": {"text": "step"}}, yaxis={"title": {"text": "loss"}}, showlegend=True)
    layout["shapes"] = _refit_lines(report)
    last = f"Training loss ends at {losses[-1]:.3f}" if losses else "Training loss was not measured"
    best = min((v.loss for v in validations if v.loss is not None), default=None)
    lowest = "" if best is None else f", the lowest validation loss is {best:.3f}"
    return Figure(
        "loss",
        f"{last}{lowest}.",
        [each for each in data if each["x"]],
        layout,
        300,
        ("step", "validation loss", "best so far"),
        [(str(v.step), score_text(v.loss), "yes" if v.best else "no") for v in validations],
    )


def metric_curve(report: Report) -> Figure | None:
    """The primary metric on the validation split, the best checkpoints filled."""
    name = report.metric or ""
    shown = [v for v in report.validations if name in v.metrics]
    if not shown:
        return None
    values = [v.metrics[name] for v in shown]
    trace = curve([v.step for v in shown], values, metric_name(name), "@second", 2.5, marks=True)
    trace["marker"]["symbol"] = ["circle" if v.best else "circle-open" for v in shown]
    layout = layout_of(xaxis={"title": {"text": "step"}}, yaxis={"title": {"text": label(metric_name(name))}})
    return Figure(
        "metric",
        f"Validation {metric_name(name)} from {values[0]:.3f} at step {shown[0].step} to {values[-1]:.3f} "
        f"at step {shown[-1].step}; the best is {max(values):.3f}.",
        [trace],
        layout,
        260,
        ("step", metric_name(name), "best so far"),
        [(str(v.step), score_text(v.metrics[name]), "yes" if v.best else "no") for v in shown],
    )


def rate_curve(report: Report) -> Figure | None:
    """The learning rate, with the steps at which the schedule was re-fitted."""
    steps = thinned([step for step in report.steps if step.rate is not None])
    if not steps:
        return None
    trace = curve([s.step for s in steps], [s.rate for s in steps], "learning rate", "@accent", 2.5)
    layout = layout_of(
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "learning rate"}, "exponentformat": "e", "rangemode": "tozero"},
    )
    fits = refits(report)
    layout["shapes"] = _refit_lines(report)
    layout["annotations"] = [note_at(step, f"re-fit to {planned}", "@warn") for step, planned in fits]
    layout["margin"]["t"] = 26
    peak = max(step.rate for step in steps if step.rate is not None)
    said = ", ".join(f"re-fitted at step {step} to {planned} steps" for step, planned in fits) or "never re-fitted"
    return Figure(
        "rate",
        f"The learning rate peaks at {peak:.2g}; {said}.",
        [trace],
        layout,
        260,
        ("step", "re-fitted to"),
        [(str(step), f"{planned} steps") for step, planned in fits],
    )


def refits(report: Report) -> list[tuple[int, str]]:
    """(step, new number of steps) wherever the schedule was fitted again during training."""
    return [
        (decision.at_step, str(decision.chosen))
        for decision in report.decisions
        if decision.what in ("planned_steps", "ending") and decision.at_step > 0
    ]


def forecast_name(score: ForecastScore) -> str:
    """A forecast's phase and quantity: `training time`."""
    return f"{score.phase} {QUANTITY_NAMES.get(score.quantity, score.quantity)}"


def _refit_lines(report: Report) -> list[dict[str, Any]]:
    return [vertical(step, "@warn", "dash") for step, _ in refits(report)]


def _band(
    names: Sequence[str], shown: Sequence[ForecastScore], low: str, high: str, name: str, colour: str, width: float
) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": list(names),
        "base": [getattr(score, low) / score.p50 for score in shown],
        "x": [(getattr(score, high) - getattr(score, low)) / score.p50 for score in shown],
        "width": width,
        "marker": {"color": colour},
        "hoverinfo": "skip",
    }


def _actual_said(score: ForecastScore, currency: str) -> str:
    foretold = quantity(score.quantity, score.p50, currency)
    happened = quantity(score.quantity, score.actual, currency)
    gap = "" if score.signed_error is None else f" ({signed_share(score.signed_error)})"
    return f"{happened} against {foretold} foretold{gap}"


def _forecast_row(score: ForecastScore, currency: str) -> tuple[str, ...]:
    def said(value: float | None) -> str:
        return quantity(score.quantity, value, currency)

    return (
        forecast_name(score),
        said(score.p50),
        f"{said(score.p25)} to {said(score.p75)}",
        f"{said(score.p5)} to {said(score.p95)}",
        said(score.actual),
        signed_share(score.signed_error),
        yes_no(score.inside_50),
        yes_no(score.inside_90),
        score.basis,
    )


def _phase_row(phase: PhaseCost, currency: str) -> tuple[str, ...]:
    amounts = (phase.spent, phase.allowance, phase.moved_in, phase.moved_out)
    return (phase.phase, *(money(amount, currency) for amount in amounts), duration(phase.seconds))


def _p_value(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}" if value >= 0.001 else "below 0.001"


def _in_points(comparison: Comparison) -> str:
    return interval_of_points(100 * comparison.difference, 100 * comparison.low, 100 * comparison.high)


def _tone(comparison: Comparison) -> str:
    return {"better": "@good", "not better": "@bad"}.get(comparison.outcome, "@warn")


def _span_seconds(span: Span, as_of: float) -> float:
    return (as_of if span.finished_at is None else span.finished_at) - span.started_at


def _span_colour(span: Span) -> str:
    return "@warn" if span.interrupted else "@muted" if span.reused else "@accent"


def _span_said(span: Span, as_of: float) -> str:
    state = " (interrupted)" if span.interrupted else " (reused)" if span.reused else ""
    return f"{duration(_span_seconds(span, as_of))}{state}"
