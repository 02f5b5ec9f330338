"""The report as one HTML file that asks nothing of the network: Plotly's script, the style and the data are inside."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from thriftune.errors import BadInput
from thriftune.report import benefit_said, headline, wording
from thriftune.report.figures import figures
from thriftune.report.frontier import frontier_picture
from thriftune.report.gantt import eaten_said, gantt_picture, summary
from thriftune.report.model import DataStep, ForecastScore, Report, Tokens
from thriftune.report.plotting import Figure
from thriftune.report.returns import best_baseline

TEMPLATES = files("thriftune.report") / "templates"
MANY_UNITS = 8  # kinds of work shown before the rest is summed


@dataclass(frozen=True)
class Tile:
    """A key number: its name, the number, what belongs to it, and a bar's filling where it is part of a whole."""

    name: str
    value: str
    note: str
    filled: float | None = None
    tone: str = ""


def report_path(root: Path, attempt: int) -> Path:
    """Where an attempt's page is kept, under the project's state folder."""
    return root / "reports" / f"attempt-{attempt}.html"


def write_html(report: Report, path: Path) -> Path:
    """Write the page, whole or not at all.

    Raises:
        BadInput: the place cannot be written.
    """
    page = to_html(report)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise BadInput(
            "the report cannot be written",
            where=str(path),
            found=error.strerror or type(error).__name__,
            expected="a place to write a file of about 5 MB",
            way_out="name another place with --html FILE, or free some space",
        ) from error
    return path


def to_html(report: Report) -> str:
    """The page. Text from users is escaped everywhere; a policy in the page forbids it to load anything."""
    from jinja2 import Environment, StrictUndefined

    charts = figures(report)
    scripts = (_plotly(), (TEMPLATES / "report.js").read_text(encoding="utf-8"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((TEMPLATES / "report.html.jinja").read_text(encoding="utf-8"))
    page = template.render(
        report=report,
        say=wording,
        headline=headline.headline(report),
        judged_sentence=headline.judged_sentence(report),
        target_sentence=headline.target_sentence(report),
        forgetting_figure=headline.forgetting_figure(report) if report.forgetting else "",
        search_sentence=headline.search_sentence(report.search) if report.search else "",
        return_sentence=headline.return_sentence(report),
        benefit=benefit_said.tables(report),
        tiles=tiles(report),
        charts=charts,
        spending=environment.from_string((TEMPLATES / "spending.html.jinja").read_text(encoding="utf-8")).render(
            report=report, say=wording
        ),
        gantt=gantt_picture(report.timeline).inline() if report.timeline else "",
        gantt_said=[summary(report.timeline), *eaten_said(report.timeline)] if report.timeline else [],
        compared=frontier_inline(report),
        compared_ways=compared_ways(report),
        units=units(report),
        score=forecast_score(report.forecasts),
        data_summary=data_summary(report.data_ledger),
        cut_tokens=cut_tokens(report.tokens) if report.tokens else "",
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        scripts=scripts,
        recipe=_recipe(report.environment.recipe),
        policy=_policy(scripts),
        data=_json({name: _drawn(figure) for name, figure in charts.items()}),
    )
    return page.lstrip()


def frontier_inline(report: Report) -> str:
    """The frontier of machines as SVG; empty where nothing was compared, or nothing of it has a cost."""
    found = report.compared
    picture = None if found is None else frontier_picture(found.comparison, report.project.name)
    return "" if picture is None else picture.inline()


def compared_ways(report: Report) -> list[tuple[str, str, str, str, str, str]]:
    """The ways of the picture in figures: where, market, cost, time, whether on the frontier, why it is not taken."""
    if report.compared is None:
        return []
    found = report.compared.comparison
    return [
        (
            option.name,
            option.kind,
            "not known" if option.cost is None else wording.money(Decimal(repr(option.cost.p50)), found.currency),
            "not known" if option.seconds is None else wording.duration(option.seconds.p50),
            "yes" if option.on_frontier else "no",
            found.why_not(option) or ("the one to take" if option is found.chosen else ""),
        )
        for option in found.options
    ]


def tiles(report: Report) -> list[Tile]:
    """The key numbers, in the order in which people ask for them."""
    return [
        _quality_tile(report),
        _gain_tile(report),
        _money_tile(report),
        _time_tile(report),
        _return_tile(report),
        _forecast_tile(report),
    ]


def _quality_tile(report: Report) -> Tile:
    measured = report.tuned.metrics.get(report.metric or "") if report.tuned else None
    name = f"{wording.metric_name(report.metric)}, tuned" if report.metric else "Quality"
    if measured is None:
        return Tile(name, wording.MISSING, "no look at the test split", tone="muted")
    note = "no interval"
    if measured.low is not None and measured.high is not None:
        note = f"{wording.score(measured.low)} to {wording.score(measured.high)}"
    target = report.project.target
    if target is None or target.at_least is None or target.metric not in (None, report.metric):
        return Tile(name, wording.score(measured.value), note)
    reached = measured.value >= target.at_least
    note = f"{note}; target {target.at_least:g} {'reached' if reached else 'missed'}"
    return Tile(name, wording.score(measured.value), note, tone="good" if reached else "bad")


def _gain_tile(report: Report) -> Tile:
    strongest = best_baseline(report.comparisons, report.metric)
    if strongest is None:
        return Tile("Gain over the best baseline", wording.MISSING, "nothing was compared", tone="muted")
    low, high = wording.points(100 * strongest.low), wording.points(100 * strongest.high)
    note = f"points over {wording.predictor_name(strongest.baseline)} ({low} to {high}): {strongest.outcome}"
    tone = {"better": "good", "not better": "bad"}.get(strongest.outcome, "warn")
    return Tile("Gain over the best baseline", wording.points(100 * strongest.difference), note, tone=tone)


def _money_tile(report: Report) -> Tile:
    cost = report.cost
    if cost.budget is None:
        return Tile("Spent", wording.money(cost.spent, cost.currency), "the project states no budget")
    filled = _share(cost.spent, cost.budget)
    note = f"of {wording.money(cost.budget, cost.currency)}"
    note = note if filled is None else f"{note}, {wording.share(filled)}"
    over = cost.spent > cost.budget
    return Tile("Spent", wording.money(cost.spent, cost.currency), note, filled, "bad" if over else "")


def _time_tile(report: Report) -> Tile:
    time = report.time
    if time.deadline_s is None:
        return Tile("Time used", wording.duration(time.used_s), "the project states no deadline")
    filled = time.used_s / time.deadline_s if time.deadline_s > 0 else None
    note = f"of {wording.duration(time.deadline_s)} to the deadline"
    note = f"{note}, {wording.duration(time.waited_s)} waiting" if time.waited_s else note
    over = time.used_s > time.deadline_s
    return Tile("Time used", wording.duration(time.used_s), note, filled, "bad" if over else "")


def _return_tile(report: Report) -> Tile:
    found = report.returns
    per_point = f"{wording.money(found.cost_per_point, report.cost.currency)} a point"
    if found.status == "no gain":
        return Tile("Return", "none", "no gain over the best baseline", tone="bad")
    if found.ratio is None:
        note = "no worth stated in the project file" if found.status == "no worth stated" else found.status
        return Tile("Cost of a point", per_point if found.cost_per_point is not None else wording.MISSING, note)
    low, high = wording.times(found.ratio_low), wording.times(found.ratio_high)
    if found.status == "not proven":
        return Tile("Return", "not proven", f"{low} to {high} of its cost: the interval holds zero", tone="warn")
    return Tile("Return", wording.times(found.ratio), f"of its cost ({low} to {high}); {per_point}", tone="good")


def _forecast_tile(report: Report) -> Tile:
    inside, scored = forecast_score(report.forecasts)
    if not scored:
        return Tile("Forecasts that held", wording.MISSING, "nothing was foretold and measured", tone="muted")
    total = next((f for f in report.forecasts if (f.phase, f.quantity) == ("total", "time_s")), None)
    note = "inside their 90 % interval"
    if total is not None and total.signed_error is not None:
        note = f"{note}; total time {wording.signed_share(total.signed_error)}"
    return Tile("Forecasts that held", f"{inside} of {scored}", note)


def forecast_score(scores: tuple[ForecastScore, ...]) -> tuple[int, int]:
    """How many forecasts held at 90 %, of how many whose outcome was measured."""
    held = [score.inside_90 for score in scores if score.inside_90 is not None]
    return sum(held), len(held)


def units(report: Report) -> list[tuple[str, str, float, float]]:
    """Where the time went: (kind of work, its phase, seconds, share of all), the largest first."""
    ranked = sorted(report.time.by_unit.items(), key=lambda item: -item[1])
    whole = math.fsum(report.time.by_unit.values()) or 1.0
    shown = [(unit, phase, seconds, seconds / whole) for (phase, unit), seconds in ranked[:MANY_UNITS]]
    rest = math.fsum(seconds for _, seconds in ranked[MANY_UNITS:])
    return [*shown, (f"{len(ranked) - MANY_UNITS} other kinds", "", rest, rest / whole)] if rest else shown


def data_summary(steps: tuple[DataStep, ...]) -> str:
    """The data ledger in one sentence."""
    if not steps:
        return "No step on the data was recorded."
    dropped = sum(sum(step.dropped.values()) for step in steps)
    reasons = len({reason for step in steps for reason, rows in step.dropped.items() if rows})
    uneven = [step.step for step in steps if not step.balances]
    if uneven:
        return f"The ledger does not balance at: {', '.join(uneven)}. This is a defect; please report it."
    if not dropped:
        return f"Every step balances; no row was dropped, {wording.count(steps[-1].kept)} were kept."
    named = "one named reason" if reasons == 1 else f"{reasons} named reasons"
    return (
        f"Every step balances: {wording.count(dropped)} rows were dropped for {named}, "
        f"{wording.count(steps[-1].kept)} were kept, none was lost in silence."
    )


def _recipe(recipe: Any) -> str:
    """The recipe as people read it; empty where none was recorded."""
    if recipe is None:
        return ""
    return wording.plain(recipe if isinstance(recipe, str) else json.dumps(recipe, indent=2, ensure_ascii=False))


def cut_tokens(tokens: Tokens) -> str:
    """What the model does not get to read, in one sentence."""
    if not tokens.cut_tokens:
        return "No token was cut: the model reads every row to its end."
    rows = f"{wording.count(tokens.cut_rows)} row{'' if tokens.cut_rows == 1 else 's'}"
    said = f"{wording.count(tokens.cut_tokens)} tokens were cut from {rows} longer than the model reads."
    if tokens.cut_words:
        said += f" With them went {wording.count(tokens.cut_words)} words, which count as untagged (O) in every figure."
    return said


def _share(part: Decimal, whole: Decimal) -> float | None:
    return float(part / whole) if whole else None


def _drawn(figure: Figure) -> dict[str, Any]:
    return {"data": figure.data, "layout": {**figure.layout, "height": figure.height}}


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _policy(scripts: tuple[str, ...]) -> str:
    """A content security policy that runs these scripts and nothing else, and reaches nothing outside the file."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _json(value: Any) -> str:
    """JSON that can stand inside a script element: no `<` that could end it, no number that JSON does not know."""
    text = json.dumps(_finite(value), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
