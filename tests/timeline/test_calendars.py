"""Working time: added and subtracted it never lands outside working hours, grows with what is added, and heeds DST."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from thriftune.errors import BadInput
from thriftune.timeline.calendars import WorkingTime
from thriftune.timeline.options import DAYS, Span, WorkingHours

HOUR = 3600.0


def test_a_countrys_and_a_regions_public_holidays_are_free() -> None:
    epiphany = date(2026, 1, 6)  # free in Bavaria, a day of work in Berlin
    assert not WorkingTime(WorkingHours(country="DE-BY")).spans_of(epiphany)
    assert WorkingTime(WorkingHours(country="DE-BE")).spans_of(epiphany)
    kings_day = date(2026, 4, 27)
    stated = WorkingHours(country="NL", holidays=(date(2026, 4, 28),))
    assert not WorkingTime(stated).spans_of(kings_day)
    assert not WorkingTime(stated).spans_of(date(2026, 4, 28))
    assert WorkingTime(WorkingHours()).spans_of(kings_day)
    began = datetime(2026, 4, 24, 16, tzinfo=UTC).timestamp()  # a Friday, an hour before its end
    ended = WorkingTime(stated).after(np.asarray([began]), np.asarray([2 * HOUR]))[0]
    assert datetime.fromtimestamp(ended, UTC) == datetime(2026, 4, 29, 10, tzinfo=UTC)


@pytest.mark.parametrize("country", ["Holland", "nl", "XX", "DE-ZZ"])
def test_a_country_that_is_not_known_is_refused(country: str) -> None:
    with pytest.raises(ValueError, match="ISO code"):
        WorkingHours(country=country)


ZONES = ["UTC", "Europe/Amsterdam", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns"]


@st.composite
def working_hours(draw: st.DrawFn) -> WorkingHours:
    minutes = sorted(draw(st.lists(st.integers(0, 96), min_size=2, max_size=6, unique=True)))
    minutes = minutes[: len(minutes) // 2 * 2]
    spans = tuple(Span(15 * start, 15 * end) for start, end in zip(minutes[::2], minutes[1::2], strict=True))
    days = draw(st.lists(st.sampled_from(DAYS), min_size=1, max_size=7, unique=True))
    holidays = draw(st.lists(st.dates(date(2026, 1, 1), date(2027, 12, 31)), max_size=5))
    return WorkingHours(days=tuple(days), hours=spans, time_zone=draw(st.sampled_from(ZONES)), holidays=tuple(holidays))


instants = st.floats(datetime(2026, 2, 1, tzinfo=UTC).timestamp(), datetime(2027, 2, 1, tzinfo=UTC).timestamp())
amounts = st.floats(1.0, 200 * HOUR)


def at(*when: int, zone: str = "UTC") -> float:
    return datetime(*when, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[arg-type]


def after(working: WorkingTime, start: float, seconds: float) -> float:
    return float(working.after(np.asarray([start]), np.asarray([seconds]))[0])


def before(working: WorkingTime, end: float, seconds: float) -> float:
    return float(working.before(np.asarray([end]), np.asarray([seconds]))[0])


@given(working_hours(), instants, amounts)
def test_what_is_added_ends_in_working_hours_and_is_there_between(
    hours: WorkingHours, start: float, amount: float
) -> None:
    working = WorkingTime(hours)
    end = after(working, start, amount)
    assert end >= start
    assert working.is_working(round(end, 3)) or working.is_working(end)
    assert working.between(start, end) == pytest.approx(amount, abs=1e-3)


@given(working_hours(), instants, amounts)
def test_what_is_subtracted_begins_in_working_hours_and_is_there_between(
    hours: WorkingHours, end: float, amount: float
) -> None:
    working = WorkingTime(hours)
    start = before(working, end, amount)
    assert start <= end
    assert working.is_working(round(start, 3)) or working.is_working(start)
    assert working.between(start, end) == pytest.approx(amount, abs=1e-3)


@given(working_hours(), instants, amounts, amounts, st.floats(0, 10 * 24 * HOUR))
def test_more_work_and_a_later_start_never_end_earlier(
    hours: WorkingHours, start: float, amount: float, more: float, later: float
) -> None:
    working = WorkingTime(hours)
    end = after(working, start, amount)
    assert after(working, start, amount + more) >= end - 1e-3
    assert after(working, start + later, amount) >= end - 1e-3
    assert before(working, start, amount + more) <= before(working, start, amount) + 1e-3
    two_steps = after(working, end, more)
    assert two_steps == pytest.approx(after(working, start, amount + more), abs=1e-2)


@given(working_hours(), instants)
def test_no_work_begins_at_the_next_working_instant_and_ends_at_the_last(hours: WorkingHours, start: float) -> None:
    working = WorkingTime(hours)
    begin, end = after(working, start, 0.0), before(working, start, 0.0)
    assert end <= start <= begin
    assert working.is_working(begin)
    assert working.is_working(end)
    assert working.between(start, begin) == pytest.approx(0.0, abs=1e-6)


@given(working_hours(), st.lists(instants, min_size=1, max_size=20), amounts)
def test_many_at_once_are_what_each_is_alone(hours: WorkingHours, starts: list[float], amount: float) -> None:
    working = WorkingTime(hours)
    together = working.after(np.asarray(starts), np.full(len(starts), amount))
    assert together == pytest.approx([after(WorkingTime(hours), start, amount) for start in starts], abs=1e-3)


@given(instants)
def test_every_day_of_a_year_has_as_many_hours_as_the_clocks_show(instant: float) -> None:
    working = WorkingTime(WorkingHours(days=DAYS, hours=(Span(0, 1440),), time_zone="Europe/Amsterdam"))
    assert working.between(instant, instant + 30 * 86_400) == pytest.approx(30 * 86_400, abs=1e-3)


def test_nine_to_five_through_a_weekend_and_a_holiday() -> None:
    working = WorkingTime(WorkingHours(holidays=(date(2026, 12, 25),)))
    thursday = at(2026, 12, 24, 16)
    assert after(working, thursday, HOUR) == at(2026, 12, 24, 17)
    assert after(working, thursday, 2 * HOUR) == at(2026, 12, 28, 10)  # Friday is a holiday, then a weekend
    assert after(working, at(2026, 12, 25, 12), 0.0) == at(2026, 12, 28, 9)
    assert before(working, at(2026, 12, 28, 10), 2 * HOUR) == thursday


def test_a_break_at_noon_is_no_working_time() -> None:
    working = WorkingTime(WorkingHours(hours=["09:00-12:30", "13:30-17:00"]))
    assert after(working, at(2026, 11, 25, 12), HOUR) == at(2026, 11, 25, 14)
    assert working.between(at(2026, 11, 25, 0), at(2026, 11, 26, 0)) == 7 * HOUR
    assert not working.is_working(at(2026, 11, 25, 13))


def test_the_night_on_which_clocks_go_forward_is_an_hour_shorter_and_backward_an_hour_longer() -> None:
    night = WorkingTime(WorkingHours(days=["sun"], hours="01:00-05:00", time_zone="Europe/Amsterdam"))
    spring, autumn = at(2026, 3, 29, zone="Europe/Amsterdam"), at(2026, 10, 25, zone="Europe/Amsterdam")
    assert night.between(spring, spring + 12 * HOUR) == 3 * HOUR
    assert night.between(autumn, autumn + 12 * HOUR) == 5 * HOUR
    other = at(2026, 5, 3, zone="Europe/Amsterdam")
    assert night.between(other, other + 12 * HOUR) == 4 * HOUR
    assert after(night, spring, 2 * HOUR) == at(2026, 3, 29, 4, zone="Europe/Amsterdam")


def test_hours_that_the_clock_skips_are_no_working_hours() -> None:
    gone = WorkingTime(WorkingHours(days=["sun"], hours="02:00-03:00", time_zone="Europe/Amsterdam"))
    assert gone.spans_of(date(2026, 3, 29)) == []
    assert after(gone, at(2026, 3, 28), HOUR) == at(2026, 4, 5, 3, zone="Europe/Amsterdam")


def test_a_span_that_begins_or_ends_in_the_skipped_hour_does_so_at_the_skip() -> None:
    change = at(2026, 3, 29, 3, zone="Europe/Amsterdam")
    for hours, begins, ends in (("01:00-02:30", change - HOUR, change), ("02:30-04:00", change, change + HOUR)):
        night = WorkingTime(WorkingHours(days=["sun"], hours=hours, time_zone="Europe/Amsterdam"))
        assert night.spans_of(date(2026, 3, 29)) == [(begins, ends)]


def test_a_team_that_never_works_is_refused() -> None:
    never = WorkingTime(WorkingHours(days=["sun"], hours="02:00-03:00", time_zone="Europe/Amsterdam"))
    with pytest.raises(BadInput, match="too little working time"):
        after(never, at(2026, 1, 1), 1e9)


@given(working_hours(), instants)
def test_working_hours_lie_where_they_are_stated(hours: WorkingHours, instant: float) -> None:
    local = datetime.fromtimestamp(instant, ZoneInfo(hours.time_zone))
    assume(local.fold == 0)
    minute = 60 * local.hour + local.minute
    stated = any(span.start <= minute < span.end for span in hours.hours)
    stated &= DAYS[local.weekday()] in hours.days and local.date() not in hours.holidays
    if stated:
        assert WorkingTime(hours).is_working(instant)


def test_forty_years_of_a_quarter_of_an_hour_a_week_are_there_before_it_is_too_little() -> None:
    working = WorkingTime(WorkingHours(days=("mon",), hours=(Span(0, 15),), time_zone="UTC", holidays=()))
    assert after(working, at(2026, 2, 1), 400 * HOUR) > at(2056, 1, 1)
    with pytest.raises(BadInput, match="40 years"):
        after(working, at(2026, 2, 1), 600 * HOUR)
