"""The timeline's part of the project file: people's tasks, when people work, and how a release is rolled out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, field_validator, model_validator

from thriftune.options import Options, Seconds, parse_deadline
from thriftune.timeline.public_holidays import public_holidays

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MACHINE_PHASES = ("data", "baselines", "set-up", "search", "training", "evaluation")
ROLLOUT = "rollout {share} %"
MIDNIGHT = 24 * 60

_SPAN = re.compile(r"(\d{1,2}):(\d{2}) *[-–] *(\d{1,2}):(\d{2})")
_SHARE = re.compile(r"(\d{1,2}(?:\.\d+)?) *%")


@dataclass(frozen=True)
class Span:
    """Hours of a day, in minutes from its beginning."""

    start: int
    end: int

    def __str__(self) -> str:
        hours = (f"{minute // 60:02d}:{minute % 60:02d}" for minute in (self.start, self.end))
        return "-".join(hours)


def parse_spans(value: Any) -> tuple[Span, ...]:
    """Working hours of a day, `09:00-17:00` or a list of such spans, in minutes of the day.

    Raises:
        ValueError: with what was expected, when they are none.
    """
    if isinstance(value, tuple) and value and all(isinstance(one, Span) for one in value):
        return value
    spans: list[Span] = []
    for one in value if isinstance(value, list | tuple) else [value]:
        match = _SPAN.fullmatch(str(one).strip())
        if match is None:
            raise ValueError("hours such as 09:00-17:00, or a list of them")
        hours = [int(part) for part in match.groups()]
        start, end = 60 * hours[0] + hours[1], 60 * hours[2] + hours[3]
        if hours[1] > 59 or hours[3] > 59 or not start < end <= MIDNIGHT or (spans and start < spans[-1].end):
            raise ValueError("hours from 00:00 to 24:00, each span after the one before")
        spans.append(Span(start, end))
    if not spans:
        raise ValueError("at least one span of hours, such as 09:00-17:00")
    return tuple(spans)


def parse_buffer(value: Any) -> float:
    """A buffer, `15%` or 0.15, as a share from 0.10 to 0.20.

    Raises:
        ValueError: with what was expected, when it is none.
    """
    match = _SHARE.fullmatch(str(value).strip())
    plain = re.fullmatch(r"0?\.\d{1,6}", str(value).strip())
    share = float(match[1]) / 100 if match else float(plain[0]) if plain else -1.0
    if not 0.10 <= share <= 0.20:
        raise ValueError("a buffer from 10% to 20%")
    return share


def parse_day(value: Any) -> date:
    """A day, `2026-12-25`.

    Raises:
        ValueError: with what was expected, when it is none.
    """
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value).strip())
    except ValueError:
        raise ValueError("a day such as 2026-12-25") from None


def parse_instant(value: Any) -> datetime:
    """An instant, `2026-12-01T09:00Z`; a time without a zone is UTC.

    Raises:
        ValueError: with what was expected, when it is none.
    """
    expected = "an instant such as 2026-12-01T09:00Z"
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    try:
        instant = parse_deadline(value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip()))
    except (ValueError, OverflowError):
        raise ValueError(expected) from None
    if not isinstance(instant, datetime):
        raise ValueError(expected)
    return instant


def _list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Day = Annotated[date, BeforeValidator(parse_day)]
Instant = Annotated[datetime, BeforeValidator(parse_instant)]
Names = Annotated[tuple[str, ...], BeforeValidator(_list)]


class WorkingHours(Options):
    """When people work."""

    days: Names = Field(default=("mon", "tue", "wed", "thu", "fri"), description="Monday to Friday")
    hours: Annotated[tuple[Span, ...], BeforeValidator(parse_spans)] = Field(
        default=(Span(9 * 60, 17 * 60),),
        description="Nine to five; a list such as [09:00-12:30, 13:30-17:00] has breaks",
    )
    time_zone: str = Field(default="UTC", description="A name such as Europe/Amsterdam; summer time is heeded")
    country: str = Field(default="", description="No public holidays; `NL` or `DE-BY` brings a country's or region's")
    holidays: tuple[Day, ...] = Field(default=(), description="No days off are known beyond the country's")

    @field_validator("days")
    @classmethod
    def _known_days(cls, days: tuple[str, ...]) -> tuple[str, ...]:
        if not days or any(day not in DAYS for day in days):
            raise ValueError(f"one or more of {', '.join(DAYS)}")
        return days

    @field_validator("country")
    @classmethod
    def _known_country(cls, code: str) -> str:
        if not re.fullmatch(r"([A-Z]{2}(-[A-Z0-9]{1,3})?)?", code):
            raise ValueError("an ISO code of a country, with a region after a dash, such as NL or DE-BY")
        if code and find_spec("holidays") is not None:  # where it is not installed, its first use says so
            public_holidays(code, 2026)
        return code

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("the name of a time zone, such as Europe/Amsterdam or UTC") from None
        return name


class PersonTask(Options):
    """Something that a person must do."""

    name: str = Field(min_length=1, max_length=80, description="What is to be done")
    who: str = Field(min_length=1, max_length=80, description="Who does it; a person does one thing at a time")
    hours: float = Field(gt=0, le=10_000, description="Working hours that it takes as likely as not")
    most_hours: float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="Hours that it exceeds one time in twenty: half as much again, an assumption",
    )
    after: Names = Field(default=(), description="It can begin at once")
    before: Names = Field(default=(), description="Nothing waits for it")
    due: Instant | None = Field(default=None, description="No date is promised: it follows from the plan")
    started: Instant | None = Field(default=None, description="It is not begun")
    done: Instant | None = Field(default=None, description="It is not done")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most_hours is not None and self.most_hours < self.hours:
            raise ValueError(f"most_hours of at least hours, {self.hours:g} (found {self.most_hours:g})")
        if self.started is not None and self.done is not None and self.done < self.started:
            raise ValueError("done after started")
        return self


class Rollout(Options):
    """How a release gets to its users."""

    shares: tuple[int, ...] = Field(default=(10, 25, 50, 100), description="Per cent of the users, a step each")
    each: Seconds = Field(gt=0, le=366 * 86_400, description="How long each step is watched before the next")

    @field_validator("shares")
    @classmethod
    def _rising(cls, shares: tuple[int, ...]) -> tuple[int, ...]:
        if not shares or list(shares) != sorted(set(shares)) or shares[0] < 1 or shares[-1] != 100:
            raise ValueError("rising shares from 1 to 100, the last 100")
        return shares


class TimelineOptions(Options):
    """People, working hours and buffers."""

    buffer: Annotated[float, BeforeValidator(parse_buffer)] = Field(
        default=0.15, description="Kept free after each phase, as a share of it"
    )
    starts: Instant | None = Field(default=None, description="As soon as what comes before allows")
    people: WorkingHours = Field(default_factory=WorkingHours, description="When people work")
    tasks: tuple[PersonTask, ...] = Field(default=(), description="Nobody has to do anything")
    rollout: Rollout | None = Field(default=None, description="Not planned: say how long each step lasts")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [task.name for task in self.tasks]
        known = {*MACHINE_PHASES, *names, *self.rollout_phases}
        twice = sorted({name for name in names if names.count(name) > 1} | (set(names) & set(MACHINE_PHASES)))
        if twice:
            raise ValueError(f"a name of its own for each task (found {twice[0]} twice)")
        for task in self.tasks:
            for other in (*task.after, *task.before):
                if other not in known:
                    raise ValueError(f"tasks after and before {', '.join(sorted(known))} (found {other})")
        circle = self._circle()
        if circle:
            raise ValueError(f"tasks of which each can end before the next begins (found {' > '.join(circle)})")
        return self

    def _circle(self) -> list[str]:
        """Names of which each waits for the one before, the last being the first; empty where there are none."""
        line = [*MACHINE_PHASES, *self.rollout_phases]
        waits = {name: set(line[:place][-1:]) for place, name in enumerate(line)}
        last: dict[str, str] = {}
        for task in self.tasks:
            waits[task.name] = {*task.after, *([last[task.who]] if task.who in last else [])}
            last[task.who] = task.name
        for task in self.tasks:
            for other in task.before:
                waits[other].add(task.name)
        try:
            TopologicalSorter(waits).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    @property
    def rollout_phases(self) -> tuple[str, ...]:
        """The names of the steps of the rollout."""
        return () if self.rollout is None else tuple(ROLLOUT.format(share=share) for share in self.rollout.shares)
