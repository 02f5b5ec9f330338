"""What the report takes from the project file, which stands later in the order of imports and is known by its shape."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from thriftune.report.model import ProjectSummary, Target, Worth
from thriftune.timeline.options import TimelineOptions


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


class StatedWorth(Protocol):
    """`objective.worth` of the project file."""

    @property
    def per_point(self) -> Decimal:
        """Money for a point."""
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


class StatedProject(Protocol):
    """The project file."""

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
    )


def _worth(worth: StatedWorth) -> Worth:
    if worth.per == "once":
        return Worth(worth.per_point, "once", "once and for all", Decimal(1))
    count, unit = worth.horizon.count, worth.horizon.unit
    horizon = f"{count.normalize():f} {unit}{'' if count == 1 else 's'}"
    return Worth(worth.per_point, worth.per, horizon, worth.periods())
