"""A search's charts: the best so far against money, and quality against what serving costs."""

from __future__ import annotations

from decimal import Decimal

from thriftune.report.model import Report, Searched
from thriftune.report.plotting import Figure, curve, label, layout_of
from thriftune.report.wording import count, expected_score, money, plain
from thriftune.report.wording import score as score_text

NANO = Decimal("0.000000001")  # as the ledger counts


def search_curve(report: Report) -> Figure | None:
    """The best that a search expected by then, against the money that it had taken; seconds where there is no price."""
    if report.search is None or not report.search.best:
        return None
    seconds, scores = zip(*report.search.best, strict=True)
    price, currency = report.cost.price_per_hour, report.cost.currency
    spent = money_of(report.search, price)
    x = [float(amount) for amount in spent] if spent else list(seconds)
    unit = f"spent on looks ({currency})" if spent else "seconds of search"
    trace = curve(x, list(scores), "best so far", "@accent", 2.5, marks=True)
    trace["hovertemplate"] = "%{x:.4g}: %{y:.4g}<extra>best so far</extra>"
    layout = layout_of(xaxis={"title": {"text": label(unit)}}, yaxis={"title": {"text": "expected score of the best"}})
    paid = f" and {money(spent[-1], currency)}" if spent else ""
    return Figure(
        "search",
        f"The best expected score goes from {scores[0]:.3f} to {scores[-1]:.3f} in {len(scores)} looks{paid}.",
        [trace],
        layout,
        260,
        ("seconds", "spent", "expected score of the best"),
        [
            (f"{at:.1f}", money(spent[place], currency) if spent else "", score_text(score))
            for place, (at, score) in enumerate(report.search.best)
        ],
    )


def money_of(search: Searched, price_per_hour: Decimal | None) -> list[Decimal]:
    """What the looks up to each had cost; empty where the machine has no price."""
    if not price_per_hour:
        return []
    return [(Decimal(repr(seconds)) * price_per_hour / 3600).quantize(NANO) for seconds, _ in search.best]


def search_frontier(report: Report) -> Figure | None:
    """Every configuration's expected score against what a request costs; None where all cost the same."""
    search = report.search
    tried = [] if search is None else [each for each in search.configurations if each.serving]
    if search is None or len({each.serving for each in tried}) < 2:
        return None
    edge = sorted((each for each in tried if each.on_frontier), key=lambda each: each.serving or 0.0)
    line = curve([each.serving or 0.0 for each in edge], [each.expected for each in edge], "frontier", "@muted", 1.5)
    names = [", ".join(f"{name} {plain(str(value))}" for name, value in each.values.items()) for each in tried]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [each.serving for each in tried],
        "y": [each.expected for each in tried],
        "error_y": {
            "type": "data",
            "array": [each.deviation or 0.0 for each in tried],
            "color": "@muted",
            "thickness": 1,
        },
        "marker": {
            "size": [14 if each.values == search.winner else 9 for each in tried],
            "color": ["@accent" if each.values == search.winner else "@second" for each in tried],
        },
        "text": [label(name) for name in names],
        "hovertemplate": "%{text}: %{y:.4g}<extra></extra>",
        "showlegend": False,
    }
    layout = layout_of(
        xaxis={"title": {"text": "parameters that a request runs through"}, "type": "log"},
        yaxis={"title": {"text": "expected score"}},
    )
    rows = [
        (name, count(round(each.serving or 0)), expected_score(each), "yes" if each.on_frontier else "no")
        for name, each in zip(names, tried, strict=True)
    ]
    alt = f"Expected score against the cost of serving of {len(tried)} configurations, {len(edge)} on the frontier."
    return Figure(
        "search-frontier", alt, [line, dots], layout, 300, ("configuration", "parameters", "expected", "frontier"), rows
    )
