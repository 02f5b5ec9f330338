"""The test split is spent, not used: each tuned model judged by the same rows takes from one error budget.

Who tries twenty models on one test set and ships the one that looks best ships luck. So each look has a number, and
its comparison may err only by its share of the budget: half of it for the first look, the other half in equal parts
for the others that are allowed. The shares sum to the budget, so the chance that *any* of the looks calls an equal
model better is at most the budget (Bonferroni's inequality), however the models were chosen, and a first look, which
is what most projects ever need, keeps most of its power. When the looks are used up, only fresh rows help.

A baseline's look is recorded and takes nothing: a baseline is never shipped. A model that was looked at before is
not counted again. Rows are fresh when more than half of them were in no earlier look: each look keeps the `SKETCH`
smallest hashes of its rows' ids, which are a uniform sample of the rows, so adding a few rows buys nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from thriftune.events import Event, EventLog

SKETCH = 64
FRESH_SHARE = 0.5


def error_share(look: int, looks: int, error_budget: float) -> float:
    """The part of the error budget that a look may spend; 0 beyond the allowed ones.

    Args:
        look: its number, from 1; 0 for rows that are not spent by looking (validation), which have the whole budget.
        looks: how many are allowed.
        error_budget: over all of them.

    >>> round(sum(error_share(look, 20, 0.05) for look in range(1, 30)), 12)
    0.05
    """
    if look == 0 or looks == look == 1:
        return error_budget
    if look > looks:
        return 0.0
    return error_budget / 2 if look == 1 else error_budget / 2 / (looks - 1)


def record_look(events: EventLog, predictor: str, candidate: str, ids: Sequence[str]) -> int:
    """Record a look at the test split before it is taken.

    Args:
        events: where looks are recorded.
        predictor: who is looked at.
        candidate: content hash of a model that may ship; empty for a baseline.
        ids: the rows' ids.

    Returns:
        the look's number among those at these rows, 0 for a baseline.
    """
    rows = sketch(ids)
    earlier = [look for look in events.read(kinds=["evaluation.look"]) if _same_rows(look, rows)]
    numbers = {look.data["candidate"]: int(look.data["looks"]) for look in earlier if look.data.get("candidate")}
    spent = max(numbers.values(), default=0)
    number = numbers.get(candidate, spent + 1) if candidate else 0
    events.emit(
        "evaluation.look",
        split="test",
        predictor=predictor,
        looks=number or spent,
        candidate=candidate,
        sketch=rows,
    )
    return number


def sketch(ids: Sequence[str]) -> list[str]:
    """The `SKETCH` smallest hashes of the ids."""
    return sorted({hash_of(name) for name in ids})[:SKETCH]


def hash_of(name: str) -> str:
    """A row id's place in the order in which rows are sampled: 16 hex digits, the same on every machine."""
    return blake2b(name.encode(), digest_size=8).hexdigest()


def _same_rows(look: Event, rows: list[str]) -> bool:
    # Only hashes up to the smaller of the two largest are a sample of both sets of rows; where that leaves none, the
    # two sets differ so much in size that nothing can be said, and the look counts.
    seen = look.data.get("sketch", [])
    if not rows or not seen:
        return False
    ends = [hashes[-1] for hashes in (rows, seen) if len(hashes) == SKETCH]
    sampled = [row for row in rows if not ends or row <= min(ends)]
    return sum(row in seen for row in sampled) >= FRESH_SHARE * len(sampled)
