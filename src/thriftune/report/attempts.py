"""Every attempt of a project on one line: what was changed, what it cost, what it gained, its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from thriftune.events import Event
from thriftune.report.build import build, settings_of
from thriftune.report.model import Comparison, Estimate, ProjectSummary
from thriftune.report.returns import best_baseline
from thriftune.report.wording import as_text
from thriftune.timeline.told import OUTSIDE

BULKY = "training.step"  # the one kind of event that a list of attempts has no use for


@dataclass(frozen=True)
class AttemptLine:
    """One attempt.

    Args:
        changed: settings that differ from those of the attempt before; None where that is not known.
        cost: of this attempt alone.
        seconds: machine seconds of this attempt.
        quality: the tuned model on the test split, on `metric`.
        gain: against the strongest baseline.
    """

    attempt: int
    started_at: float
    outcome: str | None
    changed: tuple[str, ...] | None
    cost: Decimal
    currency: str
    seconds: float
    metric: str | None
    quality: Estimate | None
    gain: Comparison | None
    decision: str | None


def attempt_lines(project: ProjectSummary, events: Sequence[Event]) -> tuple[AttemptLine, ...]:
    """The project's attempts, oldest first.

    Args:
        project: what the project file says now.
        events: all events of the project; training steps are not needed.
    """
    kept = [event for event in events if event.kind != BULKY]
    numbers = sorted({event.attempt for event in kept} - {OUTSIDE})
    settings = [_settings(kept, number) for number in numbers]
    changes = [(), *(_changed(before, after) for before, after in pairwise(settings))]
    return tuple(_line(project, number, kept, changed) for number, changed in zip(numbers, changes, strict=True))


def settings_changed(before: Any, after: Any) -> tuple[str, ...]:
    """What differs between two trees of settings, a clause for each key: `budget.total: 0.50 → 1.00`."""
    old, new = dict(_flat(before)), dict(_flat(after))
    keys = dict.fromkeys([*old, *new])
    return tuple(_clause(key, old, new) for key in keys if old.get(key) != new.get(key))


def _line(
    project: ProjectSummary, attempt: int, events: Sequence[Event], changed: tuple[str, ...] | None
) -> AttemptLine:
    report = build(project, attempt, events)
    return AttemptLine(
        attempt=attempt,
        started_at=report.started_at,
        outcome=report.outcome,
        changed=changed,
        cost=report.cost.this_attempt,
        currency=report.cost.currency,
        seconds=report.time.metered_s,
        metric=report.metric,
        quality=report.tuned.metrics.get(report.metric or "") if report.tuned else None,
        gain=best_baseline(report.comparisons, report.metric),
        decision=report.verdict.decision if report.verdict else None,
    )


def _settings(events: Sequence[Event], attempt: int) -> Any:
    """The recipe and the budget with which the attempt was started or last taken up; None where none was recorded."""
    starts = [event.data for event in events if event.attempt == attempt and event.kind == "attempt.started"]
    recipe = settings_of(starts[-1].get("recipe")) if starts else None
    return {**recipe, "budget": {"total": starts[-1]["budget"]}} if isinstance(recipe, Mapping) else None


def _changed(before: Any, after: Any) -> tuple[str, ...] | None:
    return None if before is None or after is None else settings_changed(before, after)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every scalar with its dotted key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _flat(item, f"{key}[{place}]")
    else:
        yield key, as_text(value)


def _clause(key: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    if key not in old:
        return f"{key}: {new[key]} (new)"
    return f"{key}: {old[key]} → {new[key]}" if key in new else f"{key}: {old[key]} (gone)"
