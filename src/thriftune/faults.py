"""Named crash points: places where a test ends the process as a power cut would.

`THRIFTUNE_CRASH_AT=name` kills the process (SIGKILL, no cleanup) the first time it gets there, `name:3` the third
time. Without the variable a crash point costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_reached: Counter[str] = Counter()

CRASH_POINTS = (
    "artifact.started",
    "artifact.written",
    "artifact.synced",
    "artifact.renamed",
    "artifact.recorded",
    "checkpoint.started",
    "checkpoint.written",
    "checkpoint.synced",
    "checkpoint.renamed",
    "decision.recorded",
    "ledger.reserved",
    "ledger.posted",
    "step.done",
)
MANAGED_CRASH_POINTS = ("job.sent",)  # of a run that somebody else's machines train


def crash_point(name: str) -> None:
    """End the process here if the environment asks for it."""
    wanted = os.environ.get("THRIFTUNE_CRASH_AT")
    if wanted is None:
        return
    if name not in CRASH_POINTS + MANAGED_CRASH_POINTS:
        raise ValueError(f"unknown crash point {name}")
    _reached[name] += 1
    point, _, count = wanted.partition(":")
    if point == name and _reached[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
