"""What a timeline writes for other programs is read back by readers of those forms."""

import csv
import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.errors import BadInput
from thriftune.timeline.exports import EXPORTERS, escaped, export, folded, to_csv, to_ics, to_json, to_mermaid
from timeline_for_tests import NAME, START, timeline

INSTANT = "%Y%m%dT%H%M%SZ"


# iCalendar: a reader by RFC 5545


def unfolded(text: str) -> list[str]:
    """Content lines; every line ends in CRLF, has at most 75 octets, and goes on where the next begins with a blank."""
    assert text.endswith("\r\n")
    raw = text.split("\r\n")[:-1]
    assert not any("\n" in line or "\r" in line for line in raw)
    assert max(len(line.encode()) for line in raw) <= 75
    lines: list[str] = []
    for line in raw:
        if line.startswith(" "):
            lines[-1] += line[1:]
        else:
            lines.append(line)
    return lines


def text_value(value: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] in "nN" else match[1], value)


def components(text: str) -> list[dict[str, str]]:
    """The events of a calendar, their properties by name."""
    found: list[dict[str, str]] = []
    stack: list[str] = []
    for line in unfolded(text):
        name, _, value = line.partition(":")
        assert re.fullmatch(r"[A-Z-]+", name), line
        if name == "BEGIN":
            stack.append(value)
            found += [{}] if value == "VEVENT" else []
        elif name == "END":
            assert stack.pop() == value
        elif stack[-1] == "VEVENT":
            assert name not in found[-1]
            found[-1][name] = value
    assert stack == []
    return found


def test_every_phase_milestone_and_the_deadline_is_an_event_of_the_calendar() -> None:
    shown = timeline()
    events = components(to_ics(shown))
    assert len(events) == len(shown.schedule.slots) + len(shown.milestones) + 1
    assert len({event["UID"] for event in events}) == len(events)
    for event in events:
        assert {"UID", "DTSTAMP", "DTSTART", "SUMMARY"} <= set(event)
        begins = datetime.strptime(event["DTSTART"], INSTANT)
        if "DTEND" in event:
            assert datetime.strptime(event["DTEND"], INSTANT) > begins
    task = next(event for event in events if "Bo" in event["SUMMARY"])
    assert text_value(task["SUMMARY"]) == f"{NAME} (Bo, Ltd)"
    slot = shown.schedule.slot(NAME)
    ends = datetime.strptime(task["DTEND"], INSTANT).replace(tzinfo=UTC).timestamp()
    assert ends == pytest.approx(slot.ends.p50, abs=1)
    assert unfolded(to_ics(shown))[:3] == ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Thriftune//timeline//EN"]


def test_an_export_renews_the_events_of_the_one_before() -> None:
    first, second = (components(to_ics(timeline(zone))) for zone in ("UTC", "Asia/Kolkata"))
    assert [event["UID"] for event in first] == [event["UID"] for event in second]


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_no_text_breaks_a_content_line(text: str) -> None:
    line = f"SUMMARY:{escaped(text)}"
    (back,) = unfolded(folded(line))
    assert back == line
    plain = "".join(c if c in "\n\t" or (ord(c) >= 32 and ord(c) != 127) else " " for c in text)
    assert text_value(back.partition(":")[2]) == plain


def test_a_library_for_calendars_reads_it_where_there_is_one() -> None:
    icalendar = pytest.importorskip("icalendar")
    read: Any = icalendar.Calendar.from_ical(to_ics(timeline()))
    events = read.walk("VEVENT")
    assert any(str(event["SUMMARY"]).startswith(NAME) for event in events)
    assert all(event["DTSTART"].dt.tzinfo is not None for event in events)
    assert read.errors == []


# CSV


def test_the_table_has_a_row_for_each_with_instants_that_are_read_back() -> None:
    shown = timeline()
    rows = list(csv.DictReader(io.StringIO(to_csv(shown), newline="")))
    assert [row["name"] for row in rows if row["kind"] == "phase"] == [s.phase.name for s in shown.schedule.slots]
    by_name = {row["name"]: row for row in rows}
    assert by_name["data"]["state"] == "done"
    assert by_name[NAME]["who"] == "Bo, Ltd"
    for slot in shown.schedule.slots:
        ends = datetime.fromisoformat(by_name[slot.phase.name]["end_p50"]).timestamp()
        assert ends == pytest.approx(slot.ends.p50, abs=1)
        assert by_name[slot.phase.name]["end_p90"] >= by_name[slot.phase.name]["end_p50"]
    chances = [float(row["chance_by_deadline"]) for row in rows if row["chance_by_deadline"]]
    assert chances
    assert all(0 <= chance <= 1 for chance in chances)


# Mermaid: a reader of its Gantt grammar


def gantt(text: str) -> tuple[dict[str, list[str]], list[str]]:
    """Sections with their tasks, and the task lines."""
    lines = text.splitlines()
    assert lines[0] == "gantt"
    sections: dict[str, list[str]] = {}
    tasks = []
    for line in lines[1:]:
        word, _, rest = line.strip().partition(" ")
        if word in ("title", "dateFormat", "axisFormat"):
            assert rest
        elif word == "section":
            current = sections.setdefault(rest, [])
        else:
            match = re.fullmatch(r"    ([^:;,#\n]+) :((?:crit|done|active|milestone), )*(p\d+), (\S+), (\S+)", line)
            assert match, line
            current.append(match[1])
            tasks.append(line)
    return sections, tasks


def test_the_chart_has_a_section_for_each_who_works_and_local_times() -> None:
    shown = timeline()
    sections, tasks = gantt(to_mermaid(shown))
    assert sections["machine"][:2] == ["data", "baselines"]
    assert len(sections["Bo Ltd"]) == 1
    assert len(sections["milestones"]) == len(shown.milestones)
    assert len({re.search(r"p\d+", task)[0] for task in tasks}) == len(tasks)  # type: ignore[index]
    wall = re.search(r"(\S+), \S+$", tasks[0])[1]  # type: ignore[index]
    assert datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo("Europe/Amsterdam")).timestamp() == START


# Files


@pytest.mark.parametrize("ending", sorted(EXPORTERS))
def test_a_file_is_written_whole_by_its_ending(tmp_path: Path, ending: str) -> None:
    export(timeline(), tmp_path / "deep" / f"plan{ending}")
    assert (tmp_path / "deep" / f"plan{ending}").read_bytes() == EXPORTERS[ending](timeline()).encode()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.ics, \.csv, \.mmd"):
        export(timeline(), tmp_path / "plan.xlsx")


def test_the_json_form_is_plain() -> None:
    import json

    told = json.loads(json.dumps(to_json(timeline()), allow_nan=False))
    assert told["phases"][0]["state"] == "done"
    assert told["critical_path"]
    assert 0 <= told["chance"] <= 1
