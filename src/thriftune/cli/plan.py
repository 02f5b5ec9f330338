"""Showing a plan: a table by part, the limits, and every default with its reason; or all of it as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftune.clock import SystemClock
from thriftune.errors import BadInput
from thriftune.money.amounts import shown_money
from thriftune.plan.plan import PHASES, Plan
from thriftune.plan.review import MOVES
from thriftune.report.wording import duration, quantity

if TYPE_CHECKING:
    from rich.table import Table

    from thriftune.budget.forecast import Forecast
    from thriftune.plan.review import Proposal
    from thriftune.plan.whatif import Answer
    from thriftune.project import Project


def check_picture(picture: Path | None, compare: bool) -> None:
    """Refuse a picture that nothing would be drawn in, before anything is paid for.

    Raises:
        BadInput: it is asked for without a comparison, or not as an SVG file.
    """
    if picture is not None and (not compare or picture.suffix.lower() != ".svg"):
        raise BadInput(
            "there is no such picture",
            where="--picture",
            found=f"{picture}" + ("" if compare else " without --compare"),
            expected="a file that ends in .svg, with --compare",
            way_out="thriftune plan --compare --picture frontier.svg",
        )


def show_plan(
    project: Project, found: Answer, as_json: bool, compare: bool = False, picture: Path | None = None
) -> None:
    """Print the plan, what was asked of it, and with `compare` the same run elsewhere."""
    from thriftune.cli.compare import compared, comparison_json, keep_comparison, show_comparison, write_frontier
    from thriftune.cli.timeline import read_timeline
    from thriftune.cli.whatif import answer_json, show_answer
    from thriftune.timeline.exports import to_json

    plan, asked = found.before, found.question.asks
    if as_json:
        told = plan_json(project, plan) | {"timeline": to_json(read_timeline(project))}
        told["proposals"] = [each.told() for each in found.proposals]
        if asked:
            told["what_if"] = answer_json(found)
        if compare:
            elsewhere = compared(project, found.after)
            told["compare"] = comparison_json(elsewhere)
            write_frontier(project, elsewhere, picture)
            if not asked:
                keep_comparison(project, elsewhere)
        print(json.dumps(told, ensure_ascii=False))
        return
    _show_own(project, plan, found.proposals, defaults=not (asked or compare))
    if asked:
        show_answer(found)
    if compare:
        elsewhere = compared(project, found.after)
        if not asked:
            keep_comparison(project, elsewhere)
        show_comparison(project, elsewhere, picture)


def _show_own(project: Project, plan: Plan, proposals: Sequence[Proposal], defaults: bool) -> None:
    """The plan by the project file, in time, with every default of it that is not stated."""
    from rich.console import Console
    from rich.table import Table

    from thriftune.cli.timeline import read_timeline, show_gantt
    from thriftune.report.gantt import chance_said

    console = Console()
    currency = plan.limits.currency
    table = Table(title=f"{project.file.name}: what is still to come", title_justify="left")
    for heading in ("phase", "part"):
        table.add_column(heading)
    for heading in ("expected", "50 % interval", "90 % interval", "cost", "from"):
        table.add_column(heading, justify="right")
    for part in plan.parts:
        table.add_row(part.phase, part.what, *_cells(plan, part.seconds), part.seconds.basis)
    table.add_section()
    table.add_row("total", "", *_cells(plan, plan.full), plan.full.basis, style="bold")
    console.print(table)
    if plan.memory:
        console.print(_memory(plan))
    console.print(price_said(project))
    console.print(_fit(plan))
    if plan.full_rows:
        console.print(_asked(plan))
    if plan.in_turn.p95:
        most = plan.in_turn.scaled(_price(plan)).p95
        console.print(
            f"should the test rows not tell: up to {duration(plan.in_turn.p95)} more, "
            f"{shown_money(Decimal(str(most)), currency)}, for trainings without some rows (evaluate.held_out_in_turn)",
            soft_wrap=True,
        )
    for proposal in proposals:
        console.print(_proposed(proposal, currency), soft_wrap=True)
    if plan.limits.to_keep:
        console.print(f"storage: up to {shown_money(plan.limits.to_keep, currency)}, beside the machine's time")
    if plan.limits.to_buy:
        what = "tokens to buy" if project.file.compute.cluster is None else "nodes of the search"
        console.print(f"{what}: up to {shown_money(plan.limits.to_buy, currency)}, beside this machine's time")
    console.print(
        f"the least that works from here: a budget of {shown_money(plan.minimum_budget(), currency)} "
        f"and a deadline of {plan.minimum_time():.0f} s"
    )
    timeline = read_timeline(project)
    show_gantt(timeline, console)
    console.print(f"{chance_said(timeline)}; `thriftune timeline` has the rest")
    if not defaults:
        return
    left_open = Table(title="what the project file leaves open", title_justify="left", show_lines=False)
    for heading in ("key", "value", "because"):
        left_open.add_column(heading, overflow="fold")
    for default in project.describe_defaults():
        left_open.add_row(default.key, str(default.value), default.reason)
    console.print(left_open)


def price_said(project: Project) -> str:
    """The price that a plan is reckoned with, and its age; marked where it is old."""
    from thriftune.money.prices import OLD_AFTER_DAYS

    now, count = SystemClock().now(), project.file.compute.count
    said = f"reckoned with {'' if count == 1 else f'{count} x '}{project.price.label}: {project.price.told(now)}"
    if not project.price.is_old(now):
        return said
    return f"{said}\n[yellow]that price is over {OLD_AFTER_DAYS} days old[/yellow]: `thriftune prices update` renews it"


def plan_json(project: Project, plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values; money as decimal text, seconds as numbers, no limit as null."""
    limits, now = plan.limits, SystemClock().now()
    return {
        "project": project.file.name,
        "currency": limits.currency,
        "price_per_hour": str(limits.price_per_hour),
        "price": project.price.told(now),
        "price_age_days": project.price.age_days(now),
        "price_is_old": project.price.is_old(now),
        "parts": [
            {
                "phase": part.phase,
                "what": part.what,
                "time_s": _quantiles(part.seconds),
                "cost": _quantiles(part.seconds.scaled(_price(plan))),
                "basis": part.seconds.basis,
            }
            for part in plan.parts
        ],
        "phases": {
            phase: {
                "time_s": _quantiles(plan.phase(phase)),
                "cost": _quantiles(plan.phase(phase).scaled(_price(plan))),
                "memory_bytes": _quantiles(plan.memory[phase]) if phase in plan.memory else None,
            }
            for phase in PHASES
        },
        "total": {"time_s": _quantiles(plan.full), "cost": _quantiles(plan.full.scaled(_price(plan)))},
        "held_out_in_turn": {
            "time_s": _quantiles(plan.in_turn),
            "cost": _quantiles(plan.in_turn.scaled(_price(plan))),
        },
        "memory_bytes": _quantiles(plan.most_memory) if plan.memory else None,
        "tokens": plan.tokens,
        "to_buy": str(plan.limits.to_buy),
        "to_keep": str(plan.limits.to_keep),
        "steps": {"full": plan.full_steps, "planned": plan.planned_steps},
        "test_rows": {"full": plan.full_rows, "planned": plan.planned_rows},
        "left": {"money_s": _finite(limits.money_seconds), "deadline_s": _finite(limits.time_seconds)},
        "bound_by": limits.binding,
        "fits_whole": plan.fits_whole,
        "minimum": {"budget": str(plan.minimum_budget()), "deadline_s": plan.minimum_time()},
        "defaults": [
            {"key": default.key, "value": str(default.value), "because": default.reason}
            for default in project.describe_defaults()
        ],
    }


def _memory(plan: Plan) -> Table:
    """The peak of each phase, and the largest of them."""
    from rich.table import Table

    table = Table(title="the most memory that the process will hold", title_justify="left")
    table.add_column("phase")
    for heading in ("expected", "50 % interval", "90 % interval", "from"):
        table.add_column(heading, justify="right")
    for phase, peak in (plan.memory | {"whole run": plan.most_memory}).items():
        p5, p25, p50, p75, p95 = (quantity("memory_bytes", q, "") for q in peak.quantiles())
        table.add_row(phase, p50, f"{p25} - {p75}", f"{p5} - {p95}", peak.basis)
    return table


def _fit(plan: Plan) -> str:
    left = duration(plan.limits.seconds) if math.isfinite(plan.limits.seconds) else "no limit"
    if plan.fits_whole:
        return f"[green]all of it fits[/green]: {left} left, the {plan.limits.binding} binds first"
    return (
        f"[yellow]the {plan.limits.binding} binds[/yellow] ({left} left): training will be fitted to it, "
        f"about {plan.planned_steps} of {plan.full_steps} steps"
    )


def _asked(plan: Plan) -> str:
    if plan.planned_rows == plan.full_rows:
        return f"{plan.full_rows:,} test rows are asked of each model"
    return (
        f"[yellow]{plan.planned_rows:,} of {plan.full_rows:,} test rows[/yellow] are asked of each model: more answers "
        "would take more than evaluate.generate_share of what is left"
    )


def _proposed(proposal: Proposal, currency: str) -> str:
    enough = "enough" if proposal.enough else "not enough"
    may = "a run does it" if proposal.allowed else f"budget.may: [{proposal.move}] lets a run do it"
    if proposal.move not in MOVES:
        may = "for the next launch"
    saves = f"{duration(proposal.seconds)}, {shown_money(proposal.money, currency)}"
    from rich.markup import escape

    return escape(f"  or {proposal.says}: saves {saves}, {enough} ({may})")


def _price(plan: Plan) -> float:
    return float(plan.limits.price_per_hour) / 3600


def _cells(plan: Plan, seconds: Forecast) -> tuple[str, str, str, str]:
    cost = Decimal(str(seconds.p50)) * plan.limits.price_per_hour / 3600
    return (
        duration(seconds.p50),
        f"{duration(seconds.p25)} - {duration(seconds.p75)}",
        f"{duration(seconds.p5)} - {duration(seconds.p95)}",
        shown_money(cost, plan.limits.currency),
    )


def _quantiles(forecast: Forecast) -> dict[str, float]:
    return dict(zip(("p5", "p25", "p50", "p75", "p95"), forecast.quantiles(), strict=True))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
