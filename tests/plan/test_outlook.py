"""What is still to come: parts that are expected, sharpened and done, and what they add up to."""

from decimal import Decimal

import pytest

from thriftune.budget.forecast import Forecast
from thriftune.errors import CannotLand
from thriftune.plan.outlook import Outlook
from thriftune.plan.plan import Limits


def limits(seconds: float) -> Limits:
    return Limits(
        seconds_used=2.0,
        money_seconds=seconds,
        time_seconds=seconds + 1,
        price_per_hour=Decimal(36),
        currency="USD",
        spent_before=Decimal(0),
        elapsed_before=0.0,
    )


@pytest.fixture
def outlook() -> Outlook:
    parts = Outlook()
    for what, phase, seconds in (("load", "training", 3.0), ("train", "training", 50.0), ("tuned", "evaluation", 7.0)):
        parts.expect(what, phase, Forecast.exact(seconds, "measured"))
    return parts


def test_what_comes_before_and_after_a_part_is_what_its_order_says(outlook):
    assert (outlook.before("train").p50, outlook.after("train")) == (3.0, 7.0)
    outlook.done("load")
    assert outlook.before("train").p50 == 0.0


def test_sharpening_keeps_the_order_and_does_not_bring_back_what_is_done(outlook):
    outlook.sharpen("load", Forecast.exact(4.0, "measured"))
    outlook.done("tuned")
    outlook.sharpen("tuned", Forecast.exact(9.0, "measured"))
    assert list(outlook.parts) == ["load", "train"]
    assert outlook.before("train").p50 == 4.0


def test_a_plan_needs_only_the_least_of_what_can_be_less(outlook):
    outlook.sharpen("train", Forecast.exact(50.0, "probe"), Forecast.exact(5.0, "probe"))
    plan = outlook.plan(limits(20.0))
    assert plan.full.p50 == 60.0
    assert not plan.fits_whole
    plan.require()
    assert plan.minimum_time() == 19  # 2 s used, 15 s to come and a tenth of them
    assert plan.minimum_budget() == Decimal("0.19")
    with pytest.raises(CannotLand, match=r"0\.19"):
        outlook.plan(limits(14.0)).require()


def test_the_memory_of_a_run_is_that_of_its_largest_phase(outlook):
    outlook.memory["training"] = Forecast.lognormal(1000.0, 0.1, "probe")
    outlook.memory["evaluation"] = Forecast.lognormal(900.0, 0.5, "probe")
    most = outlook.plan(limits(100.0)).most_memory
    assert most.p50 == 1000.0
    assert most.p95 == pytest.approx(1350.0)


def test_what_slowed_the_parts_that_lie_behind_is_kept_free_for_those_to_come():
    outlook = Outlook()
    for name in ("imports", "load", "encode", "verdict"):
        outlook.expect(name, "training", Forecast.lognormal(10.0, 0.2, "record"))
    outlook.expect("train", "training", Forecast.lognormal(100.0, 0.2, "probe"))
    before = outlook.after("encode")
    for name in ("imports", "load"):
        outlook.took(name, 20.0)
        outlook.done(name)
    assert outlook.slowness == pytest.approx(2**0.5)  # two parts took twice as long, against two supposed ones
    assert outlook.cautious("train") == outlook.parts["train"].seconds  # probed today
    assert outlook.after("encode") == pytest.approx(before + (2**0.5 - 1) * 12.0)
    assert outlook.parts["verdict"].seconds.p50 == 10.0  # the forecast itself stays what it was


def test_the_caution_of_a_slow_day_does_not_take_the_least_that_training_needs():
    outlook = Outlook()
    for name in ("imports", "train", "verdict"):
        outlook.expect(name, "training", Forecast.lognormal(10.0, 0.2, "record"))
    outlook.sharpen("train", Forecast.exact(100.0), Forecast.exact(5.0))
    outlook.took("imports", 30.0)
    outlook.done("imports")
    cautious = 12.0 * 3.0 ** (1 / 3)
    assert outlook.tail("train", 100.0) == pytest.approx(cautious)
    assert outlook.tail("train", 20.0) == pytest.approx(15.0)
    assert outlook.tail("train", 10.0) == pytest.approx(12.0)  # what follows is as before; it does not fit anyway


def test_a_fast_start_promises_nothing():
    outlook = Outlook()
    outlook.expect("imports", "training", Forecast.lognormal(10.0, 0.2, "record"))
    outlook.took("imports", 2.0)
    assert outlook.slowness == 1.0
