"""What the report takes from the project file, which stands later in the order of imports and is known by its shape."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from thriftune.report.model import Power, ProjectSummary, Target, Worth
from thriftune.timeline.options import TimelineOptions

YEAR_DAYS = 365.25


class StatedHorizon(Protocol):
    """A stretch of the calendar, such as 12 months."""

    @property
    def count(self) -> Decimal:
        """How many."""
        ...

    @property
    def unit(self) -> str:
        """Of what: `month`."""
        ...

    @property
    def days(self) -> Decimal:
        """Its length in days."""
        ...


class StatedWorth(Protocol):
    """`objective.worth` of the project file."""

    @property
    def discount(self) -> float:
        """A year's discount of later money, as a share."""
        ...

    def a_point(self) -> Decimal:
        """Money for a point in each period."""
        ...

    @property
    def per(self) -> str:
        """The period that it is earned in, or `once`."""
        ...

    @property
    def horizon(self) -> StatedHorizon:
        """How long it counts."""
        ...

    def periods(self) -> Decimal:
        """The horizon in periods."""
        ...


class StatedTarget(Protocol):
    """`objective.target` of the project file."""

    @property
    def metric(self) -> str | None:
        """The metric that the project is judged by."""
        ...

    @property
    def at_least(self) -> float | None:
        """The value that it should reach."""
        ...


class StatedObjective(Protocol):
    """`objective` of the project file."""

    @property
    def task(self) -> str:
        """`classify` or `chat`."""
        ...

    @property
    def target(self) -> StatedTarget | None:
        """What should be reached."""
        ...

    @property
    def worth(self) -> StatedWorth | None:
        """What a point is worth."""
        ...


class StatedMachine(Protocol):
    """`compute.local` of the project file."""

    @property
    def power_watts(self) -> Decimal:
        """What it draws."""
        ...

    @property
    def grams_per_kwh(self) -> Decimal:
        """Of carbon dioxide, for its electricity."""
        ...

    @property
    def grams_are_stated(self) -> bool:
        """Whether the project file says so, and not the default."""
        ...


class StatedCompute(Protocol):
    """`compute` of the project file."""

    @property
    def machine(self) -> str:
        """`local`, or a row of the price table."""
        ...

    @property
    def local(self) -> StatedMachine:
        """This machine."""
        ...


class StatedProject(Protocol):
    """The project file."""

    @property
    def compute(self) -> StatedCompute:
        """The machine."""
        ...

    @property
    def name(self) -> str:
        """The project's name."""
        ...

    @property
    def objective(self) -> StatedObjective:
        """What the model is for."""
        ...

    @property
    def timeline(self) -> TimelineOptions:
        """People, working hours and buffers."""
        ...

    @property
    def model_references(self) -> tuple[str, ...]:
        """The models to tune."""
        ...


def summarise(file: StatedProject) -> ProjectSummary:
    """The part of a project file that a report shows or reckons with."""
    target, worth = file.objective.target, file.objective.worth
    return ProjectSummary(
        name=file.name,
        task=file.objective.task,
        model=", ".join(file.model_references),
        target=None if target is None else Target(target.metric, target.at_least),
        worth=None if worth is None else _worth(worth),
        timeline=file.timeline,
        power=_power(file.compute),
    )


def _power(compute: StatedCompute) -> Power | None:
    """What this machine is taken to draw; nothing is known of a rented one."""
    if compute.machine != "local":
        return None
    local = compute.local
    return Power(float(local.power_watts), float(local.grams_per_kwh), local.grams_are_stated)


def _worth(worth: StatedWorth) -> Worth:
    if worth.per == "once":
        return Worth(worth.a_point(), "once", "once and for all", Decimal(1))
    count, unit = worth.horizon.count, worth.horizon.unit
    horizon = f"{count.normalize():f} {unit}{'' if count == 1 else 's'}"
    if worth.discount:
        horizon += f", discounted at {100 * worth.discount:g} % a year"
    years = float(worth.horizon.days / worth.periods()) / YEAR_DAYS
    return Worth(worth.a_point(), worth.per, horizon, worth.periods(), worth.discount, years)
