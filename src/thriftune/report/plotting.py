"""What the charts are made of: a figure, its layout, its lines and curves, as plain Plotly values.

A colour is written `@name`; the page's script replaces it with the theme's, so that light, dark and print share one
figure. Text that comes from users is escaped: Plotly reads some markup in labels.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thriftune.report.model import TrainingStep

MAX_POINTS = 600  # of a curve: more than a screen has columns


@dataclass(frozen=True)
class Figure:
    """A chart: `name` is its element's id, `alt` says in words what it shows, the table has its numbers."""

    name: str
    alt: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int
    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def thinned(steps: Sequence[TrainingStep]) -> list[TrainingStep]:
    """At most `MAX_POINTS` steps, evenly taken, the last always among them."""
    if len(steps) <= MAX_POINTS:
        return list(steps)
    stride = (len(steps) - 1) / (MAX_POINTS - 1)
    return [steps[round(place * stride)] for place in range(MAX_POINTS)]


def running_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value and those before it, the older the lighter, started without bias (as in Adam)."""
    keep = 1 - 1 / max(5.0, len(values) / 25)
    means: list[float] = []
    total = weight = 0.0
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        means.append(total / weight)
    return means


def label(text: str) -> str:
    """Text for a Plotly label, in which markup of a user's is shown and never read."""
    return html.escape(text, quote=False)


def layout_of(**more: Any) -> dict[str, Any]:
    """The layout that all charts share, with `more` on top; axes are merged, titles dressed."""
    axis = {
        "automargin": True,
        "gridcolor": "@line",
        "zeroline": False,
        "linecolor": "@line",
        "fixedrange": True,
        "tickfont": {"color": "@muted"},
        "ticks": "outside",
        "ticklen": 6,
        "tickcolor": "rgba(0,0,0,0)",
    }
    layout: dict[str, Any] = {
        "margin": {"l": 8, "r": 14, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit", "size": 13, "color": "@ink"},
        "hoverlabel": {"bgcolor": "@card", "bordercolor": "@line", "font": {"color": "@ink"}},
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": "@ink"}},
        "xaxis": axis,
        "yaxis": axis,
    }
    for key, value in more.items():
        layout[key] = {**axis, **value} if key in ("xaxis", "yaxis") else value
    for key in ("xaxis", "yaxis"):
        if "title" in layout[key]:
            layout[key]["title"] = {
                **layout[key]["title"],
                "font": {"size": 12, "color": "@muted"},
                "standoff": 8,
            }
    return layout


def height_of(rows: int, each: int = 44) -> int:
    """Pixels for so many rows of marks."""
    return 62 + each * max(rows, 2)


def vertical(x: float, colour: str, dash: str) -> dict[str, Any]:
    """A line across the chart at `x`."""
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "layer": "below",
        "line": {"color": colour, "width": 1.5, "dash": dash},
    }


def note_at(x: float, text: str, colour: str) -> dict[str, Any]:
    """A few words above the chart at `x`."""
    return {
        "x": x,
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "text": label(text),
        "font": {"color": colour, "size": 11},
    }


def curve(
    x: Sequence[float], y: Sequence[float | None], name: str, colour: str, width: float, *, marks: bool = False
) -> dict[str, Any]:
    """A line through (x, y); where y is None there is a gap. `marks` shows each point."""
    return {
        "type": "scatter",
        "mode": "lines+markers" if marks else "lines",
        "x": list(x),
        "y": list(y),
        "name": label(name),
        "line": {"color": colour, "width": width},
        "marker": {"size": 8, "color": colour},
        "hovertemplate": f"step %{{x}}: %{{y:.4g}}<extra>{label(name)}</extra>",
    }
