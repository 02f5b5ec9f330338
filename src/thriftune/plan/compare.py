"""One run on many machines: what each would cost, when it would end, what could go wrong, and which one to take.

Machines of the price table that are not here are foretold by `plan/workload.py`. A spot machine may be taken away:
each time, the work since the last checkpoint is lost and another machine must be got. How often that happens is read
from a table with its source; where it is not known, that is said, and the machine is not chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from thriftune.budget.forecast import Forecast
from thriftune.money.amounts import shown_money
from thriftune.money.prices import ANY_REGION, Price, age_said
from thriftune.money.tables import HOURS_A_MONTH, Accelerator, Interruption
from thriftune.money.tokens import TokenPrice
from thriftune.plan.plan import Plan, Workload
from thriftune.plan.sampling import draws, observed
from thriftune.plan.workload import Elsewhere, elsewhere

DRAWS = 20_000
MOST_SHOWN = 16  # ways, beside those that must be; JSON has them all
OPEN_BAND = 0.63  # share a month that a band without an upper bound is taken to end at: one interruption a month
LEAST_BAND = 1e-3  # share a month that a band which begins at none is taken to begin at
TOKENIZER_SPREAD = 0.5  # another provider's tokenizer against ours, assumed


@dataclass(frozen=True)
class Risk:
    """What being interrupted costs.

    Args:
        rate: how often machines are taken away, with source and date; empty where it is not known.
        interruptions: expected in the run.
        lost_seconds: expected, of work done again and of getting another machine.
    """

    rate: str
    interruptions: float
    lost_seconds: float


@dataclass(frozen=True)
class Option:
    """A way to do the run.

    Args:
        name: the machine, or the provider's model.
        kind: `local`, `on-demand`, `spot` or `managed`.
        accelerators: how many of which.
        price: with its age.
        old: whether the price is older than prices keep.
        seconds: from now to the report; None where it is not known.
        cost: in the budget's currency; None where it is not known.
        memory: whether the run fits, in words.
        risk: of being interrupted; None where nobody takes the machine away.
        basis: what the duration rests on.
        objections: why it cannot be taken, a clause each.
        on_frontier: whether no other one is both cheaper and quicker.
    """

    name: str
    kind: str
    accelerators: str
    price: str
    old: bool
    seconds: Forecast | None
    cost: Forecast | None
    memory: str
    risk: Risk | None
    basis: str
    objections: tuple[str, ...] = ()
    on_frontier: bool = False


@dataclass(frozen=True)
class Comparison:
    """All ways, the cheapest first; `chosen` is the cheapest that meets budget and deadline, or None.

    Args:
        money_left: of the budget, None without one.
        seconds_left: to the deadline (infinite without one).
        notes: what holds for all of them.
    """

    options: tuple[Option, ...]
    chosen: Option | None
    currency: str
    money_left: Decimal | None
    seconds_left: float
    notes: tuple[str, ...] = ()

    def why_not(self, option: Option) -> str:
        """Why this one is not taken; empty for the one that is."""
        if option is self.chosen:
            return ""
        if option.objections:
            return "; ".join(option.objections)
        if self.chosen is None or option.cost is None or self.chosen.cost is None:
            return ""
        gap = Decimal(repr(option.cost.p50 - self.chosen.cost.p50))
        return f"meets both, and costs {shown_money(gap, self.currency)} more"


def telling(found: Comparison) -> list[Option]:
    """The ones to show: what is here, what is chosen, the frontier, managed tuning, then the cheapest of each kind up
    to `MOST_SHOWN`."""
    wanted = [
        o for o in found.options if o is found.chosen or o.on_frontier or o.kind in ("local", "managed")
    ]  # fmt: skip
    kinds = {(o.accelerators.split(" x ")[-1], o.kind) for o in wanted}
    for option in found.options:
        kind = (option.accelerators.split(" x ")[-1], option.kind)
        if kind not in kinds and len(wanted) < MOST_SHOWN and option.cost is not None:
            kinds.add(kind)
            wanted.append(option)
    return [option for option in found.options if any(option is one for one in wanted)]


def to_data(found: Comparison) -> dict[str, Any]:
    """The ways that are shown, as plain JSON values that `from_data` reads back."""
    shown = telling(found)
    return {
        "ways": len(found.options),
        "chosen": next((place for place, option in enumerate(shown) if option is found.chosen), None),
        "currency": found.currency,
        "money_left": None if found.money_left is None else f"{found.money_left:f}",
        "seconds_left": found.seconds_left if math.isfinite(found.seconds_left) else None,
        "notes": list(found.notes),
        "options": [
            {name: value for name, value in vars(option).items() if name not in ("seconds", "cost", "risk")}
            | {
                "seconds": _plain(option.seconds),
                "cost": _plain(option.cost),
                "risk": None if option.risk is None else vars(option.risk),
            }
            for option in shown
        ],
    }


def from_data(data: Mapping[str, Any]) -> Comparison:
    """A comparison that was recorded, of the ways that were shown."""
    options = tuple(
        Option(
            **each
            | {
                "seconds": _forecast(each["seconds"]),
                "cost": _forecast(each["cost"]),
                "risk": None if each["risk"] is None else Risk(**each["risk"]),
                "objections": tuple(each["objections"]),
            }
        )
        for each in data["options"]
    )
    return Comparison(
        options,
        None if data["chosen"] is None else options[data["chosen"]],
        data["currency"],
        None if data["money_left"] is None else Decimal(data["money_left"]),
        math.inf if data["seconds_left"] is None else data["seconds_left"],
        tuple(data["notes"]),
    )


def _plain(forecast: Forecast | None) -> dict[str, Any] | None:
    return None if forecast is None else {"quantiles": list(forecast.quantiles()), "basis": forecast.basis}


def _forecast(data: Mapping[str, Any] | None) -> Forecast | None:
    return None if data is None else Forecast.of(data["quantiles"], data["basis"])


@dataclass(frozen=True)
class Market:
    """What can be rented: prices, and what is known of the machines.

    Args:
        prices: rows of the price table.
        accelerators: by name in small letters.
        interruptions: by provider, machine in small letters, and region.
        tokens: prices of managed tuning.
        figures: the record of durations, of all machine classes.
    """

    prices: Sequence[Price]
    accelerators: Mapping[str, Accelerator]
    interruptions: Mapping[tuple[str, str, str], Interruption]
    tokens: Sequence[TokenPrice]
    figures: Mapping[str, Mapping[str, Sequence[float]]]


def compare(
    plan: Plan, work: Workload, market: Market, local: Price, memory_bytes: float, now: float, seed: int = 0
) -> Comparison:
    """Every way to do what is still to come.

    Args:
        plan: on this machine.
        work: what it asks of a machine.
        market: what can be rented.
        local: this machine's price.
        memory_bytes: that this process may have here.
        now: the instant (UTC seconds) that prices' ages are told at.
        seed: of the draws of interruptions.
    """
    currency = plan.limits.currency
    found = [_here(plan, local, memory_bytes, now)]
    found += [_rented(plan, work, market, price, now, seed) for price in cheapest_regions(market.prices, currency)]
    if work.managed:
        found += [_managed(work, price, now) for price in market.tokens if price.currency == currency]
    judged = [replace(option, objections=(*option.objections, *_misses(plan, option))) for option in found]
    judged = on_frontier(sorted(judged, key=_rank))
    free = [option for option in judged if not option.objections]
    notes = ["a rented machine keeps its checkpoints only on a disk that outlives it"]
    others = sorted({price.currency for price in market.prices} - {currency})
    if others:
        notes.append(f"prices in {', '.join(others)} are left out: the budget is in {currency}")
    if not work.managed:
        notes.append("managed tuning is left out: providers tune chat models, which is another task than this")
    limits = plan.limits
    return Comparison(
        tuple(judged), free[0] if free else None, currency, limits.money_left, limits.time_seconds, tuple(notes)
    )


def cheapest_regions(prices: Iterable[Price], currency: str) -> list[Price]:
    """The cheapest row of each provider's machine and market; a stated price, which holds anywhere, goes before."""
    best: dict[tuple[str, str, str], Price] = {}
    for price in prices:
        if price.currency != currency:
            continue
        key = price.provider, price.machine, price.market
        if key not in best or _before(price) < _before(best[key]):
            best[key] = price
    return list(best.values())


def on_frontier(options: Sequence[Option]) -> list[Option]:
    """The options in their order, those marked that no other one beats in both median cost and median time."""
    known = [(o.cost.p50, o.seconds.p50) for o in options if o.cost is not None and o.seconds is not None]

    def beaten(cost: float, seconds: float) -> bool:
        return any(c <= cost and s <= seconds and (c, s) != (cost, seconds) for c, s in known)

    return [
        replace(o, on_frontier=o.cost is not None and o.seconds is not None and not beaten(o.cost.p50, o.seconds.p50))
        for o in options
    ]


def _before(price: Price) -> tuple[bool, bool, Decimal, str]:
    return (price.as_of is not None, price.region == ANY_REGION, price.per_hour, price.region)


def _rank(option: Option) -> tuple[bool, float, float]:
    cost = math.inf if option.cost is None else option.cost.p50
    return (bool(option.objections), cost, math.inf if option.seconds is None else option.seconds.p50)


def _here(plan: Plan, price: Price, memory_bytes: float, now: float) -> Option:
    """This machine, by its plan."""
    memory, objections = _memory(plan.memory.get("training"), memory_bytes, "this machine")
    if not plan.fits_whole and plan.planned_steps:
        objections.append(f"training would be cut to {plan.planned_steps} of {plan.full_steps} steps")
    per_second = float(plan.limits.price_per_hour) / 3600
    return Option(
        name="this machine" if price.machine == "local" else f"this machine, at the price of {price.label}",
        kind="local",
        accelerators="",
        price=price.told(now),
        old=price.is_old(now),
        seconds=plan.full,
        cost=plan.full.scaled(per_second),
        memory=memory,
        risk=None,
        basis=plan.full.basis,
        objections=tuple(objections),
    )


def _rented(plan: Plan, work: Workload, market: Market, price: Price, now: float, seed: int) -> Option:
    """A row of the price table."""
    kind = market.accelerators.get(price.accelerator.lower())
    count = price.accelerator_count
    option = Option(
        name=f"{price.provider}:{price.machine}" + (f" in {price.region}" if price.region else ""),
        kind=price.market,
        accelerators=f"{count} x {price.accelerator}",
        price=price.told(now),
        old=price.is_old(now),
        seconds=None,
        cost=None,
        memory="not known",
        risk=None,
        basis="prior",
    )
    if price.accelerator.lower().startswith("tpu"):
        return replace(option, objections=("Thriftune trains on processors and GPUs, not on TPUs",))
    if kind is None or count < 1:
        return replace(option, objections=("what this accelerator can do is not known",))
    there = elsewhere(plan, work, kind, int(count), market.figures)
    objections = ["Thriftune was never tried on ROCm"] if kind.runtime == "rocm" else []
    memory, misfit = _memory(plan.memory.get("training"), kind.memory_bytes, f"a {kind.name}")
    seconds, risk = there.seconds, None
    if price.market == "spot":
        known = market.interruptions.get((price.provider, price.machine.lower(), price.region))
        if known is None:
            risk = Risk("", math.nan, math.nan)
            objections.append("how often this spot machine is taken away is not known")
        else:
            seconds, risk = interrupted(there, work, known, now, seed)
    return replace(
        option,
        seconds=seconds,
        cost=seconds.scaled(float(price.per_hour) / 3600),
        memory=memory,
        risk=risk,
        basis=f"{seconds.basis}: {there.share_source}",
        objections=(*misfit, *objections),
    )


def interrupted(there: Elsewhere, work: Workload, known: Interruption, now: float, seed: int) -> tuple[Forecast, Risk]:
    """Seconds of a run with its interruptions, by simulation; and what they are expected to cost.

    Each comes at a constant rate, log-uniform within the source's band; it loses the work since the last checkpoint,
    uniform within the time between two, and the time to go on elsewhere. What is lost can be interrupted too.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    scores = random.standard_normal(DRAWS)
    alone, restart = draws(there.seconds, scores), draws(there.restart, scores)
    low = max(known.low, LEAST_BAND)
    high = max(OPEN_BAND if known.high is None else known.high, low)
    share = np.exp(random.uniform(math.log(low), math.log(high), DRAWS))
    per_second = -np.log1p(-share) / (3600 * HOURS_A_MONTH)
    elapsed, ahead = alone.copy(), alone
    while ahead.max() > 0:
        taken = random.poisson(per_second * ahead)
        ahead = taken * (random.uniform(0, work.checkpoint_seconds, DRAWS) + restart)
        elapsed += ahead
    expected = float((per_second * alone).mean())
    lost = float((per_second * alone * (work.checkpoint_seconds / 2 + restart)).mean())
    return observed(elapsed, there.seconds.basis), Risk(known.told(now), expected, lost)


def _managed(work: Workload, price: TokenPrice, now: float) -> Option:
    """A provider that tunes a model of its own, by the token."""
    dated = "" if price.as_of is None else f", price of {age_said(price.as_of, now)}"
    cost = Forecast.lognormal(work.tokens * float(price.per_million) / 1e6, TOKENIZER_SPREAD, "prior")
    return Option(
        name=f"{price.provider}:{price.model}",
        kind="managed",
        accelerators="",
        price=f"{price.per_million} {price.currency} a million tokens{dated}",
        old=price.is_old(now),
        seconds=None,
        cost=cost,
        memory="the provider's concern",
        risk=None,
        basis=f"prior: {work.tokens:,} tokens by our tokenizer, theirs counts otherwise",
        objections=("how long it takes is not known", "it tunes another model, which this project does not name"),
    )


def _memory(need: Forecast | None, there: float, where: str) -> tuple[str, list[str]]:
    """Whether training fits into so many bytes, in words; and the objection if it does not."""
    if need is None:
        return "not known", []
    figures = f"{need.p95 / 2**30:.1f} of {there / 2**30:.1f} GiB"
    if need.p95 <= there:
        return f"fits ({figures})", []
    if need.p50 > there:
        return f"does not fit ({figures})", [f"memory: may need {figures} of {where}"]
    return f"may not fit ({figures})", [f"memory: may need {figures} of {where}"]


def _misses(plan: Plan, option: Option) -> Iterator[str]:
    """Which limits the option may not keep, by the upper end of its 90 % interval."""
    limits = plan.limits
    if option.seconds is not None and option.seconds.p95 > limits.time_seconds:
        yield f"deadline: may take {option.seconds.p95:,.0f} s, {limits.time_seconds:,.0f} s are left"
    if option.cost is not None and limits.money_left is not None and option.cost.p95 > float(limits.money_left):
        may = shown_money(Decimal(repr(option.cost.p95)), limits.currency)
        yield f"budget: may cost {may}, {shown_money(limits.money_left, limits.currency)} are left"
