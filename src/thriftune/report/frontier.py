"""Cost against time, an option a dot: the frontier as a picture, and the same in characters."""

from __future__ import annotations

import math
from decimal import Decimal

from thriftune.plan.compare import Comparison, Option
from thriftune.report.svg import Picture
from thriftune.report.wording import duration, money

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860.0, 480.0, 84.0, 200.0, 44.0, 52.0
MANTISSAS = (1.0, 2.0, 5.0)
SECONDS_TICKS = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86_400.0, 7 * 86_400.0, 30 * 86_400.0)
ROWS, COLUMNS = 16, 72  # in the terminal


def shown(comparison: Comparison) -> list[Option]:
    """The options that have both a cost and a time."""
    return [o for o in comparison.options if o.cost is not None and o.seconds is not None and o.cost.p50 > 0]


def frontier_picture(comparison: Comparison, name: str) -> Picture | None:
    """Every option with its 90 % intervals on logarithmic scales, the frontier as a line; None with nothing to show."""
    options = shown(comparison)
    if not options:
        return None
    x = _Scale([q for o in options if o.seconds for q in (o.seconds.p5, o.seconds.p95)], LEFT, WIDTH - RIGHT)
    y = _Scale([q for o in options if o.cost for q in (o.cost.p5, o.cost.p95)], HEIGHT - BOTTOM, TOP)
    chosen = comparison.chosen
    said = f"the cheapest that meets both is {chosen.name}" if chosen else "none meets budget and deadline"
    picture = Picture(WIDTH, HEIGHT, f"{name}: cost against time of {len(options)} ways; {said}")
    picture.text(LEFT, 24, f"{name}: cost against time, with 90 % intervals", size=15)
    _axes(picture, x, y, comparison.currency)
    _limits(picture, x, y, comparison)
    edge = sorted((o for o in options if o.on_frontier), key=lambda o: o.seconds.p50 if o.seconds else 0.0)
    picture.line([_place(o, x, y) for o in edge], "accent-soft", 2)
    for option in options:
        _draw(picture, option, x, y, comparison)
    labelled = [o for o in edge if o is not chosen] + ([chosen] if chosen in options and chosen else [])
    taken: list[float] = []
    for option in sorted(labelled, key=lambda o: _place(o, x, y)[1]):
        at_x, at_y = _place(option, x, y)
        row = at_y
        while any(abs(row - other) < 14 for other in taken):
            row += 14
        taken.append(row)
        picture.line([(at_x + 6, at_y), (WIDTH - RIGHT + 8, row)], "line", 1)
        colour = "good" if option is chosen else "muted"
        picture.text(WIDTH - RIGHT + 12, row + 4, _short(option), colour, size=11)
    return picture


def frontier_text(comparison: Comparison) -> str:
    """The same in characters: `@` the chosen one, `*` the frontier, `·` the rest; time to the right, cost upwards."""
    options = shown(comparison)
    if not options:
        return ""
    x = _Scale([o.seconds.p50 for o in options if o.seconds], 0, COLUMNS - 1)
    y = _Scale([o.cost.p50 for o in options if o.cost], ROWS - 1, 0)
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    for option in sorted(options, key=lambda o: (o is comparison.chosen, o.on_frontier)):
        column, row = (round(place) for place in _place(option, x, y))
        grid[row][column] = "@" if option is comparison.chosen else "*" if option.on_frontier else "·"
    top, bottom = (money(Decimal(repr(value)), comparison.currency) for value in (y.high, y.low))
    margin = max(len(top), len(bottom))
    lines = [
        f"{(top if row == 0 else bottom if row == ROWS - 1 else ''):>{margin}} │{''.join(cells).rstrip()}"
        for row, cells in enumerate(grid)
    ]
    ends = duration(x.low), duration(x.high)
    lines.append(" " * margin + " └" + "─" * COLUMNS)
    lines.append(" " * (margin + 2) + ends[0] + ends[1].rjust(COLUMNS - len(ends[0])))
    return "\n".join(lines)


class _Scale:
    """A logarithmic axis from the least to the most of some values, onto pixels."""

    def __init__(self, values: list[float], start: float, end: float) -> None:
        positive = [value for value in values if value > 0]
        self.low, self.high = min(positive), max(positive)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        if self.high <= self.low:
            return (self._start + self._end) / 2
        share = math.log(min(max(value, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return self._start + share * (self._end - self._start)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def _place(option: Option, x: _Scale, y: _Scale) -> tuple[float, float]:
    if option.seconds is None or option.cost is None:
        raise ValueError("an option without a forecast has no place")
    return x(option.seconds.p50), y(option.cost.p50)


def _axes(picture: Picture, x: _Scale, y: _Scale, currency: str) -> None:
    for tick in SECONDS_TICKS:
        if x.holds(tick):
            picture.line([(x(tick), TOP), (x(tick), HEIGHT - BOTTOM)], "line", 1)
            picture.text(x(tick), HEIGHT - BOTTOM + 18, duration(tick), "muted", "middle", 11)
    decades = range(math.floor(math.log10(y.low)), math.ceil(math.log10(y.high)) + 1)
    for tick in (mantissa * 10.0**decade for decade in decades for mantissa in MANTISSAS):
        if y.holds(tick):
            picture.line([(LEFT, y(tick)), (WIDTH - RIGHT, y(tick))], "line", 1)
            picture.text(LEFT - 8, y(tick) + 4, money(Decimal(f"{tick:.3g}"), currency), "muted", "end", 11)
    picture.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "time to the report", "muted", "middle")


def _limits(picture: Picture, x: _Scale, y: _Scale, comparison: Comparison) -> None:
    if x.holds(comparison.seconds_left):
        at = x(comparison.seconds_left)
        picture.line([(at, TOP), (at, HEIGHT - BOTTOM)], "warn", 1.5, "6 4")
        picture.text(at, TOP - 5, "deadline", "warn", "middle", 11)
    if comparison.money_left is not None and y.holds(float(comparison.money_left)):
        at = y(float(comparison.money_left))
        picture.line([(LEFT, at), (WIDTH - RIGHT, at)], "warn", 1.5, "6 4")
        picture.text(WIDTH - RIGHT - 4, at - 5, "budget left", "warn", "end", 11)


def _draw(picture: Picture, option: Option, x: _Scale, y: _Scale, comparison: Comparison) -> None:
    at_x, at_y = _place(option, x, y)
    chosen = option is comparison.chosen
    colour = "good" if chosen else "accent" if option.on_frontier else "muted"
    if option.seconds and option.cost and (chosen or option.on_frontier):
        picture.line([(x(option.seconds.p5), at_y), (x(option.seconds.p95), at_y)], "band", 2)
        picture.line([(at_x, y(option.cost.p5)), (at_x, y(option.cost.p95))], "band", 2)
    why = comparison.why_not(option) or "the cheapest that meets budget and deadline"
    cost = "" if option.cost is None else money(Decimal(repr(option.cost.p50)), comparison.currency)
    time = "" if option.seconds is None else duration(option.seconds.p50)
    picture.dot(at_x, at_y, 7 if chosen else 4.5, colour, f"{_short(option)}: {cost}, {time}; {why}")


def _short(option: Option) -> str:
    kind = "" if option.kind in ("local", "managed") else f", {option.kind}"
    return f"{option.accelerators or option.name}{kind}" + (
        f" ({option.name.partition(':')[0]})" if option.accelerators else ""
    )
