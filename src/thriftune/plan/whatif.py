"""What if: the same project under another budget, deadline, target or number of rows. Nothing is changed by asking."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from thriftune.money.amounts import shown_money
from thriftune.plan.plan import Limits, Plan
from thriftune.plan.review import Proposal

LOWER_IS_BETTER = ("loss", "perplexity", "ece")


@dataclass(frozen=True)
class Question:
    """What is asked; None leaves it as the project file has it.

    Args:
        budget: of the whole project, what is spent already included.
        deadline: a duration from the first run, or an instant.
        target: of the project's metric.
        rows: of the data, in all splits.
    """

    budget: Decimal | None = None
    deadline: timedelta | datetime | None = None
    target: float | None = None
    rows: int | None = None

    @property
    def asks(self) -> bool:
        """Whether anything is asked."""
        return self != Question()


@dataclass(frozen=True)
class Reached:
    """What an earlier attempt reached of a target.

    Args:
        attempt: its number.
        value: of the tuned model on the test split, with its interval; None where it was not evaluated.
        step: the first step at which validation was as good as the target; None where it never was.
        steps: that it trained.
        best: the best validation; None where there was none.
    """

    attempt: int
    value: float | None
    low: float | None
    high: float | None
    step: int | None
    steps: int
    best: float | None


@dataclass(frozen=True)
class Answer:
    """The plan as it is, and as it would be.

    Args:
        question: what was asked.
        before: the plan by the project file.
        after: the plan as asked.
        rows: of the data, before and after.
        epochs: of the whole plan.
        most_rows: that would fit without cutting training short; None where all fit, or not even one does.
        metric: that the target is of.
        reached: what earlier attempts reached of the target, the latest first.
        target_plan: the plan of as many steps as the latest attempt needed for the target in validation; None where
            none reached it.
        proposals: what could be given up, where the plan by the project file may not fit whole.
    """

    question: Question
    before: Plan
    after: Plan
    rows: tuple[int, int]
    epochs: int
    most_rows: int | None = None
    metric: str = ""
    reached: tuple[Reached, ...] = ()
    target_plan: Plan | None = None
    proposals: tuple[Proposal, ...] = ()

    @property
    def outcome(self) -> str:
        """`whole`, `cut`, `in doubt` (what nobody has measured here decides) or `not feasible`."""
        if self.after.surely_needed > self.after.limits.seconds:
            return "not feasible"
        if self.after.least_seconds > self.after.limits.seconds:
            return "in doubt"
        return "whole" if self.after.fits_whole else "cut"

    def said(self) -> list[str]:
        """The answer in sentences."""
        return [*self._changes(), self._outcome(), *self._target()]

    def _changes(self) -> list[str]:
        asked, limits = self.question, self.after.limits
        said = []
        if asked.budget is not None:
            said.append(
                f"a budget of {shown_money(asked.budget, limits.currency)} would leave "
                f"{_money(limits.money_left, limits.currency)} instead of "
                f"{_money(self.before.limits.money_left, limits.currency)}"
            )
        if asked.deadline is not None:
            said.append(
                f"the deadline would be {_seconds(limits.time_seconds)} away instead of "
                f"{_seconds(self.before.limits.time_seconds)}"
            )
        if asked.rows is not None:
            said.append(
                f"{self.rows[1]:,} rows instead of {self.rows[0]:,}: {self.after.full_steps:,} steps instead of "
                f"{self.before.full_steps:,}"
            )
        if self.after.planned_rows != self.before.planned_rows:
            said.append(
                f"each model would be asked {self.after.planned_rows:,} of {self.after.full_rows:,} test rows instead "
                f"of {self.before.planned_rows:,} of {self.before.full_rows:,}"
            )
        return said

    def _outcome(self) -> str:
        plan = self.after
        budget = shown_money(plan.minimum_budget(), plan.limits.currency)
        least = f"a budget of {budget} and a deadline of {plan.minimum_time():,.0f} s"
        more = "" if self.most_rows is None else f"; up to {self.most_rows:,} rows would fit whole"
        if self.outcome == "not feasible":
            return f"it could not end with an evaluated model; the least that works is {least}{more}"
        if self.outcome == "in doubt":
            return f"whether it could end with an evaluated model is in doubt; what would do is {least}{more}"
        if self.outcome == "whole":
            return f"all {plan.full_steps:,} steps ({_epochs(self.epochs)}) would fit"
        share = plan.planned_steps / plan.full_steps if plan.full_steps else 0.0
        return (
            f"the {plan.limits.binding} would cut training to {plan.planned_steps:,} of {plan.full_steps:,} steps, "
            f"{share * self.epochs:.1f} of {_epochs(self.epochs)}{more}"
        )

    def _target(self) -> list[str]:
        target = self.question.target
        if target is None:
            return []
        said = [
            f"a target of {self.metric} {target:g} changes the verdict, not what the run costs: quality is not forecast"
        ]
        if not self.reached:
            return [*said, "no earlier attempt of this project was validated or evaluated, so nothing tells of it"]
        for found in self.reached:
            said += [_told(found, self.metric, target)]
        if self.target_plan is not None:
            steps, seconds = self.target_plan.planned_steps, self.target_plan.full
            cost = Decimal(repr(seconds.p50)) * self.target_plan.limits.price_per_hour / 3600
            said.append(
                f"as many steps ({steps:,}) would take {seconds.p50:,.0f} s ({seconds.p5:,.0f} to {seconds.p95:,.0f}) "
                f"and {shown_money(cost, self.after.limits.currency)}"
            )
        return said


def asked_limits(limits: Limits, question: Question, total: Decimal, begun: bool, now: float) -> Limits:
    """The limits as asked.

    Args:
        limits: by the project file, as of now.
        question: what is asked.
        total: the project's budget.
        begun: whether the deadline was fixed by a first run, so that time before this process counts.
        now: the instant, in seconds since the epoch.
    """
    if question.budget is not None and limits.money_left is not None:
        left = max(Decimal(0), question.budget - (total - limits.money_left))
        price = limits.price_per_hour
        works = max(Decimal(0), left - limits.to_buy - limits.to_keep)
        limits = replace(limits, money_left=left, money_seconds=float(works / price * 3600) if price else math.inf)
    if isinstance(question.deadline, timedelta):
        used = limits.seconds_used + (limits.elapsed_before if begun else 0.0)
        limits = replace(limits, time_seconds=max(0.0, question.deadline.total_seconds() - used))
    elif question.deadline is not None:
        limits = replace(limits, time_seconds=max(0.0, question.deadline.timestamp() - now))
    return limits


def most_rows(plan_of: Callable[[int], Plan], rows: int) -> int | None:
    """The most rows, below `rows`, whose whole plan fits; None where not even one does."""
    if not plan_of(1).fits_whole:
        return None
    low, high = 1, rows
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if plan_of(middle).fits_whole else (low, middle)
    return low


def reached(events: Iterable[Any], metric: str, target: float) -> tuple[Reached, ...]:
    """What earlier attempts reached of a target, the latest first; those without any figure are left out.

    Args:
        events: the project's.
        metric: which figure.
        target: its smallest value, or its largest where lower is better.
    """
    by_attempt: dict[int, list[Any]] = {}
    for event in events:
        by_attempt.setdefault(event.attempt, []).append(event)
    found = [_of_attempt(number, own, metric, target) for number, own in sorted(by_attempt.items(), reverse=True)]
    return tuple(one for one in found if one.value is not None or one.best is not None)


def good_enough(value: float, metric: str, target: float) -> bool:
    """Whether a figure meets the target."""
    return value <= target if metric in LOWER_IS_BETTER else value >= target


def _of_attempt(number: int, events: Sequence[Any], metric: str, target: float) -> Reached:
    test: dict[str, Any] | None = None
    step, best, steps = None, None, 0
    for event in events:
        data = event.data
        if event.kind == "evaluation.scores" and data["predictor"] == "tuned" and data["split"] == "test":
            test = data["metrics"].get(metric)
        elif event.kind == "training.validation":
            steps = max(steps, data["step"])
            value = data["loss"] if metric == "loss" else data["metrics"].get(metric)
            if value is None:
                continue
            best = value if best is None else min(best, value) if metric in LOWER_IS_BETTER else max(best, value)
            if step is None and good_enough(value, metric, target):
                step = data["step"]
    value, low, high = (None if test is None else test.get(name) for name in ("value", "low", "high"))
    return Reached(number, value, low, high, step, steps, best)


def _told(found: Reached, metric: str, target: float) -> str:
    said = f"attempt {found.attempt}"
    if found.value is not None:
        interval = "" if found.low is None or found.high is None else f" ({found.low:.3f} to {found.high:.3f})"
        met = "which meets it" if good_enough(found.value, metric, target) else "which does not meet it"
        said += f" came to {found.value:.3f}{interval} on the test rows, {met}"
    if found.step is not None:
        join = ";" if found.value is not None else ""
        said += f"{join} validation was there at step {found.step:,} of {found.steps:,}"
    elif found.best is not None:
        join = ";" if found.value is not None else ""
        said += f"{join} validation never got there, {found.best:.3f} at best"
    return said


def _money(amount: Decimal | None, currency: str) -> str:
    return "no limit" if amount is None else shown_money(amount, currency)


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if math.isfinite(seconds) else "no time"


def _epochs(number: int) -> str:
    return f"{number} epoch{'' if number == 1 else 's'}"
