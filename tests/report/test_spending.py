"""What the report tells of the money beside phases, from the events alone."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from thriftune.events import Event
from thriftune.report.spending import PhaseUse, categories_json, spending, suggestion

USE = PhaseUse("training", 60.0, 4, 0.6, 0.3, 0.5, 0, 0, 5.0, Decimal("0.01"), 0, None, None)
SPAN = {
    "seconds": 30.0,
    "cpu_seconds": 45.0,
    "cores": 2,
    "idle_seconds": 6.0,
    "resident_seconds": 30e9,
    "peak_bytes": 2e9,
    "memory_bytes": 4e9,
    "read_bytes": 10,
    "written_bytes": 20,
    "accelerator_seconds": None,
    "accelerators": 0,
    "accelerator_peak": None,
}


def event(seq: int, kind: str, **data: object) -> Event:
    return Event(seq, "films", 1, 1.8e9 + seq, kind, dict(data))


def charge(seq: int, category: str, amount: str, seconds: float = 0.0, estimated: bool = False) -> Event:
    facts = {"phase": "training", "category": category, "unit": "u", "seconds": seconds, "estimated": estimated}
    return event(seq, "charge", amount=amount, **facts)


STARTED = event(1, "attempt.started", price_per_hour="3.6", power_watts="150", electricity_per_kwh="0.20")


def test_costs_are_summed_by_kind_exactly_and_energy_stands_apart() -> None:
    events = [
        STARTED,
        charge(2, "machine", "0.1", 1200.0),
        charge(3, "machine", "0.2", 2400.0, estimated=True),
        charge(4, "labels", "0.000000001"),
        charge(5, "something new", "1"),
    ]
    found = spending(events, events, None)
    by = {each.category: each for each in found.categories}
    assert by["machine"].spent == Decimal("0.3") and by["machine"].estimated == Decimal("0.2")
    assert by["labels"].spent == Decimal("0.000000001") and by["storage"].spent == 0
    assert by["something new"].spent == 1
    assert found.energy is not None and found.energy.kwh == pytest.approx(0.15)
    assert found.energy.cost == Decimal("0.03") and "150 W" in found.energy.basis


def test_what_is_kept_and_sent_is_counted_and_says_where_it_has_no_price() -> None:
    kept = {"phase": "training", "at": 0.0, "bytes": 0, "carry": "0"}
    events = [
        STARTED,
        event(2, "storage", **kept, gb_hours=0.5, cost=None),
        event(3, "storage", **kept, gb_hours=1.5, cost="0.0002"),
        charge(4, "storage", "0.0002"),
        event(5, "transfer", phase="training", bytes=250_000_000, cost=None),
    ]
    by = {each.category: each for each in spending(events, events, None).categories}
    assert by["storage"].spent == Decimal("0.0002")
    assert by["storage"].amount is not None and by["storage"].amount.said == "2 GB-hours, 0.5 of them not priced"
    assert by["transfer"].amount is not None and by["transfer"].amount.said == "0.25 GB, not priced"
    assert by["labels"].amount is None
    assert categories_json(spending(events, events, None))["storage"]["amount"] == {
        "value": 2.0,
        "unit": "GB-hours",
        "unpriced": 0.5,
    }


DREW = {"energy_seconds": 3000.0, "energy_by": "codecarbon 3 (counters)", "energy_grams_per_kwh": 381.0}


def test_measured_energy_stands_and_the_stated_draw_fills_the_rest() -> None:
    """Of 3,600 metered seconds 3,000 were measured at 60 W: 0.05 kWh; 600 s at the stated 150 W are 0.025 more."""
    span = event(3, "usage", phase="training", **SPAN | DREW, energy_joules=180_000.0)
    events = [STARTED, charge(2, "machine", "0.1", 3600.0), span]
    found = spending(events, events, None)
    assert found.energy is not None and found.energy.kwh == pytest.approx(0.075)
    assert found.energy.cost == Decimal("0.015")
    assert "83% of the metered time by codecarbon 3 (counters)" in found.energy.basis and "150 W" in found.energy.basis
    assert found.measured_energy is not None and found.measured_energy.grams_per_kwh == 381


def test_of_a_rented_machine_only_what_was_measured_is_known() -> None:
    rented = event(1, "attempt.started", price_per_hour="3.6", power_watts=None, electricity_per_kwh="0.20")
    span = event(3, "usage", phase="training", **SPAN | DREW, energy_joules=180_000.0)
    events = [rented, charge(2, "machine", "0.1", 3600.0), span]
    found = spending(events, events, None).energy
    assert found is not None and found.kwh == pytest.approx(0.05)
    assert found.cost is None and "not known" in found.basis
    assert spending(events[:2], events[:2], None).energy is None


def test_use_is_weighted_by_time_and_idle_seconds_cost_what_the_machine_costs() -> None:
    other = SPAN | {"seconds": 10.0, "cpu_seconds": 5.0, "idle_seconds": 4.0, "peak_bytes": 3e9, "resident_seconds": 0}
    events = [STARTED, event(2, "usage", phase="training", **SPAN), event(3, "usage", phase="training", **other)]
    (use,) = spending(events, events, None).use
    assert use.cpu == pytest.approx(50 / 80) and use.memory_peak == pytest.approx(0.75)
    assert use.idle_seconds == 10.0 and use.idle_cost == Decimal("0.01")
    assert (use.read_bytes, use.written_bytes, use.accelerator) == (20, 40, None)


def test_what_one_span_did_not_measure_is_not_measured() -> None:
    events = [
        event(2, "usage", phase="training", **SPAN),
        event(3, "usage", phase="training", **SPAN | {"read_bytes": None}),
    ]
    (use,) = spending(events, events, None).use
    assert use.read_bytes is None and use.written_bytes == 40


@pytest.mark.parametrize(
    ("changes", "direction", "says"),
    [
        ({"cpu": 0.95}, "up", "3.8 of 4 cores"),
        ({"cpu": 0.2}, "down", "a machine of 1"),
        ({"cpu": 0.6}, "stay", "in between"),
        ({"cpu": 0.2, "cores": 1}, "stay", "one is the least"),
        ({"memory_peak": 0.9, "cpu": 0.1}, "up", "more memory"),
        ({"accelerator": 0.95}, "up", "a faster one"),
        ({"accelerator": 0.3, "cpu": 0.97}, "up", "more cores would feed it"),
        ({"accelerator": 0.1}, "down", "a smaller one"),
        ({"accelerator": 0.6}, "stay", "in between"),
    ],
)
def test_a_larger_or_smaller_machine_follows_from_the_longest_phase(
    changes: dict[str, float], direction: str, says: str
) -> None:
    found = suggestion([replace(USE, **changes), replace(USE, phase="evaluation", seconds=10.0)])
    assert found is not None and (found.direction, says in found.because) == (direction, True)


def test_a_run_of_a_moment_suggests_nothing() -> None:
    assert suggestion([replace(USE, seconds=1.0)]) is None and suggestion([]) is None


def test_a_move_counts_as_taken_when_its_decision_is_recorded() -> None:
    proposal = {
        "move": "deeper_freeze",
        "chosen": 3,
        "says": "3 of 4 layers frozen",
        "saves_seconds": 9.0,
        "saves_money": "0.009",
        "enough": True,
        "allowed": True,
    }
    told = {"when": "now", "seconds": [1, 2, 3, 4, 5], "cost": ["1"] * 5, "limit_seconds": 4.0, "binding": "budget"}
    review = event(2, "review", in_danger=True, proposals=[proposal], **told)
    decided = event(3, "decision", what="deeper_freeze", chosen=3, at_step=0, because="so")
    for events, taken in (([review], False), ([review, decided], True)):
        (found,) = spending(events, events, None).reviews
        assert found.proposals[0].taken is taken and found.proposals[0].saves_money == Decimal("0.009")
