"""`report --json`: the form that programs outside the project rely on (BENCHMARKS.md), and keys beyond it.

Money is decimal text, times are seconds, what was not measured is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from thriftune.plan.compare import to_data
from thriftune.report import spending
from thriftune.report.benefit import benefit_of
from thriftune.report.model import Cost, DataStep, Estimate, ForecastScore, Report, Return, Scores, TimeUse
from thriftune.report.search_figures import money_of
from thriftune.timeline import exports


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON values.

    Returns:
        At least: project, verdict {decision, reasons, comparisons}, tuned, baselines, cost, time, forecast,
        data_ledger, decisions, breaches, return; beyond these: benefit, durations, previous, attempt, outcome,
        environment, curves, parts, looks, utilisation, timeline, schedule, inherited.
    """
    return {
        "project": report.project.name,
        "task": report.project.task,
        "attempt": report.attempt,
        "outcome": report.outcome,
        "message": report.message,
        "as_of": report.as_of,
        "metric": report.metric,
        "verdict": {
            "decision": report.verdict.decision if report.verdict else None,
            "reasons": list(report.verdict.reasons) if report.verdict else [],
            "comparisons": [asdict(comparison) for comparison in report.comparisons],
        },
        "tuned": _tuned(report),
        "baselines": {scores.predictor: _scores(scores) for scores in report.baselines},
        "cost": {
            **_cost(report.cost),
            "by_category": spending.categories_json(report.spending),
            "energy": spending.energy_json(report.spending),
        },
        **spending.to_json(report.spending),
        "time": _time(report.time),
        "forecast": _forecast(report.forecasts),
        "data_ledger": [_data_step(step) for step in report.data_ledger],
        "tokens": None if report.tokens is None else asdict(report.tokens),
        "warnings": [asdict(warned) for warned in report.warnings],
        "decisions": [
            {"at_step": d.at_step, "what": d.what, "chosen": d.chosen, "because": d.because, "at": d.instant}
            for d in report.decisions
        ],
        "search": _search(report),
        "breaches": [asdict(breach) for breach in report.breaches],
        "return": _return(report.returns),
        "benefit": _benefit(report),
        "compared": None
        if report.compared is None
        else {"at": report.compared.instant} | to_data(report.compared.comparison) | {"ways": report.compared.ways},
        "durations": [asdict(one) for one in report.durations],
        "previous": None if report.previous is None else asdict(report.previous),
        "curves": {
            "training": [asdict(step) for step in report.steps],
            "validation": [{**asdict(v), "metrics": dict(v.metrics)} for v in report.validations],
        },
        "parts": {
            "comparisons": [asdict(comparison) for comparison in report.part_comparisons],
            "forgetting": [asdict(row) for row in report.forgetting],
        },
        "looks": [asdict(look) for look in report.looks],
        "utilisation": {
            **asdict(report.utilisation),
            "seconds_by_unit": _by_unit(report.time),
            **spending.use_json(report.spending),
        },
        "timeline": [asdict(span) for span in report.spans],
        "schedule": None if report.timeline is None else exports.to_json(report.timeline),
        "environment": {
            **asdict(report.environment),
            "machine": dict(report.environment.machine),
            "versions": dict(report.environment.versions),
        },
        "inherited": dict(report.inherited),
    }


def money(amount: Decimal | None) -> str | None:
    """Money as plain decimal text: exact, at least two decimals, never in powers of ten."""
    if amount is None:
        return None
    whole, _, decimals = format(amount, "f").partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def _search(report: Report) -> dict[str, Any] | None:
    if report.search is None:
        return None
    spent = [money(amount) for amount in money_of(report.search, report.cost.price_per_hour)]
    return asdict(report.search) | {"best_spent": spent, "left": report.search.left}


def _tuned(report: Report) -> dict[str, Any] | None:
    if report.tuned is None:
        return None
    return {"model": report.project.model, **_scores(report.tuned)}


def _scores(scores: Scores) -> dict[str, Any]:
    return {
        "split": scores.split,
        "rows": scores.rows,
        "metrics": {name: _estimate(estimate) for name, estimate in scores.metrics.items()},
        "by_class": {label: dict(figures) for label, figures in scores.by_class.items()},
        "by_part": {
            part: {name: _estimate(estimate) for name, estimate in metrics.items()}
            for part, metrics in scores.by_part.items()
        },
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "budget": money(cost.budget),
        "spent": money(cost.spent),
        "this_attempt": money(cost.this_attempt),
        "currency": cost.currency,
        "price_per_hour": money(cost.price_per_hour),
        "by_phase": {
            phase.phase: {
                "allowance": money(phase.allowance),
                "spent": money(phase.spent),
                "moved_in": money(phase.moved_in),
                "moved_out": money(phase.moved_out),
                "estimated": money(phase.estimated),
            }
            for phase in cost.phases
        },
        "moves": [
            {"at": m.instant, "source": m.source, "target": m.target, "amount": money(m.amount), "reason": m.reason}
            for m in cost.moves
        ],
        "ledger_difference": money(cost.ledger_difference),
    }


def _time(time: TimeUse) -> dict[str, Any]:
    return {
        "deadline_s": time.deadline_s,
        "used_s": time.used_s,
        "metered_s": time.metered_s,
        "waited_s": time.waited_s,
        "by_phase": dict(time.by_phase),
    }


def _by_unit(time: TimeUse) -> dict[str, dict[str, float]]:
    nested: dict[str, dict[str, float]] = {}
    for (phase, unit), seconds in time.by_unit.items():
        nested.setdefault(phase, {})[unit] = seconds
    return nested


def _forecast(scores: tuple[ForecastScore, ...]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for score in scores:
        nested.setdefault(score.phase, {})[score.quantity] = {
            "p5": score.p5,
            "p25": score.p25,
            "p50": score.p50,
            "p75": score.p75,
            "p95": score.p95,
            "actual": score.actual,
            "basis": score.basis,
            "inside_50": score.inside_50,
            "inside_90": score.inside_90,
            "signed_error": score.signed_error,
            "width_90": score.width_90,
        }
    return nested


def _data_step(step: DataStep) -> Mapping[str, Any]:
    return {**asdict(step), "dropped": dict(step.dropped), "balances": step.balances}


def _return(returns: Return) -> dict[str, Any]:
    return {
        "status": returns.status,
        "metric": returns.metric,
        "baseline": returns.baseline,
        "points_gained": returns.points_gained,
        "points_low": returns.points_low,
        "points_high": returns.points_high,
        "cost": money(returns.cost),
        "cost_per_point": money(returns.cost_per_point),
        "value": money(returns.value),
        "value_low": money(returns.value_low),
        "value_high": money(returns.value_high),
        "roi": returns.ratio,
        "roi_low": returns.ratio_low,
        "roi_high": returns.ratio_high,
        "break_even_points": returns.break_even_points,
        "break_even_periods": returns.break_even_periods,
    }


def _benefit(report: Report) -> dict[str, Any]:
    """What follows from the return; points and rates are numbers."""
    found = benefit_of(report)
    return {
        "net_roi": asdict(found.roi),
        "break_even_at": asdict(found.break_even_at),
        "sensitivity": [
            {**asdict(swing), "at_low": money(swing.at_low), "at_high": money(swing.at_high)}
            for swing in found.sensitivity
        ],
        "marginal": None if found.marginal is None else asdict(found.marginal),
        "kpis": asdict(found.kpis),
    }
