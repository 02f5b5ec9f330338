"""The report in a terminal: the verdict first, then what it rests on. Plain text where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from thriftune.report import benefit_said, spending_text
from thriftune.report.figures import forecast_name
from thriftune.report.gantt import chance_said, eaten_said, gantt_text
from thriftune.report.headline import (
    Headline,
    budget_sentence,
    forgetting_figure,
    headline,
    judged_sentence,
    return_sentence,
    search_sentence,
    target_sentence,
)
from thriftune.report.html import cut_tokens, data_summary, forecast_score
from thriftune.report.model import DataStep, ForecastScore, Report, Scores
from thriftune.report.wording import (
    MISSING,
    chosen,
    count,
    duration,
    estimate,
    expected_score,
    interval_of_points,
    metric_name,
    money,
    plain,
    predictor_name,
    quantity,
    signed_share,
    spaced,
)

STYLES = {"good": "green", "warn": "yellow", "bad": "red"}
OUTCOME_STYLES = {"better": "green", "not better": "red", "cannot tell": "yellow"}
MANY_TRIED = 10  # configurations of a search shown in the terminal; the page has them all
GANTT_WIDTH = 76
MANY_DECISIONS = 12  # shown in the terminal; the page has them all


def show(report: Report, console: Console, page: Path | None = None, serve: str | None = None) -> None:
    """Print the report.

    Args:
        report: what to show.
        console: where; a console without a terminal gets plain text of its width.
        page: the HTML report, where it was written.
        serve: the command that serves the tuned model.
    """
    for part in parts(report, console.is_terminal):
        console.print(part)
    for name, value in (("Report", page), ("Serve it", serve)):
        if value is not None:
            console.print(Text.assemble((f"{name}: ", "bold"), plain(str(value))), soft_wrap=True)


def parts(report: Report, rich: bool = True) -> list[RenderableType]:
    """The report's parts in order, those without content left out."""
    sections: list[tuple[str, RenderableType | None]] = [
        ("Breaches", _breaches(report)),
        ("Warnings", _warnings(report)),
        ("Search", _search(report, rich)),
        ("Quality", _quality(report, rich)),
        ("By part of the data", _parts(report, rich)),
        ("Forgetting", _forgetting(report, rich)),
        ("Money and time", _costs(report, rich)),
        *spending_text.sections(report, partial(_table, rich)),
        ("Return", _return(report, rich)),
        ("Forecast and actual", _forecasts(report, rich)),
        ("In time", _timeline(report)),
        ("Data", _data(report, rich)),
        ("Decisions", _decisions(report, rich)),
    ]
    shown: list[RenderableType] = [_verdict(report, headline(report), rich)]
    for title, content in sections:
        if content is not None:
            style = "bold red" if title == "Breaches" else "bold"
            shown.append(Group(Text(title, style=style), Padding(content, (0, 0, 1, 2), expand=False)))
    return shown


def _verdict(report: Report, said: Headline, rich: bool) -> RenderableType:
    reasons = report.verdict.reasons if report.verdict else ()
    lines = [Text(said.title, style=f"bold {STYLES[said.tone]}"), *(_text(each) for each in [said.sentence] if each)]
    lines += [_text(f"• {reason}") for reason in reasons]
    name = f"{plain(report.project.name)}, attempt {report.attempt}"
    if not rich:
        return Group(Text(name), *lines, Text())
    return Panel(Group(*lines), title=Text(name), title_align="left", border_style=STYLES[said.tone], padding=(1, 2))


def _breaches(report: Report) -> RenderableType | None:
    lines = [
        f"{breach.what} took {duration(breach.actual_s)} where {duration(breach.upper_s)} was reserved: {breach.cause}"
        for breach in report.breaches
    ]
    if report.cost.ledger_difference:
        gap = money(report.cost.ledger_difference, report.cost.currency)
        lines.append(f"the ledger and the record of charges differ by {gap}: a defect, please report it")
    return Group(*(_text(line, "red") for line in lines)) if lines else None


def _warnings(report: Report) -> RenderableType | None:
    lines = [f"{warned.where}: {warned.what}" for warned in report.warnings]
    return Group(*(_text(line, "yellow") for line in lines)) if lines else None


def _quality(report: Report, rich: bool) -> RenderableType | None:
    scores = [each for each in (report.tuned, *report.baselines) if each is not None]
    if not scores:
        return _text(MISSING)
    table = _table(rich, "", metric_name(report.metric), "tuned against it", "outcome")
    for each in scores:
        table.add_row(*_quality_row(report, each))
    said = [_text(sentence) for sentence in (judged_sentence(report), target_sentence(report)) if sentence]
    return Group(table, *said) if said else table


def _quality_row(report: Report, scores: Scores) -> tuple[Text, ...]:
    compared = next(
        (c for c in report.comparisons if (c.baseline, c.metric) == (scores.predictor, report.metric)), None
    )
    split = "" if scores.split == "test" else f" ({scores.split})"
    value = estimate(scores.metrics.get(report.metric or ""))
    row = [_text(predictor_name(scores.predictor) + split), _text(value)]
    if compared is None:
        return (*row, Text(), Text())
    gap = interval_of_points(100 * compared.difference, 100 * compared.low, 100 * compared.high)
    return (*row, _text(gap), _text(compared.outcome, OUTCOME_STYLES.get(compared.outcome, "")))


def _parts(report: Report, rich: bool) -> RenderableType | None:
    """Each part's metric, of the tuned model and of what it is held against."""
    everyone = [each for each in (report.tuned, *report.baselines) if each is not None]
    if report.tuned is None or not report.tuned.by_part:
        return None
    table = _table(rich, f"part ({metric_name(report.metric)})", *(predictor_name(each.predictor) for each in everyone))
    for part in report.tuned.by_part:
        outcomes = {c.baseline: c.outcome for c in report.part_comparisons if c.part == part}
        table.add_row(_text(part), *(_part_figure(report, each, part, outcomes) for each in everyone))
    return Group(table, _text("In colour, what the tuned model is on that part's rows: better, not better, unclear."))


def _part_figure(report: Report, scores: Scores, part: str, outcomes: Mapping[str, str]) -> Text:
    outcome = outcomes.get(scores.predictor, "")
    said = estimate(scores.by_part.get(part, {}).get(report.metric or ""))
    return _text(f"{said} {f'({outcome})' if outcome else ''}".rstrip(), OUTCOME_STYLES.get(outcome, ""))


def _search(report: Report, rich: bool) -> RenderableType | None:
    """What a search tried, the most promising first."""
    search = report.search
    if search is None:
        return None
    said = _text(search_sentence(search))
    if not search.configurations:
        return said
    columns = ("expected", "looks", "seconds", "to its end", "to serve")
    table = _table(rich, *search.winner, *columns, numbers=len(search.winner) + 3)
    for tried in search.configurations[:MANY_TRIED]:
        style = "bold" if tried.values == search.winner else ""
        figures = [expected_score(tried), count(tried.looks), f"{tried.seconds:.0f}", "yes" if tried.ended else "no"]
        edge = " (frontier)" if tried.on_frontier else ""
        figures.append(f"{count(round(tried.serving))}{edge}" if tried.serving else "")
        table.add_row(
            *(_text(each, style) for each in [*(plain(str(value)) for value in tried.values.values()), *figures])
        )
    return Group(table, said)


def _forgetting(report: Report, rich: bool) -> RenderableType | None:
    """What the model made of each part of the data after it had learned each."""
    if not report.forgetting:
        return None
    parts = list(report.forgetting[0].parts)
    name = forgetting_figure(report)
    table = _table(rich, f"{metric_name(name)} on", *parts, numbers=len(parts))
    for row in report.forgetting:
        after = f"after {row.after}" if row.after else "before"
        table.add_row(_text(after), *(_text(f"{row.parts[part][name]:.3f}") for part in parts))
    return table


def _costs(report: Report, rich: bool) -> RenderableType:
    currency = report.cost.currency
    moved = any(phase.moved_in or phase.moved_out for phase in report.cost.phases)
    headers = ["phase", "spent", "allowance", "machine time", *(("moved in", "moved out") if moved else ())]
    table = _table(rich, *headers, numbers=5)
    for phase in report.cost.phases:
        over = phase.allowance is not None and phase.spent > phase.allowance
        row = [
            _text(phase.phase),
            _text(money(phase.spent, currency), "red" if over else ""),
            _text(money(phase.allowance, currency)),
            _text(duration(phase.seconds)),
        ]
        if moved:
            row += [_text(money(phase.moved_in, currency)), _text(money(phase.moved_out, currency))]
        table.add_row(*row)
    sentence = _text(f"{budget_sentence(report)}.")
    return Group(sentence, table) if report.cost.phases else sentence


def _forecasts(report: Report, rich: bool) -> RenderableType | None:
    if not report.forecasts:
        return None
    currency = report.cost.currency
    table = _table(rich, "", "median", "90 % interval", "actual", "error", "inside")
    for score in report.forecasts:
        low, high = quantity(score.quantity, score.p5, currency), quantity(score.quantity, score.p95, currency)
        table.add_row(
            _text(forecast_name(score)),
            _text(quantity(score.quantity, score.p50, currency)),
            _text(f"{low} to {high}"),
            _text(quantity(score.quantity, score.actual, currency)),
            *((_text(signed_share(score.signed_error)), _inside(score)) if score.actual is not None else ()),
        )
    inside, scored = forecast_score(report.forecasts)
    said = f"{inside} of {scored} inside their 90 % interval." if scored else "What happened was not measured yet."
    return Group(table, _text(said))


def _return(report: Report, rich: bool) -> RenderableType:
    """The return in a sentence, and what follows from it."""
    parts: list[RenderableType] = [_text(return_sentence(report))]
    for shown in benefit_said.tables(report):
        table = _table(rich, *shown.columns)
        for row in shown.rows:
            table.add_row(*map(_text, row))
        parts += [Text(), _text(shown.title, "dim"), table, *([_text(shown.note)] if shown.note else [])]
    return Group(*parts)


def _timeline(report: Report) -> RenderableType | None:
    """The Gantt chart, and whose buffers were eaten."""
    found = report.timeline
    if found is None:
        return None
    lines = [Text(line, style=style, no_wrap=True) for line, style in gantt_text(found, GANTT_WIDTH)]
    return Group(*lines, *(_text(said) for said in [*eaten_said(found), chance_said(found)]))


def _inside(score: ForecastScore) -> Text:
    """The narrowest stated interval that held what happened."""
    said = ("50 %", "green") if score.inside_50 else ("90 %", "") if score.inside_90 else ("outside", "red")
    return _text(*said)


def _data(report: Report, rich: bool) -> RenderableType | None:
    if not report.data_ledger:
        return None
    table = _table(rich, "step", "in", "kept", "changed", "dropped", numbers=3)
    for step in report.data_ledger:
        table.add_row(
            _text(step.step),
            _text(count(step.rows_in)),
            _text(count(step.kept), "" if step.balances else "red"),
            _text(count(step.changed) if step.changed else ""),
            _text(_dropped(step)),
        )
    said = data_summary(report.data_ledger)
    if report.tokens is not None:
        said += f" {cut_tokens(report.tokens)}"
    return Group(table, _text(said))


def _dropped(step: DataStep) -> str:
    return ", ".join(f"{count(rows)} {reason}" for reason, rows in step.dropped.items() if rows)


def _decisions(report: Report, rich: bool) -> RenderableType | None:
    if not report.decisions:
        return None
    table = _table(rich, "what", "chosen", "because")
    for decision in report.decisions[:MANY_DECISIONS]:
        step = f" at step {decision.at_step}" if decision.at_step else ""
        what, value = spaced(decision.what) + step, chosen(decision.what, decision.chosen)
        table.add_row(_text(what), _text(value), _text(decision.because))
    rest = len(report.decisions) - MANY_DECISIONS
    return table if rest <= 0 else Group(table, _text(f"and {rest} more, which the page has"))


def _table(rich: bool, *headers: str, numbers: int = 0) -> Table:
    """A table; the `numbers` columns after the first are aligned to the right."""
    table = Table(box=SIMPLE_HEAD if rich else None, pad_edge=False, show_edge=False, header_style="dim")
    for place, header in enumerate(headers):
        right = 1 <= place <= numbers
        table.add_column(plain(header), justify="right" if right else "left", overflow="fold")
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(plain(text), style=style)
