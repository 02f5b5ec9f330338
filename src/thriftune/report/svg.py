"""Pictures as SVG, in the report's colours: light and dark, in the page or in a file of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from thriftune.errors import BadInput

LIGHT = {
    "card": "#ffffff", "ink": "#1a2027", "muted": "#5a6570", "line": "#dedbd2", "faint": "#eceae3",
    "accent": "#0f6b66", "accent-soft": "#7fbcb6", "band": "#c4dedb", "second": "#b4572a",
    "good": "#18794e", "warn": "#94580a", "bad": "#b3261e",
}  # fmt: skip
DARK = {
    "card": "#181e24", "ink": "#e8ebee", "muted": "#a0abb6", "line": "#313a43", "faint": "#262e36",
    "accent": "#5cc4bb", "accent-soft": "#33807a", "band": "#24504d", "second": "#f0a070",
    "good": "#68cf98", "warn": "#ecb45e", "bad": "#ff8f85",
}  # fmt: skip
FONT = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif'


@dataclass
class Picture:
    """An SVG under construction; colours are named as in the report's style sheet.

    Args:
        width: in pixels.
        height: in pixels.
        title: what it shows, in words, for those who do not see it.
    """

    width: float
    height: float
    title: str
    marks: list[str] = field(default_factory=list)

    def rect(
        self, x: float, y: float, width: float, height: float, colour: str, said: str = "", round: int = 3
    ) -> None:
        """A filled rectangle; `said` is told when it is pointed at."""
        size = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" rx="{round}"'
        self._add("rect", f'{size} style="fill:var(--{colour})"', said)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.5, dash: str = "") -> None:
        """A line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f";stroke-dasharray:{dash}" if dash else ""
        style = f"fill:none;stroke:var(--{colour});stroke-width:{width}{dashed}"
        self._add("polyline", f'points="{path}" style="{style}"')

    def dot(self, x: float, y: float, radius: float, colour: str, said: str = "") -> None:
        """A disc."""
        ring = "stroke:var(--card);stroke-width:1.5"
        self._add("circle", f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}" style="fill:var(--{colour});{ring}"', said)

    def diamond(self, x: float, y: float, size: float, colour: str, said: str = "") -> None:
        """A milestone's mark."""
        points = f"{x:.1f},{y - size:.1f} {x + size:.1f},{y:.1f} {x:.1f},{y + size:.1f} {x - size:.1f},{y:.1f}"
        self._add("polygon", f'points="{points}" style="fill:var(--{colour})"', said)

    def text(self, x: float, y: float, text: str, colour: str = "ink", anchor: str = "start", size: int = 12) -> None:
        """A line of text, its baseline at y."""
        style = f"fill:var(--{colour});font-size:{size}px"
        self.marks.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{style}">{escape(text)}</text>')

    def _add(self, tag: str, attributes: str, said: str = "") -> None:
        inside = f"<title>{escape(said)}</title>" if said else ""
        self.marks.append(f"<{tag} {attributes}>{inside}</{tag}>" if inside else f"<{tag} {attributes}/>")

    def inline(self) -> str:
        """For a page that has the colours."""
        return self._svg("", "width:100%;height:auto")

    def standalone(self) -> str:
        """For a file of its own, which brings them."""
        light, dark = (";".join(f"--{name}:{colour}" for name, colour in theme.items()) for theme in (LIGHT, DARK))
        style = f"<style>svg{{{light}}}@media (prefers-color-scheme: dark){{svg{{{dark}}}}}</style>"
        ground = f'<rect width="{self.width:.0f}" height="{self.height:.0f}" style="fill:var(--card)"/>'
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + self._svg(style + ground, "") + "\n"

    def _svg(self, first: str, style: str) -> str:
        size = f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" height="{self.height:.0f}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(self.title)}"'
        font = f"font-family:{escape(FONT)}"
        styled = f' style="{font};{style}">' if style else f' style="{font}">'
        return head + styled + first + f"<title>{escape(self.title)}</title>" + "".join(self.marks) + "</svg>"


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture, whole or not at all.

    Raises:
        BadInput: the place cannot be written, or is not named as an SVG file.
    """
    from thriftune.artifacts import write_file_atomic

    if path.suffix.lower() != ".svg":
        raise BadInput("pictures are written as SVG", str(path), path.suffix or "no ending", ".svg", "name FILE.svg")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file_atomic(path, picture.standalone().encode())
    except OSError as error:
        raise BadInput(
            "the picture cannot be written",
            where=str(path),
            found=error.strerror or type(error).__name__,
            expected="a place to write a file",
            way_out="name another place",
        ) from error


def ticks(low: float, high: float, steps: Iterable[float]) -> list[float]:
    """Round values from low to high: multiples of the smallest step that gives at most eight."""
    for step in steps:
        if (high - low) / step <= 8:
            first = -(-low // step) * step
            count = int((high - first) // step) + 1
            return [first + step * n for n in range(max(count, 0))]
    return [low, high]
