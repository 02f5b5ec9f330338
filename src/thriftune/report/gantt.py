"""A timeline as a Gantt chart: in a picture for the page, and in characters for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

from thriftune.clock import utc
from thriftune.report.svg import Picture, ticks
from thriftune.report.wording import duration, share
from thriftune.timeline.exports import ninety, p90, state
from thriftune.timeline.schedule import Slot
from thriftune.timeline.timeline import Timeline

WIDTH, LEFT, RIGHT, TOP, ROW = 1060.0, 190.0, 24.0, 56.0, 30.0
LABEL_WIDTH = 95.0  # of a milestone's name
LEAST_BAR = 2.0
TICK_SECONDS = (
    1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86_400, 2 * 86_400, 7 * 86_400, 14 * 86_400, 30 * 86_400,
    91 * 86_400, 365 * 86_400,
)  # fmt: skip
BARS = {"done": "muted", "at work": "accent", "to come": "accent-soft"}


def span_of(timeline: Timeline) -> tuple[float, float]:
    """From the first beginning to the last end at the 90th percentile, buffers included."""
    slots = timeline.schedule.slots
    first = min([*(slot.starts.p50 for slot in slots), *(slot.planned_start for slot in slots)])
    last = max([*(p90(slot) for slot in slots), *(slot.ends.p50 + slot.buffer_left for slot in slots)])
    if timeline.deadline_at is not None and timeline.deadline_at <= first + 3 * (last - first):
        last = max(last, timeline.deadline_at)
    return first, max(last, first + 1.0)


def gantt_picture(timeline: Timeline) -> Picture:
    """Bars to the median end, whiskers to the 90th percentile, buffers behind them, milestones, today, the deadline."""
    slots = timeline.schedule.slots
    first, last = span_of(timeline)
    height = TOP + ROW * (len(slots) + (1.4 if timeline.milestones else 0)) + 40

    def x(instant: float) -> float:
        return LEFT + (instant - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    picture = Picture(WIDTH, height, summary(timeline))
    for tick in ticks(first + _offset(first, timeline), last + _offset(first, timeline), TICK_SECONDS):
        at = tick - _offset(first, timeline)
        picture.line([(x(at), TOP - 8), (x(at), height - 34)], "line", 1)
        picture.text(x(at), height - 18, instant_said(at, last - first, timeline), "muted", "middle", 11)
    for number, slot in enumerate(slots):
        _bar(picture, slot, TOP + ROW * number, x)
    _milestones(picture, timeline, TOP + ROW * len(slots) + 12, x)
    if first <= timeline.now <= last:
        picture.line([(x(timeline.now), TOP - 8), (x(timeline.now), height - 34)], "second", 1.2, "2 3")
        picture.text(x(timeline.now), TOP - 12, "now", "second", "middle", 11)
    if timeline.deadline_at is not None and first <= timeline.deadline_at <= last:
        at = x(timeline.deadline_at)
        picture.line([(at, TOP - 8), (at, height - 34)], "bad", 1.5, "6 4")
        picture.text(at, TOP - 24, "deadline", "bad", "end" if at > WIDTH - 60 else "middle", 11)
    picture.text(LEFT, 20, f"{timeline.project}: {chance_said(timeline)}", size=14)
    return picture


def gantt_text(timeline: Timeline, width: int) -> list[tuple[str, str]]:
    """The same in characters, a line each with its colour: `█` to the median end, `▒` to the 90th percentile, `░` the
    buffer that is left, `◆` milestones, `│` now, `┃` the deadline.

    Args:
        width: of the terminal.
    """
    slots = timeline.schedule.slots
    first, last = span_of(timeline)
    names = [slot.phase.name + (f" ({slot.phase.who})" if slot.phase.who else "") for slot in slots]
    margin = min(32, max(len(name) for name in [*names, "milestones"]))
    columns = max(20, width - margin - 3)

    def column(instant: float) -> int:
        return max(0, min(columns - 1, round((instant - first) / (last - first) * (columns - 1))))

    lines = []
    for slot, name in zip(slots, names, strict=True):
        cells = _marked(timeline, first, last, columns, column)
        for mark, begin, end in (
            ("░", slot.ends.p50, slot.ends.p50 + slot.buffer_left),
            ("▒", slot.ends.p50, p90(slot)),
            ("█", slot.starts.p50, slot.ends.p50),
        ):
            if end > begin or mark == "█":
                for place in range(column(begin), column(end) + 1):
                    cells[place] = mark
        style = {"done": "dim", "at work": "bold cyan"}.get(state(slot), "red" if slot.critical else "cyan")
        lines.append((f"{name[:margin]:<{margin}} {''.join(cells).rstrip()}", style))
    cells = _marked(timeline, first, last, columns, column)
    for milestone in timeline.milestones:
        cells[column(milestone.at.p50)] = "◆"
    lines.append((f"{'milestones':<{margin}} {''.join(cells).rstrip()}", "magenta"))
    left, right = (instant_said(at, last - first, timeline) for at in (first, last))
    lines.append((" " * (margin + 1) + left + right.rjust(columns - len(left)), "dim"))
    return lines


def chance_said(timeline: Timeline) -> str:
    """The median and 90th percentile of the end, and the chance of the deadline."""
    ends = timeline.schedule.ends
    span = max(ends.p95 - timeline.now, 1.0)
    last = instant_said(ends.p50, span, timeline)
    if all(slot.phase.finished is not None for slot in timeline.schedule.slots):
        return f"done {last}"
    late = instant_said(_p90(timeline), span, timeline)
    said = f"ends {last} as likely as not, by {late} nine times in ten"
    if timeline.chance is None:
        return said
    if all(slot.phase.finished is not None for slot in timeline.schedule.slots if slot.phase.driver):
        return f"{said}; the run {'kept' if timeline.chance == 1 else 'missed'} its deadline"
    kept = f"the run is {share(timeline.chance)} likely to keep its deadline"
    return f"{said}; {kept}" + (" with training cut to it" if timeline.cut else "")


def summary(timeline: Timeline) -> str:
    """The picture in words."""
    path = ", ".join(timeline.schedule.critical_path)
    return f"Gantt chart of {timeline.project}: {chance_said(timeline)}; the critical path is {path}."


def eaten_said(timeline: Timeline) -> list[str]:
    """Whose buffers were eaten, and by whom, a sentence each."""
    said = []
    for bite in timeline.schedule.eaten:
        whole = timeline.schedule.slot(bite.of).buffer
        part = f"{duration(bite.seconds)} of the {duration(whole)} kept free after it"
        owner = "it took longer than planned" if bite.by == bite.of else f"{bite.by} took longer than planned"
        said.append(f"{bite.of}: {part} are used, because {owner}")
    return said


def instant_said(instant: float, span: float, timeline: Timeline) -> str:
    """An instant in the project's time zone, as finely as a span of so many seconds needs."""
    at = utc(instant).astimezone(ZoneInfo(timeline.zone))
    if span < 600:
        return f"{at:%H:%M:%S}"
    return f"{at:%m-%d %H:%M}" if span < 20 * 86_400 else f"{at:%Y-%m-%d}"


def _p90(timeline: Timeline) -> float:
    ends = timeline.schedule.ends
    return ninety(ends.p50, ends.p75, ends.p95)


def _offset(instant: float, timeline: Timeline) -> float:
    """Seconds of the time zone from UTC, so that ticks fall on round local times."""
    offset = utc(instant).astimezone(ZoneInfo(timeline.zone)).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()


def _bar(picture: Picture, slot: Slot, top: float, x: Callable[[float], float]) -> None:
    phase, middle = slot.phase, top + ROW / 2
    name = phase.name if not phase.who else f"{phase.name} ({phase.who})"
    picture.text(LEFT - 12, middle + 4, name if len(name) <= 28 else name[:27] + "…", "ink", "end")
    planned = f"planned {duration(phase.planned.p50)}"
    left = f"{duration(slot.buffer_left)} of {duration(slot.buffer)} kept free are left"
    said = f"{name}: {state(slot)}, {planned}, {left}" + (", on the critical path" if slot.critical else "")
    begin, end = x(slot.starts.p50), x(slot.ends.p50)
    picture.rect(end, middle - 5, x(slot.ends.p50 + slot.buffer_left) - end, 10, "faint", said, 0)
    colour = "second" if slot.critical and phase.finished is None else BARS[state(slot)]
    picture.rect(begin, middle - 8, max(end - begin, LEAST_BAR), 16, colour, said)
    if phase.finished is None and p90(slot) > slot.ends.p50:
        picture.line([(end, middle), (x(p90(slot)), middle)], "muted", 2)
        picture.line([(x(p90(slot)), middle - 5), (x(p90(slot)), middle + 5)], "muted", 2)
    if phase.finished is not None and slot.planned_end > slot.planned_start:
        picture.line([(x(slot.planned_start), middle + 11), (x(slot.planned_end), middle + 11)], "line", 3)


def _milestones(picture: Picture, timeline: Timeline, row: float, x: Callable[[float], float]) -> None:
    """A diamond each; the names of those that stand together on one label."""
    together: list[tuple[float, list[str]]] = []
    for milestone in sorted(timeline.milestones, key=lambda one: one.at.p50):
        at = x(milestone.at.p50)
        colour = "muted" if milestone.reached else "second"
        picture.diamond(at, row, 6, colour, f"{milestone.name}: {_local(milestone.at.p50, timeline)}")
        if together and at - together[-1][0] < LABEL_WIDTH * len(together[-1][1]):
            together[-1][1].append(milestone.name)
        else:
            together.append((at, [milestone.name]))
    for at, names in together:
        anchor = "end" if at > WIDTH - LABEL_WIDTH * len(names) else "start"
        picture.text(at, row + 20, ", ".join(names), "muted", anchor, 10)


def _local(instant: float, timeline: Timeline) -> str:
    return f"{utc(instant).astimezone(ZoneInfo(timeline.zone)):%Y-%m-%d %H:%M:%S}"


def _marked(timeline: Timeline, first: float, last: float, columns: int, column: Callable[[float], int]) -> list[str]:
    """A line of blanks with the instants that cross all lines."""
    cells = [" "] * columns
    for instant, mark in ((timeline.now, "│"), (timeline.deadline_at, "┃")):
        if instant is not None and first <= instant <= last:
            cells[column(instant)] = mark
    return cells
