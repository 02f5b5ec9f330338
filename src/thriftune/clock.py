"""The one source of time. Stages get it from the context, so that a test or a simulator can drive it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Instants are UTC seconds since the epoch; durations come from a clock that never runs backwards."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC, never smaller than what an earlier call returned."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...


class SystemClock:
    """Wall-clock instants, carried forward by the monotonic clock.

    The wall clock is read once; from then on instants advance with `time.monotonic`, so a clock set back in the
    middle of a run neither refunds money nor moves the deadline away.
    """

    def __init__(self) -> None:
        self._wall = time.time()
        self._monotonic = time.monotonic()

    def now(self) -> float:
        return self._wall + (time.monotonic() - self._monotonic)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class ManualClock:
    """A clock that moves only when told to, for tests and simulations."""

    instant: float = 1_700_000_000.0

    def now(self) -> float:
        return self.instant

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move `seconds` (not negative) forward."""
        if seconds < 0:
            raise ValueError(f"time runs forwards only, got {seconds} s")
        self.instant += seconds


def utc(instant: float) -> datetime:
    """The instant (seconds since the epoch) as an aware UTC datetime."""
    return datetime.fromtimestamp(instant, tz=UTC)
