"""The simulated projects: the same world for both systems, an account of their own, and lost machines that are paid."""

import math
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import budget  # noqa: E402
import simulated_deadlines  # noqa: E402
from simulated_world import START, World  # noqa: E402


def test_the_same_number_gives_the_same_world_whatever_is_done_in_it():
    one, other = World(3), World(3)
    other.update_takes()
    other.takes("report")
    assert one.takes("load") == other.takes("load")
    assert [one.update_takes() for _ in range(3)][1] == other.update_takes()
    assert one.losses == other.losses


def test_the_world_s_own_account_pays_each_process_and_tells_a_changed_price_apart():
    world = World(0)
    world.losses, world.price, world.price_changes_at, world.new_price = [], 3600.0, START + 15, 7200.0
    world.process_begins(3600.0)
    assert world.works(10) is None
    world.now += 100  # nobody is there
    world.process_begins(7200.0)
    world.works(10)
    assert (world.money(), world.bill()) == pytest.approx((30.0, 30.0))
    world = World(0)
    world.losses, world.price, world.price_changes_at, world.new_price = [], 3600.0, START + 15, 7200.0
    world.process_begins(3600.0)
    world.works(20)
    assert (world.money(), world.bill()) == pytest.approx((20.0, 25.0))
    world.deadline_seconds = 18.0
    assert world.late() == pytest.approx(2.0)


@pytest.mark.parametrize("number", [1, 2])
def test_a_project_with_a_lost_machine_ends_and_its_ledger_knows_what_was_used(number):
    found = budget.project(number)
    assert found == budget.project(number)
    seen = found["governed"]
    assert seen["processes"] > 1
    assert seen["outcome"] == "done"
    assert seen["reserved"] == 0
    second = seen["money"] / seen["seconds"]
    assert abs(seen["ledger_money"] - seen["money"]) <= 2 * second * seen["processes"]
    assert not budget.overran(found, "governed")


def test_chances_are_binned_by_what_was_said():
    bins = simulated_deadlines.binned([(0.8, True)] * 8 + [(0.79, False)] * 2 + [(0.02, False)])
    at = next(each for each in bins if each["count"])
    assert (at["from"], at["to"], at["count"], at["made"]) == (0.75, 0.85, 10, 0.8)
    assert math.isclose(at["said"], 0.798)
    assert simulated_deadlines.judged({"bins": bins, "bins_after_a_phase": bins})["as_said"]
    late = simulated_deadlines.binned([(0.8, False)] * 10)
    assert not simulated_deadlines.judged({"bins": bins, "bins_after_a_phase": late})["as_said"]
