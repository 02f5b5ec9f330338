"""What a report holds: plain frozen values, each read from the event stream or the ledger, none invented.

A value that was not measured is `None` (or an empty tuple), never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from thriftune.report.spending import Spending
from thriftune.timeline.options import TimelineOptions
from thriftune.timeline.timeline import Timeline

if TYPE_CHECKING:
    from thriftune.plan import compare


@dataclass(frozen=True)
class Worth:
    """What one point (0.01 of a 0…1 metric) is worth to the user.

    Args:
        per_point: money for one point held for one period, by the point, the request and the error together.
        per: the period's name: "month", or "once".
        horizon: how long the gain counts, as the user wrote it: "12 months".
        periods: the horizon in periods.
        discount: of later money, a share a year.
        period_years: a period's length; 0 for once.
    """

    per_point: Decimal
    per: str
    horizon: str
    periods: Decimal
    discount: float = 0.0
    period_years: float = 0.0


@dataclass(frozen=True)
class Power:
    """What a machine is taken to draw: stated, not measured.

    Args:
        watts: under load.
        grams_per_kwh: of carbon dioxide, for its electricity.
        grams_are_stated: by the project file; else they are the default.
    """

    watts: float
    grams_per_kwh: float
    grams_are_stated: bool = False


@dataclass(frozen=True)
class Compared:
    """The same run elsewhere, as `thriftune plan --compare` last had it.

    Args:
        instant: when that was.
        ways: that were compared, of which `comparison` holds those that were shown.
    """

    instant: float
    ways: int
    comparison: compare.Comparison


@dataclass(frozen=True)
class Target:
    """The metric that the project is judged by (None: the task's own), and the value it should reach (None: any)."""

    metric: str | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class ProjectSummary:
    """What the report needs of the project file and cannot read from the events."""

    name: str
    task: str
    model: str
    target: Target | None = None
    worth: Worth | None = None
    timeline: TimelineOptions = field(default_factory=TimelineOptions)
    power: Power | None = None


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval, where one was computed."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scores:
    """How one predictor did on one split."""

    predictor: str
    split: str
    rows: int | None
    metrics: Mapping[str, Estimate]
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_part: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The tuned model against one baseline on the same rows: `difference` is its gain, positive where it is better."""

    baseline: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float | None
    outcome: str
    confidence: float | None = None
    part: str = ""
    rows: int | None = None


@dataclass(frozen=True)
class Verdict:
    """`decision` is ship, hold, reject or cannot tell; `reasons` are sentences."""

    decision: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class PhaseCost:
    """One phase's money: what it was allowed, what it spent, what was moved in and out by decision."""

    phase: str
    allowance: Decimal | None
    spent: Decimal
    moved_in: Decimal
    moved_out: Decimal
    estimated: Decimal
    seconds: float


@dataclass(frozen=True)
class Move:
    """A recorded decision about the budget: money moved between phases, or added (source None)."""

    instant: float
    source: str | None
    target: str | None
    amount: Decimal
    reason: str


@dataclass(frozen=True)
class Cost:
    """The project's money up to and with this attempt.

    Args:
        budget: the total, additions included.
        spent: by all attempts up to this one.
        this_attempt: by this attempt alone.
        price_per_hour: of the machine.
        ledger_difference: ledger minus charge events; anything but zero is a defect, and shown.
    """

    budget: Decimal | None
    spent: Decimal
    this_attempt: Decimal
    currency: str
    price_per_hour: Decimal | None
    phases: tuple[PhaseCost, ...]
    moves: tuple[Move, ...]
    ledger_difference: Decimal | None


@dataclass(frozen=True)
class TimeUse:
    """Seconds against the deadline.

    Args:
        deadline_s: from the project's first start to its deadline; None without one.
        used_s: from the project's first start to the last event of this attempt, downtime included.
        metered_s: machine seconds charged to this attempt.
        by_phase: machine seconds charged to this attempt, by phase.
        by_unit: the same by (phase, kind of unit), for where the time went.
        waited_s: waited for a machine that other projects had, which costs nothing; part of `used_s`.
    """

    deadline_s: float | None
    used_s: float
    metered_s: float
    by_phase: Mapping[str, float]
    by_unit: Mapping[tuple[str, str], float]
    waited_s: float = 0.0


@dataclass(frozen=True)
class ForecastScore:
    """A forecast made before the work, and what the work really took (None: not measured).

    `signed_error` and `width_90` are shares of the median: +0.10 is a tenth more than foretold.
    """

    phase: str
    quantity: str
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    basis: str
    actual: float | None

    @property
    def inside_50(self) -> bool | None:
        """Whether what happened lies in the 50 % interval; None when it was not measured."""
        return None if self.actual is None else self.p25 <= self.actual <= self.p75

    @property
    def inside_90(self) -> bool | None:
        """Whether what happened lies in the 90 % interval; None when it was not measured."""
        return None if self.actual is None else self.p5 <= self.actual <= self.p95

    @property
    def signed_error(self) -> float | None:
        """(actual - median) / median; None when it was not measured or nothing was foretold."""
        return None if self.actual is None or self.p50 == 0 else (self.actual - self.p50) / self.p50

    @property
    def width_90(self) -> float | None:
        """Width of the 90 % interval as a share of the median."""
        return None if self.p50 == 0 else (self.p95 - self.p5) / self.p50


@dataclass(frozen=True)
class DataStep:
    """One line of the data ledger: `rows_in == kept + sum(dropped)` when it balances."""

    step: str
    rows_in: int
    kept: int
    dropped: Mapping[str, int]
    changed: int
    notes: str

    @property
    def balances(self) -> bool:
        """Whether every row that came in was kept or dropped for a named reason."""
        return self.rows_in == self.kept + sum(self.dropped.values())


@dataclass(frozen=True)
class Tokens:
    """What the model reads of the rows, and what was cut because a row is longer than it reads."""

    train: int
    validation: int
    cut_tokens: int
    cut_rows: int
    cut_words: int = 0


@dataclass(frozen=True)
class Warned:
    """Something that the user should know: where it comes from, and what it is."""

    where: str
    what: str


@dataclass(frozen=True)
class Decision:
    """A choice that was recorded before it took effect; `at_step` 0 is outside training."""

    instant: float
    at_step: int
    what: str
    chosen: Any
    because: str


@dataclass(frozen=True)
class TrainingStep:
    """One optimiser step: mean loss, learning rate, tokens with and without padding, seconds."""

    step: int
    planned: int | None
    epoch: float | None
    loss: float | None
    rate: float | None
    tokens: int | None
    padded_tokens: int | None
    seconds: float | None


@dataclass(frozen=True)
class Validation:
    """One look at the validation split during training."""

    step: int
    loss: float | None
    metrics: Mapping[str, float]
    best: bool


@dataclass(frozen=True)
class PartsRow:
    """A row of the forgetting matrix: what the model made of each part of the data after it had learned one.

    Args:
        after: the part; empty before the first.
        parts: each part's validation figures.
    """

    step: int
    after: str
    parts: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Tried:
    """A configuration that a search has looked at.

    Args:
        values: option by name.
        expected: its score at the end of its training, as the search expects it by all looks.
        deviation: the standard deviation of that; None where the search's way gives none.
        looks: how many were paid for.
        seconds: that they took.
        ended: whether a training of it was seen to its end.
        trial: its number in the search; None where none was recorded.
        serving: parameters that a request runs through; None where it was not recorded.
        on_frontier: whether nothing that was tried is both cheaper to serve and better.
    """

    values: Mapping[str, Any]
    expected: float
    deviation: float | None
    looks: int
    seconds: float
    ended: bool
    trial: int | None = None
    serving: float | None = None
    on_frontier: bool = False


@dataclass(frozen=True)
class Searched:
    """A search: what it took and what it ended with.

    Args:
        winner: option by name.
        configurations: what was looked at, the most promising first.
        seconds: of all looks.
        because: why it ended.
        best: after each look of this attempt: seconds so far, and the expected score of the best by then.
        chosen_because: why the winner is the winner.
        top: the best expected score's values, option by name; the winner's where that is the one.
        saved_seconds: what seeing the trainings that were left to their end would have taken, estimated.
        importance: share of the differences in expected score that each option makes, the largest first.
        nested: of each outer fold: the search's score on rows that it did not see.
    """

    winner: Mapping[str, Any]
    configurations: tuple[Tried, ...]
    seconds: float
    because: str
    best: tuple[tuple[float, float], ...]
    chosen_because: str = ""
    top: Mapping[str, Any] = field(default_factory=dict)
    saved_seconds: float = 0.0
    importance: Mapping[str, float] = field(default_factory=dict)
    nested: tuple[float, ...] = ()

    @property
    def left(self) -> int:
        """Configurations of which no training was seen to its end."""
        return sum(not tried.ended for tried in self.configurations)


@dataclass(frozen=True)
class Span:
    """When a stage ran; `finished_at` None while it is not over; `interrupted` when its process ended inside it."""

    stage: str
    started_at: float
    finished_at: float | None = None
    reused: bool = False
    interrupted: bool = False


@dataclass(frozen=True)
class Look:
    """One look at a split that is spent by looking; `looks` counts those by models that may ship, up to this one."""

    split: str
    predictor: str
    looks: int
    attempt: int
    candidate: str = ""


@dataclass(frozen=True)
class Breach:
    """A unit that took longer than its reserved upper bound, with its cause."""

    what: str
    upper_s: float | None
    actual_s: float | None
    cause: str


@dataclass(frozen=True)
class Utilisation:
    """How well the training used its time; None where no step was recorded."""

    steps: int
    planned: int | None
    step_seconds: float | None
    tokens: int | None
    tokens_per_second: float | None
    padding_share: float | None


@dataclass(frozen=True)
class Environment:
    """Where and with what the attempt ran, as recorded at its start."""

    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    seed: int | None
    recipe: Any  # settings as plain values, or a text that names them
    project_file: str


@dataclass(frozen=True)
class Return:
    """What the gain over the best baseline is worth against what it cost.

    `status` is "measured", "not proven" (the interval holds zero), "no gain", "no worth stated", "not in points"
    (the metric is not on a 0…1 scale) or "not measured" (no comparison). Figures that do not follow are None.

    Args:
        points_gained: metric difference × 100, with `points_low` and `points_high` from the comparison's interval.
        value: points × worth of a point × periods in the horizon, with its interval.
        ratio: value ÷ cost, with its interval.
        cost_per_point: cost ÷ points gained.
        break_even_points: points that would just pay the cost over the horizon.
        break_even_periods: periods until the measured gain has paid the cost.
    """

    status: str
    cost: Decimal
    metric: str | None = None
    baseline: str | None = None
    points_gained: float | None = None
    points_low: float | None = None
    points_high: float | None = None
    value: Decimal | None = None
    value_low: Decimal | None = None
    value_high: Decimal | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    cost_per_point: Decimal | None = None
    break_even_points: float | None = None
    break_even_periods: float | None = None


@dataclass(frozen=True)
class PhaseDuration:
    """How long a phase took in an attempt."""

    attempt: int
    phase: str
    seconds: float


@dataclass(frozen=True)
class Previous:
    """The gain over the tuned model of an earlier attempt, in the metric's unit."""

    attempt: int
    gain: Estimate


@dataclass(frozen=True)
class Report:
    """Everything that the terminal, the HTML page and `report --json` show of one attempt."""

    project: ProjectSummary
    attempt: int
    metric: str | None
    started_at: float
    as_of: float
    outcome: str | None
    message: str
    verdict: Verdict | None
    tuned: Scores | None
    baselines: tuple[Scores, ...]
    comparisons: tuple[Comparison, ...]
    part_comparisons: tuple[Comparison, ...]
    cost: Cost
    time: TimeUse
    forecasts: tuple[ForecastScore, ...]
    data_ledger: tuple[DataStep, ...]
    tokens: Tokens | None
    warnings: tuple[Warned, ...]
    decisions: tuple[Decision, ...]
    search: Searched | None
    steps: tuple[TrainingStep, ...]
    validations: tuple[Validation, ...]
    forgetting: tuple[PartsRow, ...]
    spans: tuple[Span, ...]
    looks: tuple[Look, ...]
    breaches: tuple[Breach, ...]
    utilisation: Utilisation
    environment: Environment
    returns: Return
    previous: Previous | None
    """The gain over the model before; None for the first, for another number of test rows, or without intervals."""
    timeline: Timeline | None
    """The attempt in time; None where no plan was recorded."""
    durations: tuple[PhaseDuration, ...]
    compared: Compared | None
    """Of every phase, in this attempt and all before it."""
    inherited: Mapping[str, int]
    """Stages whose results this attempt took over unchanged, with the attempt that computed them."""
    spending: Spending = field(default_factory=Spending)
