"""Phases in time: critical paths, chances against formulas, working hours, buffers and who ate them."""

import math
from datetime import UTC, datetime
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.budget.forecast import Forecast
from thriftune.errors import BadInput
from thriftune.timeline.calendars import WorkingTime
from thriftune.timeline.options import WorkingHours
from thriftune.timeline.schedule import Phase, Schedule, in_order, schedule

NOW = datetime(2026, 11, 25, 9, tzinfo=UTC).timestamp()  # a Wednesday
HOUR = 3600.0


def phase(name: str, hours: float | Forecast, *after: str, **known: object) -> Phase:
    duration = hours if isinstance(hours, Forecast) else Forecast.exact(HOUR * hours)
    facts = {"duration": duration, "planned": duration, "after": after}
    return Phase(name, **{**facts, **known})  # type: ignore[arg-type]


def laid(*phases: Phase, buffer: float = 0.15, now: float = NOW) -> Schedule:
    return schedule(phases, now, buffer, seed=3)


# The critical path


def test_of_two_ways_the_longer_is_critical() -> None:
    found = laid(phase("a", 1), phase("b", 5, "a"), phase("c", 2, "a"), phase("d", 1, "b", "c"))
    assert found.critical_path == ("a", "b", "d")
    assert found.ends.p50 == NOW + 7 * HOUR
    assert found.slot("c").criticality == 0.0
    assert found.slot("b").criticality == 1.0


def test_a_network_of_eight_has_the_path_that_is_found_by_hand() -> None:
    durations = {"A": 3, "B": 2, "C": 4, "D": 1, "E": 5, "F": 3, "G": 2, "H": 3}
    after = {"C": ("A",), "D": ("B",), "E": ("B",), "F": ("C", "D"), "G": ("E",), "H": ("F", "G")}
    found = laid(*(phase(name, hours, *after.get(name, ())) for name, hours in durations.items()))
    assert found.ends.p50 == NOW + 13 * HOUR
    assert found.critical_path == ("A", "C", "F", "H")


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=8), st.data())
def test_the_end_is_the_longest_way_through_the_network(hours: list[float], data: st.DataObject) -> None:
    phases, longest = [], {}
    for number, length in enumerate(hours):
        after = data.draw(st.sets(st.sampled_from(range(number)), max_size=3)) if number else set()
        phases.append(phase(f"p{number}", length, *(f"p{other}" for other in sorted(after))))
        longest[number] = length + max((longest[other] for other in after), default=0.0)
    found = schedule(list(reversed(phases)), NOW, 0.15, size=2)
    assert found.ends.p50 == pytest.approx(NOW + HOUR * max(longest.values()), abs=1e-3)
    on_path = math.fsum(hours[int(name[1:])] for name in found.critical_path)
    assert on_path == pytest.approx(max(longest.values()), abs=1e-6)


def test_what_waits_for_itself_or_for_nobody_is_refused() -> None:
    with pytest.raises(BadInput, match="wait for each other"):
        in_order([phase("a", 1, "b"), phase("b", 1, "a")])
    with pytest.raises(BadInput, match="which is not there"):
        in_order([phase("a", 1, "nobody")])


def test_with_equal_chances_each_of_two_ways_is_critical_in_half_of_the_draws() -> None:
    each = Forecast.lognormal(HOUR, 0.5, "prior")
    found = laid(phase("a", each), phase("b", each), phase("end", 1, "a", "b"))
    assert found.slot("a").criticality == pytest.approx(0.5, abs=0.02)
    assert found.slot("a").criticality + found.slot("b").criticality == pytest.approx(1.0)


# Chances


def test_the_chance_of_one_phase_is_that_of_its_forecast() -> None:
    forecast = Forecast.lognormal(10 * HOUR, 0.5, "probe")
    found = laid(phase("a", forecast))
    sigma = math.log(1.5) / NormalDist().inv_cdf(0.95)
    for share in (0.7, 0.9, 1.0, 1.3, 1.6):
        expected = NormalDist().cdf(math.log(share) / sigma)
        assert found.chance("a", NOW + 10 * HOUR * share) == pytest.approx(expected, abs=0.015)
    assert found.slot("a").ends.p95 == pytest.approx(NOW + 15 * HOUR, rel=1e-6, abs=0.3 * HOUR)


def test_the_chance_of_two_in_parallel_is_the_product_and_of_two_on_one_machine_that_of_one() -> None:
    forecast, by = Forecast.lognormal(HOUR, 0.5, "probe"), NOW + 1.2 * HOUR
    apart = laid(phase("a", forecast), phase("b", forecast), phase("end", 0, "a", "b"))
    alone = apart.chance("a", by)
    assert apart.chance("end", by) == pytest.approx(alone**2, abs=0.02)
    together = laid(phase("a", forecast, driver="m"), phase("b", forecast, driver="m"), phase("end", 0, "a", "b"))
    assert together.chance("end", by) == pytest.approx(together.chance("a", by), abs=1e-9)


def test_on_one_machine_quantiles_add_and_apart_variances_do() -> None:
    narrow = Forecast.of((0.9, 0.96, 1.0, 1.04, 1.1), "probe").scaled(HOUR)
    chain = [phase("a", narrow), phase("b", narrow, "a"), phase("c", narrow, "b"), phase("d", narrow, "c")]
    apart = laid(*chain)
    together = laid(*(phase(p.name, narrow, *p.after, driver="m") for p in chain))
    width = apart.ends.p95 - apart.ends.p5
    assert together.ends.p95 - together.ends.p5 == pytest.approx(4 * 0.2 * HOUR, rel=0.05)
    assert width == pytest.approx(math.sqrt(4) * 0.2 * HOUR, rel=0.1)


def test_a_deadline_that_counts_from_the_first_phase_moves_with_it() -> None:
    wait = Forecast.lognormal(10 * HOUR, 1.0, "prior")
    found = laid(phase("label", wait), phase("run", Forecast.lognormal(HOUR, 0.3, "probe"), "label"))
    assert found.chance_within("run", 1.3 * HOUR, "run") == pytest.approx(0.95, abs=0.01)


# Working hours


def test_a_persons_task_ends_on_the_next_working_day_and_the_machine_goes_on_at_night() -> None:
    working = WorkingTime(WorkingHours())
    found = laid(phase("label", 10, working=working, who="ana"), phase("run", 20, "label"))
    assert found.slot("label").ends.p50 == datetime(2026, 11, 26, 11, tzinfo=UTC).timestamp()
    assert found.slot("run").ends.p50 == datetime(2026, 11, 27, 7, tzinfo=UTC).timestamp()
    evening = laid(phase("review", 1, working=working), now=NOW + 9 * HOUR)
    assert evening.slot("review").starts.p50 == datetime(2026, 11, 26, 9, tzinfo=UTC).timestamp()


# What has happened


def test_what_has_ended_is_certain_and_what_runs_goes_on_from_now() -> None:
    planned = Forecast.lognormal(2 * HOUR, 0.3, "probe")
    found = laid(
        phase("a", planned, started=NOW - 3 * HOUR, finished=NOW - HOUR),
        phase("b", 1, "a", planned=planned, started=NOW - HOUR),
        phase("c", 1, "b"),
    )
    assert found.slot("a").ends.quantiles() == (NOW - HOUR,) * 5
    assert found.slot("b").starts.p50 == NOW - HOUR
    assert found.slot("b").ends.p50 == NOW + HOUR
    assert found.ends.p50 == NOW + 2 * HOUR


# Buffers


def test_buffers_are_a_share_of_each_phase_and_push_the_plan_back() -> None:
    found = laid(phase("a", 10), phase("b", 4, "a"), buffer=0.2)
    assert found.slot("a").buffer == pytest.approx(2 * HOUR)
    assert found.slot("b").planned_start == NOW + 12 * HOUR
    assert found.slot("b").planned_end == NOW + 16 * HOUR
    assert found.eaten == ()
    assert found.slot("b").starts.p50 == NOW + 10 * HOUR  # the forecast keeps nothing free


def test_who_takes_longer_eats_its_own_buffer_first_and_then_that_of_what_waits_for_it() -> None:
    ten = Forecast.exact(10 * HOUR)
    found = laid(
        phase("a", 0, planned=ten, started=NOW - 13 * HOUR, finished=NOW),
        phase("b", 5, "a", planned=ten, started=NOW),
        phase("c", 10, "b"),
    )
    assert [(bite.of, bite.by, bite.seconds / HOUR) for bite in found.eaten] == [("a", "a", 1.5), ("b", "a", 1.5)]
    assert found.slot("a").buffer_left == 0
    assert found.slot("b").buffer_left == 0
    assert found.slot("c").buffer_left == pytest.approx(1.5 * HOUR)


def test_a_phase_that_is_quicker_than_planned_eats_nothing() -> None:
    found = laid(phase("a", 0, planned=Forecast.exact(10 * HOUR), started=NOW - 2 * HOUR, finished=NOW))
    assert found.eaten == ()
    assert found.slot("a").buffer_left == found.slot("a").buffer == pytest.approx(1.5 * HOUR)


@given(st.lists(st.tuples(st.floats(0.5, 20), st.floats(0.1, 40)), min_size=1, max_size=6), st.floats(0.1, 0.2))
def test_no_more_of_a_buffer_is_eaten_than_there_was_and_nobody_eats_without_being_late(
    lengths: list[tuple[float, float]], buffer: float
) -> None:
    phases, at = [], NOW
    for number, (planned, took) in enumerate(lengths):
        after = (f"p{number - 1}",) if number else ()
        known = {"planned": Forecast.exact(planned * HOUR), "started": at, "finished": at + took * HOUR}
        phases.append(phase(f"p{number}", 0, *after, **known))
        at += took * HOUR
    found = schedule(phases, at, buffer, size=2)
    for slot in found.slots:
        eaten = math.fsum(bite.seconds for bite in found.eaten if bite.of == slot.phase.name)
        assert eaten + slot.buffer_left == pytest.approx(slot.buffer)
    for number, (planned, took) in enumerate(lengths):
        bites = math.fsum(bite.seconds for bite in found.eaten if bite.by == f"p{number}")
        assert bites <= max(0.0, took - planned) * HOUR + 1e-3


def test_draws_of_one_seed_are_the_same_and_a_phase_more_leaves_those_before_it() -> None:
    forecast = Forecast.lognormal(HOUR, 0.5, "prior")
    one = laid(phase("a", forecast))
    two = laid(phase("a", forecast), phase("b", forecast, "a"))
    assert np.array_equal(one.draws["a"], two.draws["a"])
