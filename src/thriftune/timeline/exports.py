"""A timeline for other programs: iCalendar (RFC 5545), CSV, Mermaid's Gantt charts, JSON."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from thriftune.artifacts import write_file_atomic
from thriftune.clock import utc
from thriftune.errors import BadInput
from thriftune.timeline.schedule import Slot
from thriftune.timeline.timeline import Timeline

LINE_OCTETS = 75  # RFC 5545, section 3.1: lines should not be longer, without the break
CSV_COLUMNS = (
    "kind",
    "name",
    "who",
    "after",
    "planned_start",
    "planned_end",
    "start_p50",
    "end_p50",
    "end_p90",
    "buffer_s",
    "buffer_left_s",
    "critical",
    "state",
    "chance_by_deadline",
)


def export(timeline: Timeline, path: Path) -> None:
    """Write a timeline to FILE.ics, FILE.csv or FILE.mmd, whole or not at all.

    Raises:
        BadInput: another ending, or the place cannot be written.
    """
    write = exporter(path)
    try:
        write_file_atomic(path, write(timeline).encode())
    except OSError as error:
        raise BadInput(
            "the timeline cannot be written",
            where=str(path),
            found=error.strerror or type(error).__name__,
            expected="a place to write a file",
            way_out="name another place",
        ) from error


def exporter(path: Path) -> Callable[[Timeline], str]:
    """What writes a file of this name.

    Raises:
        BadInput: nothing does.
    """
    found = EXPORTERS.get(path.suffix.lower())
    if found is None:
        raise BadInput(
            "a timeline is not exported in this form",
            where="--export",
            found=str(path),
            expected="a file that ends in " + ", ".join(EXPORTERS),
            way_out="thriftune timeline --export plan.ics",
        )
    return found


def to_ics(timeline: Timeline) -> str:
    """An event for each phase, its end at the median, and one for each milestone and the deadline."""
    stamp = _ics_instant(timeline.now)
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Thriftune//timeline//EN", "CALSCALE:GREGORIAN"]
    lines += [f"X-WR-CALNAME:{escaped(timeline.project)}"]
    for slot in timeline.schedule.slots:
        phase = slot.phase
        told = [f"ends {_local(slot.ends.p50, timeline)} as likely as not, {_local(p90(slot), timeline)} nine in ten"]
        told += ["on the critical path"] if slot.critical else []
        told += [f"after {', '.join(phase.after)}"] if phase.after else []
        summary = phase.name if not phase.who else f"{phase.name} ({phase.who})"
        begin, end = slot.starts.p50, max(slot.ends.p50, slot.starts.p50)
        facts = ["STATUS:CONFIRMED"] if phase.finished is not None else ["STATUS:TENTATIVE"]
        lines += _event(timeline, f"phase/{phase.name}", stamp, summary, "\n".join(told), begin, end, facts)
    for milestone in timeline.milestones:
        chance = "" if milestone.chance is None else f"{100 * milestone.chance:.0f} % by the deadline"
        instant = milestone.at.p50
        lines += _event(timeline, f"milestone/{milestone.name}", stamp, milestone.name, chance, instant, instant, [])
    if timeline.deadline_at is not None:
        chance = "" if timeline.chance is None else f"{100 * timeline.chance:.0f} % likely to be kept"
        instant = timeline.deadline_at
        lines += _event(timeline, "deadline", stamp, f"{timeline.project}: deadline", chance, instant, instant, [])
    return "".join(folded(line) for line in [*lines, "END:VCALENDAR"])


def to_csv(timeline: Timeline) -> str:
    """A row for each phase and milestone; instants in ISO 8601, UTC."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    for slot in timeline.schedule.slots:
        phase = slot.phase
        planned = (_iso(slot.planned_start), _iso(slot.planned_end))
        spread = (_iso(slot.starts.p50), _iso(slot.ends.p50), _iso(p90(slot)))
        buffers = (f"{slot.buffer:.3f}", f"{slot.buffer_left:.3f}")
        after = "; ".join(phase.after)
        writer.writerow(
            ["phase", phase.name, phase.who, after, *planned, *spread, *buffers, _yes(slot.critical), state(slot), ""]
        )
    for milestone in timeline.milestones:
        at, chance = milestone.at, "" if milestone.chance is None else f"{milestone.chance:.4f}"
        spread = (_iso(at.p50), _iso(at.p50), _iso(ninety(at.p50, at.p75, at.p95)))
        reached = "done" if milestone.reached else "to come"
        writer.writerow(["milestone", milestone.name, "", "", "", "", *spread, "", "", "", reached, chance])
    return buffer.getvalue()


def to_mermaid(timeline: Timeline) -> str:
    """A Gantt chart for Mermaid: phases by who does them, milestones, instants in the project's time zone."""
    lines = [
        "gantt",
        f"    title {_mermaid(timeline.project)}",
        "    dateFormat YYYY-MM-DDTHH:mm:ss",
        "    axisFormat %m-%d %H:%M",
    ]
    number = 0
    sections: dict[str, list[Slot]] = {}
    for slot in timeline.schedule.slots:
        sections.setdefault(slot.phase.who or "machine", []).append(slot)
    for who, slots in sections.items():
        lines.append(f"    section {_mermaid(who)}")
        for slot in slots:
            number += 1
            tags = ["crit"] if slot.critical and slot.phase.finished is None else []
            tags += {"done": ["done"], "at work": ["active"]}.get(state(slot), [])
            times = (_wall(slot.starts.p50, timeline), _wall(max(slot.ends.p50, slot.starts.p50 + 1), timeline))
            lines.append(f"    {_mermaid(slot.phase.name)} :{', '.join([*tags, f'p{number}', *times])}")
    if timeline.milestones:
        lines.append("    section milestones")
    for milestone in timeline.milestones:
        number += 1
        tags = ["milestone", *(["done"] if milestone.reached else [])]
        at = _wall(milestone.at.p50, timeline)
        lines.append(f"    {_mermaid(milestone.name)} :{', '.join([*tags, f'p{number}', at, '0d'])}")
    return "\n".join(lines) + "\n"


def to_json(found: Timeline) -> dict[str, Any]:
    """The timeline as plain JSON values; instants in seconds since the epoch."""
    return {
        "project": found.project,
        "now": found.now,
        "time_zone": found.zone,
        "deadline_at": found.deadline_at,
        "chance": found.chance,
        "cut": found.cut,
        "ends": _quantiles(found.schedule.ends.quantiles()),
        "critical_path": list(found.schedule.critical_path),
        "phases": [
            {
                "name": slot.phase.name,
                "who": slot.phase.who or "machine",
                "after": list(slot.phase.after),
                "state": state(slot),
                "duration_s": _quantiles(slot.phase.duration.quantiles()),
                "planned_s": _quantiles(slot.phase.planned.quantiles()),
                "starts": _quantiles(slot.starts.quantiles()),
                "ends": _quantiles(slot.ends.quantiles()),
                "planned_start": slot.planned_start,
                "planned_end": slot.planned_end,
                "buffer_s": slot.buffer,
                "buffer_left_s": slot.buffer_left,
                "critical": slot.critical,
                "criticality": slot.criticality,
                "from": slot.phase.note,
            }
            for slot in found.schedule.slots
        ],
        "milestones": [
            {"name": m.name, "at": _quantiles(m.at.quantiles()), "reached": m.reached, "chance": m.chance}
            for m in found.milestones
        ],
        "eaten": [{"of": bite.of, "by": bite.by, "seconds": bite.seconds} for bite in found.schedule.eaten],
    }


EXPORTERS: dict[str, Callable[[Timeline], str]] = {".ics": to_ics, ".csv": to_csv, ".mmd": to_mermaid}


def state(slot: Slot) -> str:
    """`done`, `at work` or `to come`."""
    phase = slot.phase
    return "done" if phase.finished is not None else "at work" if phase.started is not None else "to come"


def p90(slot: Slot) -> float:
    """The instant by which a phase has ended nine times in ten."""
    return ninety(slot.ends.p50, slot.ends.p75, slot.ends.p95)


def ninety(p50: float, p75: float, p95: float) -> float:
    """The 90th percentile between the 75th and the 95th, on the normal scale."""
    return p75 + (p95 - p75) * (1.2815515655 - 0.6744897502) / (1.6448536270 - 0.6744897502) if p95 > p50 else p95


def escaped(text: str) -> str:
    """A TEXT value (RFC 5545, section 3.3.11); control characters, which it cannot hold, become blanks."""
    kept = "".join(c if c in "\n\t" or (ord(c) >= 32 and ord(c) != 127) else " " for c in text)
    for raw, written in (("\\", "\\\\"), (";", "\\;"), (",", "\\,"), ("\n", "\\n")):
        kept = kept.replace(raw, written)
    return kept


def folded(line: str) -> str:
    """A content line with its break, folded at 75 octets and never inside a character (RFC 5545, section 3.1)."""
    parts, current, size = [], "", 0
    for character in line:
        octets = len(character.encode("utf-8", "replace"))
        if size + octets > LINE_OCTETS:
            parts.append(current)
            current, size = " ", 1
        current, size = current + character, size + octets
    return "\r\n".join([*parts, current]) + "\r\n"


def _event(
    timeline: Timeline,
    what: str,
    stamp: str,
    summary: str,
    description: str,
    begin: float,
    end: float,
    facts: Iterable[str],
) -> list[str]:
    """A VEVENT; its UID stays the same from export to export, so that an import renews it."""
    name = hashlib.sha256(f"{timeline.project}/{what}".encode()).hexdigest()[:32]
    lines = ["BEGIN:VEVENT", f"UID:{name}@thriftune", f"DTSTAMP:{stamp}", f"DTSTART:{_ics_instant(begin)}"]
    lines += [f"DTEND:{_ics_instant(end)}"] if round(end) > round(begin) else []
    lines += [f"SUMMARY:{escaped(summary)}"]
    lines += [f"DESCRIPTION:{escaped(description)}"] if description else []
    return [*lines, *facts, "TRANSP:TRANSPARENT", "END:VEVENT"]


def _ics_instant(instant: float) -> str:
    return datetime.fromtimestamp(round(instant), UTC).strftime("%Y%m%dT%H%M%SZ")


def _iso(instant: float) -> str:
    return utc(round(instant)).isoformat().replace("+00:00", "Z")


def _local(instant: float, timeline: Timeline) -> str:
    return f"{utc(instant).astimezone(ZoneInfo(timeline.zone)):%Y-%m-%d %H:%M %Z}"


def _wall(instant: float, timeline: Timeline) -> str:
    return f"{utc(round(instant)).astimezone(ZoneInfo(timeline.zone)):%Y-%m-%dT%H:%M:%S}"


def _mermaid(text: str) -> str:
    """Text without what Mermaid reads as its own: colons, semicolons, commas, hashes and line breaks."""
    return " ".join("".join(" " if c in ":;,#\n\r\t" or ord(c) < 32 else c for c in text).split()) or "untitled"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _quantiles(quantiles: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(("p5", "p25", "p50", "p75", "p95"), quantiles, strict=True))
