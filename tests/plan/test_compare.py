"""The same run on many machines: durations from operations and peaks, interruptions, limits, the choice."""

import math
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thriftune.budget.forecast import Forecast
from thriftune.money.prices import Price, PriceTable, local_price
from thriftune.money.tables import Accelerator, Interruption, accelerators, interruptions
from thriftune.money.tokens import TokenPrice, token_prices
from thriftune.plan.compare import DRAWS, Comparison, Market, compare, interrupted
from thriftune.plan.plan import Limits, Part, Plan, Workload
from thriftune.plan.workload import Elsewhere, elsewhere, training_seconds

NOW = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
GIB = 2**30
H100 = Accelerator("H100", "cuda", 989e12, 80 * GIB, "data sheet")


def workload(**known: object) -> Workload:
    facts = {
        "flops": 1e17,
        "updates": 3000,
        "layers": 6,
        "tokens": 2_000_000,
        "flops_per_second": 1e12,
        "again": Forecast.lognormal(20.0, 0.3, "record"),
        "restart": Forecast.lognormal(10.0, 0.3, "record"),
        "checkpoint_seconds": 30.0,
    }
    return Workload(**{**facts, **known})  # type: ignore[arg-type]


def plan(money: str = "50", seconds: float = 1e6, memory: float = 4 * GIB, train: float = 1e5) -> Plan:
    parts = (
        Part("training", "train", Forecast.lognormal(train, 0.15, "probe")),
        Part("evaluation", "tuned", Forecast.lognormal(300.0, 0.3, "probe")),
        Part("evaluation", "report", Forecast.lognormal(2.0, 0.3, "record")),
    )
    limits = Limits(5.0, float(money) / 0.1 * 3600, seconds, Decimal("0.1"), "USD", Decimal(0), 0.0, Decimal(money))
    need = {"training": Forecast.lognormal(memory, 0.15, "probe")}
    return Plan(parts, limits, full_steps=3000, planned_steps=3000, memory=need)


def price(machine: str, per_hour: str, accelerator: str = "H100", count: int = 1, **known: object) -> Price:
    facts = {"provider": "p", "region": "r", "as_of": date(2026, 11, 1), "source": "list"}
    return Price(
        machine, Decimal(per_hour), accelerator=accelerator, accelerator_count=Decimal(count), **{**facts, **known}
    )  # type: ignore[arg-type]


def market(*prices: Price, known: tuple[Interruption, ...] = (), **more: object) -> Market:
    rates = {(row.provider, row.machine.lower(), row.region): row for row in known}
    facts = {"tokens": (), "figures": {}}
    return Market(prices, accelerators(), rates, **{**facts, **more})  # type: ignore[arg-type]


def compared(made: Plan, offered: Market, work: Workload | None = None) -> Comparison:
    return compare(made, work or workload(), offered, local_price(), 16 * GIB, NOW)


# How long it takes there


def test_training_is_operations_over_the_peak_times_the_share_of_it_that_sources_state() -> None:
    seconds, source = training_seconds(workload(flops=1e18, updates=0), H100, 1, {})
    assert seconds.p5 == pytest.approx(1e18 / (989e12 * 0.46))
    assert seconds.p95 == pytest.approx(1e18 / (989e12 * 0.03))
    assert seconds.basis == "prior"
    assert "arXiv 2204.02311" in source


def test_our_own_record_on_such_an_accelerator_goes_before_the_sources() -> None:
    figures = {
        "Xeon x16 + NVIDIA H100 80GB HBM3 x1": {"teraflop/chat": [1 / 200, 1 / 210, 1 / 190], "load/m": [3.0]},
        "Xeon x16 + NVIDIA L40S x1": {"teraflop/chat": [1 / 50]},
        "EPYC x2": {"teraflop/classify": [1.0]},
    }
    seconds, source = training_seconds(workload(flops=1e18, updates=0), H100, 1, figures)
    assert seconds.p50 == pytest.approx(1e6 / 200)
    assert source == "20.2 % of the peak, from 3 runs of ours on H100"
    l4 = Accelerator("L4", "cuda", 121e12, 24 * GIB, "")
    assert "runs of ours" not in training_seconds(workload(), l4, 1, figures)[1]  # an L40S is no L4


@given(st.integers(1, 16))
@settings(max_examples=20)
def test_more_accelerators_are_never_slower_nor_quicker_than_their_number(count: int) -> None:
    one, _ = training_seconds(workload(updates=0), H100, 1, {})
    many, _ = training_seconds(workload(updates=0), H100, count, {})
    for alone, shared in zip(one.quantiles(), many.quantiles(), strict=True):
        assert alone / count * (1 - 1e-9) <= shared
    assert many.p50 <= one.p50


def test_a_small_model_is_bound_by_its_kernels_however_fast_the_accelerator() -> None:
    tiny, _ = training_seconds(workload(flops=1.0), H100, 1, {})
    assert tiny.p50 == pytest.approx(3000 * 6 * 1e-3, rel=0.01)


def test_elsewhere_is_wider_than_here_and_includes_getting_the_machine() -> None:
    here = plan()
    there = elsewhere(here, workload(), H100, 1, {})
    assert there.seconds.p95 / there.seconds.p5 > here.full.p95 / here.full.p5
    assert there.seconds.p5 > 150
    assert there.seconds.basis == "prior"
    answers = next(part for part in here.parts if part.what == "tuned")
    assert there.seconds.p95 >= answers.seconds.p95  # at worst answering gains nothing


# Interruptions


def rate(low: float, high: float | None) -> Interruption:
    return Interruption("p", "m", "r", low, high, "advisor", date(2026, 10, 1))


def test_an_interruption_loses_half_a_checkpoint_and_a_restart_at_the_rate_that_is_stated() -> None:
    month = 730.5 * 3600.0
    there = Elsewhere(Forecast.exact(month / 10), Forecast.exact(600.0), "")
    seconds, risk = interrupted(there, workload(), rate(0.2, 0.2), NOW, seed=1)
    expected = -math.log(0.8) / 10
    assert risk.interruptions == pytest.approx(expected)
    assert risk.lost_seconds == pytest.approx(expected * (15 + 600))
    assert "advisor" in risk.rate
    assert "2026-10-01, 55 days old" in risk.rate
    assert seconds.p50 == month / 10  # most runs are not interrupted
    many, _ = interrupted(
        Elsewhere(Forecast.exact(10 * month), Forecast.exact(600.0), ""), workload(), rate(0.2, 0.2), NOW, 1
    )
    assert many.p50 > 10 * month + 300
    # 2.2 interruptions are expected, so that one run in ten has none: the 5th percentile, and not the 25th.
    assert many.p5 == 10 * month < many.p25
    assert DRAWS >= 10_000


def test_a_spot_machine_of_unknown_rate_is_said_to_be_so_and_not_chosen() -> None:
    spot, sure = price("cheap", "0.01", market="spot"), price("dear", "3")
    found = compared(plan(), market(spot, sure))
    option = next(o for o in found.options if o.kind == "spot")
    assert option.risk is not None
    assert option.risk.rate == ""
    assert math.isnan(option.risk.interruptions)
    assert "not known" in found.why_not(option)
    assert found.chosen is not option
    known = compared(plan(), market(spot, sure, known=(Interruption("p", "cheap", "r", 0.05, 0.1, "s", None),)))
    assert known.chosen is not None
    assert known.chosen.kind == "spot"


# The choice


def test_the_cheapest_that_meets_both_is_chosen_and_every_other_one_says_why_not() -> None:
    offered = market(
        price("a", "2"), price("b", "9", count=8), price("tiny", "0.1", "V100"), price("t", "1", "tpu-v6e-1")
    )
    found = compared(plan(seconds=20_000, memory=20 * GIB), offered)
    assert found.chosen is not None
    assert found.chosen.name == "p:a in r"
    why = {option.name: found.why_not(option) for option in found.options}
    assert why["p:a in r"] == ""
    assert "deadline" in why["this machine"]
    assert "memory" in why["this machine"]
    assert "memory" in why["p:tiny in r"]
    assert "TPU" in why["p:t in r"]
    assert "more" in why["p:b in r"]


def test_a_budget_that_nothing_keeps_leaves_nothing_chosen() -> None:
    found = compared(plan(money="0.0001"), market(price("a", "2")))
    assert found.chosen is None
    assert all("budget" in found.why_not(option) for option in found.options)


def test_managed_tuning_is_priced_by_the_token_and_never_promised_by_a_deadline() -> None:
    tokens = (TokenPrice("openai", "m", "training", Decimal(3), "USD", "list", date(2024, 7, 23)),)
    found = compared(plan(), market(tokens=tokens), workload(managed=True))
    option = next(o for o in found.options if o.kind == "managed")
    assert option.cost is not None
    assert option.cost.p50 == pytest.approx(6.0)
    assert option.seconds is None
    assert option.old
    assert "855 days old" in option.price
    assert "how long it takes is not known" in found.why_not(option)
    assert not [o for o in compared(plan(), market(tokens=tokens)).options if o.kind == "managed"]


def test_prices_in_another_currency_are_left_out_and_that_is_said() -> None:
    found = compared(plan(), market(price("a", "2"), price("e", "1", currency="EUR")))
    assert [o.name for o in found.options if "p:" in o.name] == ["p:a in r"]
    assert any("EUR" in note for note in found.notes)


@given(
    st.lists(
        st.tuples(st.floats(0.01, 90), st.sampled_from(["H100", "L4", "A100", "V100"]), st.integers(1, 8)), max_size=8
    )
)
@settings(max_examples=30, deadline=None)
def test_nothing_on_the_frontier_is_beaten_and_everything_else_is(drawn: list[tuple[float, str, int]]) -> None:
    rows = [price(f"m{n}", f"{hour:.4f}", kind, count) for n, (hour, kind, count) in enumerate(drawn)]
    found = compared(plan(), market(*rows))
    known = [o for o in found.options if o.cost is not None and o.seconds is not None]

    def better(one: object, other: object) -> bool:
        pair = (one.cost.p50, one.seconds.p50), (other.cost.p50, other.seconds.p50)  # type: ignore[attr-defined]
        return pair[0] != pair[1] and pair[0][0] <= pair[1][0] and pair[0][1] <= pair[1][1]

    for option in known:
        assert option.on_frontier != any(better(other, option) for other in known)
    if found.chosen is not None:
        free = [o for o in found.options if not o.objections and o.cost is not None]
        assert found.chosen.cost.p50 == min(o.cost.p50 for o in free)  # type: ignore[union-attr]


# What ships


def test_every_gpu_of_the_shipped_prices_has_figures_with_a_source() -> None:
    known = accelerators()
    for row in PriceTable.load().rows:
        if not row.accelerator.startswith("tpu"):
            assert known[row.accelerator.lower()].source
    assert all(row.source and row.as_of for row in interruptions().values())
    assert all(row.source and row.as_of and row.per_million > 0 for row in token_prices())
