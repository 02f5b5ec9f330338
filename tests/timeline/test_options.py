"""The timeline's part of the project file: what it takes, and what it refuses with what it expected."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from thriftune.timeline.options import TimelineOptions, parse_buffer, parse_spans

WHOLE: dict[str, Any] = {
    "buffer": "20%",
    "starts": "2026-12-01T09:00+01:00",
    "people": {
        "days": ["mon", "wed"],
        "hours": ["09:00-12:30", "13:30-17:00"],
        "time_zone": "Europe/Amsterdam",
        "holidays": ["2026-12-25"],
    },
    "tasks": [
        {"name": "label", "who": "ana", "hours": "12", "most_hours": "20", "before": ["data"]},
        {"name": "review", "who": "bo", "hours": 2, "after": "evaluation", "before": "rollout 10 %"},
    ],
    "rollout": {"each": "1d"},
}


def test_a_whole_section_is_read() -> None:
    options = TimelineOptions.model_validate(WHOLE)
    assert options.buffer == 0.2
    assert options.starts == datetime(2026, 12, 1, 8, tzinfo=UTC)
    assert list(map(str, options.people.hours)) == WHOLE["people"]["hours"]
    assert options.people.holidays == (date(2026, 12, 25),)
    assert options.tasks[1].after == ("evaluation",)
    assert options.rollout_phases == ("rollout 10 %", "rollout 25 %", "rollout 50 %", "rollout 100 %")
    assert TimelineOptions().buffer == 0.15
    assert parse_buffer("0.12") == 0.12


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"buffer": "5%"}, "from 10% to 20%"),
        ({"buffer": "25%"}, "from 10% to 20%"),
        ({"people": {"days": ["monday"]}}, "mon, tue"),
        ({"people": {"days": []}}, "mon, tue"),
        ({"people": {"hours": "17:00-09:00"}}, "from 00:00 to 24:00"),
        ({"people": {"hours": "9-5"}}, "09:00-17:00"),
        ({"people": {"hours": ["09:00-12:00", "11:00-17:00"]}}, "each span after the one before"),
        ({"people": {"time_zone": "Mars/Olympus"}}, "a time zone"),
        ({"people": {"time_zone": "../etc"}}, "a time zone"),
        ({"people": {"holidays": ["Christmas"]}}, "2026-12-25"),
        ({"tasks": [{"name": "a", "who": "b", "hours": 0}]}, "greater than 0"),
        ({"tasks": [{"name": "a", "who": "b", "hours": 5, "most_hours": 4}]}, "most_hours of at least"),
        ({"tasks": [{"name": "a", "who": "b", "hours": 5, "after": "training."}]}, "evaluation"),
        ({"tasks": [{"name": "data", "who": "b", "hours": 5}]}, "name of its own"),
        ({"tasks": [{"name": "a", "who": "b", "hours": 5}] * 2}, "name of its own"),
        ({"tasks": [{"name": "a", "who": "b", "hours": 5, "done": "soon"}]}, "an instant such as"),
        ({"tasks": [{"name": "a", "who": "b", "hours": 5, "after": "evaluation", "before": "data"}]}, "found"),
        ({"tasks": [{"name": "a", "who": "b", "hours": 5, "after": "a"}]}, "a > a"),
        ({"rollout": {"each": "1d", "shares": [50, 10]}}, "rising shares"),
        ({"rollout": {"each": "1d", "shares": [10, 90]}}, "the last 100"),
        ({"rollout": {}}, "Field required"),
        ({"starts": "tomorrow"}, "an instant such as"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_expected(change: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TimelineOptions.model_validate(WHOLE | change)
    assert expected in str(caught.value)


@given(st.text(max_size=20))
def test_no_text_gives_anything_but_a_value_or_a_message(text: str) -> None:
    for parse in (parse_spans, parse_buffer):
        try:
            assert parse(text)
        except ValueError as error:
            assert "such as" in str(error) or "from" in str(error)
