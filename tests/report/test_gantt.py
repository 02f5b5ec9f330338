"""The Gantt chart: a picture that is well-formed and says what it shows, and characters as wide as the terminal."""

from xml.etree import ElementTree

import pytest

from thriftune.report.gantt import chance_said, eaten_said, gantt_picture, gantt_text, span_of
from timeline_for_tests import NAME, timeline

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_has_a_bar_for_each_phase_and_a_diamond_for_each_milestone() -> None:
    shown = timeline()
    for text in (gantt_picture(shown).standalone(), gantt_picture(shown).inline()):
        root = ElementTree.fromstring(text)
        assert len(list(root.iter(f"{SVG}polygon"))) == len(shown.milestones)
        titles = [element.text or "" for element in root.iter(f"{SVG}title")]
        assert all(any(t.startswith(s.phase.name) for t in titles) for s in shown.schedule.slots if not s.phase.who)
        assert any(NAME.split("\n")[0] in title for title in titles)
        assert "critical path is" in root.attrib["aria-label"]
        for rect in root.iter(f"{SVG}rect"):
            assert float(rect.attrib["width"]) > 0


@pytest.mark.parametrize("width", [60, 100, 200])
def test_in_characters_it_is_as_wide_as_the_terminal_and_in_order(width: int) -> None:
    shown = timeline()
    lines = [line for line, _ in gantt_text(shown, width)]
    assert max(len(line) for line in lines) <= width
    assert len(lines) == len(shown.schedule.slots) + 2
    begins = [line.index("█") for line in lines if "█" in line]
    assert begins == sorted(begins)
    assert lines[-2].count("◆") >= 2


def test_what_it_says_is_what_the_schedule_holds() -> None:
    shown = timeline()
    first, last = span_of(shown)
    assert first <= shown.schedule.slots[0].starts.p50 < last
    assert "likely to keep its deadline" in chance_said(shown)
    assert eaten_said(shown) == []
