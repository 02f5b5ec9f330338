"""What the report tells of the money beside phases: kinds of cost, alerts, reviews, the machine's use, bills."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from thriftune.budget.alerts import sentence
from thriftune.events import Event
from thriftune.money.bills import Period
from thriftune.money.ledger import CATEGORIES, Balance
from thriftune.report.energy import MeasuredEnergy, energy_basis, energy_kwh, measured_energy

BUSY, MIDDLING, FULL = 0.85, 0.4, 0.85
"""Shares by which a larger or a smaller machine is suggested: the processor or the accelerator is the limit from the
first on; below the second a machine is too large; memory is short from the third on."""
TELLING_SECONDS = 5.0  # of a phase, from which its use says something about the machine


@dataclass(frozen=True)
class Amount:
    """How much was kept, or went over the network.

    Args:
        value: in `unit`.
        unit: `GB-hours` or `GB`, of 10⁹ bytes.
        unpriced: of it, what had no price and so cost nothing.
    """

    value: float
    unit: str
    unpriced: float

    @property
    def said(self) -> str:
        """For people: `1.25 GB-hours, not priced`."""
        if self.unpriced <= 0:
            return f"{self.value:.3g} {self.unit}"
        part = "" if self.unpriced >= self.value else f"{self.unpriced:.3g} of them "
        return f"{self.value:.3g} {self.unit}, {part}not priced"


@dataclass(frozen=True)
class CategoryCost:
    """A kind of cost, whatever phase paid it.

    Args:
        amount: how much of it there was, where that is counted.
    """

    category: str
    spent: Decimal
    allowance: Decimal | None
    estimated: Decimal
    amount: Amount | None = None


@dataclass(frozen=True)
class Energy:
    """Electricity, apart from the machine's price, which holds it already; `cost` is None on a rented machine."""

    kwh: float
    cost: Decimal | None
    basis: str


@dataclass(frozen=True)
class Alert:
    """A level of an allowance, or of the total, that was spent."""

    instant: float
    scope: str
    name: str
    level: int
    spent: Decimal
    allowance: Decimal
    text: str


@dataclass(frozen=True)
class Proposed:
    """A move that a review proposed; `taken` where the run made it."""

    move: str
    says: str
    saves_seconds: float
    saves_money: Decimal
    enough: bool
    allowed: bool
    taken: bool


@dataclass(frozen=True)
class Reviewed:
    """The forecast to completion as a review had it; five quantiles each of seconds and of money."""

    instant: float
    when: str
    seconds: tuple[float, ...]
    cost: tuple[Decimal, ...]
    limit_seconds: float | None
    binding: str
    in_danger: bool
    proposals: tuple[Proposed, ...]


@dataclass(frozen=True)
class PhaseUse:
    """What a phase used of its machine in this attempt; None was not measured.

    Args:
        cpu: share of the cores that it may use.
        memory: mean share of the memory that it may have, and `memory_peak` the largest.
        idle_cost: what the machine cost while it did less than the stated share of work.
        accelerator: share of the time in which the accelerators worked; `accelerator_peak` of their memory.
    """

    phase: str
    seconds: float
    cores: int
    cpu: float
    memory: float
    memory_peak: float
    read_bytes: int | None
    written_bytes: int | None
    idle_seconds: float
    idle_cost: Decimal
    accelerators: int
    accelerator: float | None
    accelerator_peak: float | None


@dataclass(frozen=True)
class Suggestion:
    """A larger (`up`), a smaller (`down`) or the same machine (`stay`), and why."""

    direction: str
    because: str


@dataclass(frozen=True)
class Spending:
    """All of it."""

    categories: tuple[CategoryCost, ...] = ()
    energy: Energy | None = None
    measured_energy: MeasuredEnergy | None = None
    """Of this attempt alone."""

    alerts: tuple[Alert, ...] = ()
    reviews: tuple[Reviewed, ...] = ()
    use: tuple[PhaseUse, ...] = ()
    suggestion: Suggestion | None = None
    billed: tuple[Period, ...] = ()
    ended: tuple[str, ...] = ()
    """Leases that the watchdog ended, a sentence each."""

    @property
    def idle_cost(self) -> Decimal:
        """Money for idle seconds, of all phases."""
        return sum((each.idle_cost for each in self.use), Decimal(0))


def spending(
    past: Sequence[Event], own: Sequence[Event], balance: Balance | None, billed: Sequence[Period] = ()
) -> Spending:
    """Gather it from the events.

    Args:
        past: of the project up to this attempt.
        own: of this attempt.
        balance: the ledger's, for the allowances of kinds of cost.
        billed: metered against billed.
    """
    started = next((event.data for event in reversed(past) if event.kind == "attempt.started"), {})
    charges = [event.data for event in past if event.kind == "charge"]
    use = _use(own, Decimal(started.get("price_per_hour") or 0))
    return Spending(
        categories=_categories(charges, {} if balance is None else balance.categories, _amounts(past)),
        energy=_energy(charges, measured_energy(past), started),
        measured_energy=measured_energy(own),
        alerts=tuple(_alert(event) for event in past if event.kind == "alert"),
        reviews=_reviews(own),
        use=use,
        suggestion=suggestion(use),
        billed=tuple(billed),
        ended=tuple(_ended(event) for event in past if event.kind in ("lease.ended", "machine.stopped")),
    )


def suggestion(use: Sequence[PhaseUse]) -> Suggestion | None:
    """A larger or a smaller machine, by what the longest phase used; None where too little was measured."""
    longest = max(use, key=lambda each: each.seconds, default=None)
    if longest is None or longest.seconds < TELLING_SECONDS:
        return None
    if longest.memory_peak >= FULL:
        held = f"{longest.phase} held {longest.memory_peak:.0%} of the memory"
        return Suggestion("up", f"{held}: more memory is safer")
    return _by_processor(longest) if longest.accelerator is None else _by_accelerator(longest, longest.accelerator)


def _by_processor(use: PhaseUse) -> Suggestion:
    cores = use.cpu * use.cores
    said = f"{use.phase} used {cores:.1f} of {use.cores} cores"
    if use.cpu >= BUSY:
        return Suggestion("up", f"{said}: more cores would shorten it")
    if use.cores > 1 and use.cpu < MIDDLING:
        return Suggestion("down", f"{said}: a machine of {max(1, math.ceil(cores))} would do as much")
    return Suggestion("stay", f"{said}, which is in between" if use.cores > 1 else f"{said}, and one is the least")


def _by_accelerator(use: PhaseUse, busy: float) -> Suggestion:
    said = f"the accelerator worked {busy:.0%} of the time in {use.phase}"
    if busy >= BUSY:
        return Suggestion("up", f"{said}: a faster one, or more of them, would shorten it")
    if use.cpu >= BUSY:
        return Suggestion("up", f"{said} and the processor {use.cpu:.0%}: more cores would feed it")
    if busy < MIDDLING:
        return Suggestion("down", f"{said}: a smaller one would do as much")
    return Suggestion("stay", f"{said}, which is in between")


def to_json(found: Spending) -> dict[str, Any]:
    """Reviews, alerts and bills as plain JSON values; money is decimal text."""
    return {
        "reviews": [
            {
                "at": review.instant,
                "when": review.when,
                "seconds": list(review.seconds),
                "cost": [f"{each:f}" for each in review.cost],
                "limit_seconds": review.limit_seconds,
                "binding": review.binding,
                "in_danger": review.in_danger,
                "proposals": [vars(each) | {"saves_money": f"{each.saves_money:f}"} for each in review.proposals],
            }
            for review in found.reviews
        ],
        "alerts": [
            vars(alert) | {"spent": f"{alert.spent:f}", "allowance": f"{alert.allowance:f}"} for alert in found.alerts
        ],
        "billed": [
            {
                "period": period.name,
                "metered": f"{period.metered:f}",
                "billed": f"{period.billed:f}",
                "difference": f"{period.difference:f}",
            }
            for period in found.billed
        ],
        "watchdog": list(found.ended),
    }


def categories_json(found: Spending) -> dict[str, Any]:
    """Every kind of cost, those without any at zero."""
    return {
        each.category: {
            "spent": f"{each.spent:f}",
            "allowance": None if each.allowance is None else f"{each.allowance:f}",
            "estimated": f"{each.estimated:f}",
            "amount": None if each.amount is None else vars(each.amount),
        }
        for each in found.categories
    }


def energy_json(found: Spending) -> dict[str, Any] | None:
    """Energy, apart."""
    energy = found.energy
    if energy is None:
        return None
    cost = None if energy.cost is None else f"{energy.cost:f}"
    return {"kwh": energy.kwh, "cost": cost, "basis": energy.basis}


def use_json(found: Spending) -> dict[str, Any]:
    """The machine's use by phase, its idle money, and what follows from it."""
    return {
        "by_phase": {each.phase: vars(each) | {"idle_cost": f"{each.idle_cost:f}"} for each in found.use},
        "idle_seconds": math.fsum(each.idle_seconds for each in found.use),
        "idle_cost": f"{found.idle_cost:f}",
        "suggestion": None if found.suggestion is None else vars(found.suggestion),
    }


def _amounts(past: Sequence[Event]) -> dict[str, Amount]:
    """What was kept and what went over the network, of the categories that count it."""
    found = {}
    for kind, name, unit, divisor in (("storage", "gb_hours", "GB-hours", 1.0), ("transfer", "bytes", "GB", 1e9)):
        seen = [event.data for event in past if event.kind == kind]
        total = math.fsum(data[name] for data in seen) / divisor
        if total > 0:
            unpriced = math.fsum(data[name] for data in seen if data["cost"] is None) / divisor
            found[kind] = Amount(total, unit, unpriced)
    return found


def _categories(
    charges: Sequence[Mapping[str, Any]], allowances: Mapping[str, Decimal], amounts: Mapping[str, Amount]
) -> tuple[CategoryCost, ...]:
    named = dict.fromkeys([*CATEGORIES, *(charge["category"] for charge in charges)])
    return tuple(
        CategoryCost(
            category=category,
            spent=_sum(charge for charge in charges if charge["category"] == category),
            allowance=allowances.get(category),
            estimated=_sum(c for c in charges if c["category"] == category and c["estimated"]),
            amount=amounts.get(category),
        )
        for category in named
    )


def _sum(charges: Any) -> Decimal:
    return sum((Decimal(charge["amount"]) for charge in charges), Decimal(0))


def _energy(
    charges: Sequence[Mapping[str, Any]], measured: MeasuredEnergy | None, started: Mapping[str, Any]
) -> Energy | None:
    watts, price = started.get("power_watts"), started.get("electricity_per_kwh")
    seconds = math.fsum(charge["seconds"] or 0.0 for charge in charges if charge["category"] == "machine")
    kwh = energy_kwh(measured, seconds, None if watts is None else float(watts))
    if kwh is None:
        return None
    # Of a rented machine nobody told the price of its electricity.
    cost = None if watts is None or price is None else (Decimal(repr(kwh)) * Decimal(price)).quantize(Decimal("1e-9"))
    return Energy(kwh, cost, energy_basis(measured, seconds, None if watts is None else float(watts)))


def _alert(event: Event) -> Alert:
    data = event.data
    spent, allowance = Decimal(data["spent"]), Decimal(data["allowance"])
    text = sentence(event.project, data)
    return Alert(event.at, data["scope"], data["name"], int(data["level"]), spent, allowance, text)


def _reviews(own: Sequence[Event]) -> tuple[Reviewed, ...]:
    taken = {event.data["what"]: event.data["chosen"] for event in own if event.kind == "decision"}
    return tuple(_review(event, taken) for event in own if event.kind == "review")


def _review(event: Event, taken: Mapping[str, Any]) -> Reviewed:
    data = event.data
    proposals = tuple(
        Proposed(
            move=each["move"],
            says=each["says"],
            saves_seconds=each["saves_seconds"],
            saves_money=Decimal(each["saves_money"]),
            enough=each["enough"],
            allowed=each["allowed"],
            taken=each["move"] in taken and taken[each["move"]] == each["chosen"],
        )
        for each in data["proposals"]
    )
    return Reviewed(
        instant=event.at,
        when=data["when"],
        seconds=tuple(data["seconds"]),
        cost=tuple(Decimal(each) for each in data["cost"]),
        limit_seconds=data["limit_seconds"],
        binding=data["binding"],
        in_danger=data["in_danger"],
        proposals=proposals,
    )


def _use(own: Sequence[Event], price_per_hour: Decimal) -> tuple[PhaseUse, ...]:
    spans: dict[str, list[Mapping[str, Any]]] = {}
    for event in own:
        if event.kind == "usage" and event.data["seconds"] > 0:
            spans.setdefault(event.data["phase"], []).append(event.data)
    return tuple(_of_phase(phase, found, price_per_hour) for phase, found in spans.items())


def _of_phase(phase: str, spans: Sequence[Mapping[str, Any]], price_per_hour: Decimal) -> PhaseUse:
    seconds = math.fsum(span["seconds"] for span in spans)
    idle = math.fsum(span["idle_seconds"] for span in spans)
    measured = [span for span in spans if span["accelerator_seconds"] is not None]
    busy = math.fsum(span["accelerator_seconds"] for span in measured)
    return PhaseUse(
        phase=phase,
        seconds=seconds,
        cores=max(span["cores"] for span in spans),
        cpu=math.fsum(span["cpu_seconds"] for span in spans)
        / math.fsum(span["seconds"] * span["cores"] for span in spans),
        memory=math.fsum(span["resident_seconds"] for span in spans)
        / math.fsum(span["seconds"] * max(1, span["memory_bytes"]) for span in spans),
        memory_peak=max(span["peak_bytes"] / max(1, span["memory_bytes"]) for span in spans),
        read_bytes=_bytes(spans, "read_bytes"),
        written_bytes=_bytes(spans, "written_bytes"),
        idle_seconds=idle,
        idle_cost=(Decimal(repr(idle)) * price_per_hour / 3600).quantize(Decimal("1e-9")),
        accelerators=max(span["accelerators"] for span in spans),
        accelerator=busy / math.fsum(span["seconds"] for span in measured) if measured else None,
        accelerator_peak=max((span["accelerator_peak"] or 0.0 for span in measured), default=None),
    )


def _bytes(spans: Sequence[Mapping[str, Any]], name: str) -> int | None:
    known = [span[name] for span in spans if span[name] is not None]
    return sum(known) if len(known) == len(spans) else None


def _ended(event: Event) -> str:
    data = event.data
    if event.kind == "lease.ended":
        return f"process {data['pid']} was gone; its lease of machine {data['machine']} was ended by the watchdog"
    how = "was run" if data["status"] == 0 else f"failed with status {data['status']}: {data['said']}"
    return f"the stop command of machine {data['machine']} {how}"
