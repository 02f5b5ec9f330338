"""Asking again where a provider is busy or out of reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from thriftune.errors import BadInput
from thriftune.managed.types import Unavailable

T = TypeVar("T")

ATTEMPTS = 6
FIRST_PAUSE = 1.0  # seconds; doubled each time, unless the provider says when to come back
LONGEST_PAUSE = 60.0


def pause_after(failures: int, refusal: Unavailable) -> float:
    """Seconds until the next attempt: as the provider asks, else twice as long each time."""
    asked = FIRST_PAUSE * 2.0 ** (failures - 1) if refusal.after_seconds is None else refusal.after_seconds
    return min(LONGEST_PAUSE, asked)


def patiently(call: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """What a call answers, after some attempts where the provider asks for patience.

    Args:
        call: asks the provider; asked again only where it raises `Unavailable`.
        sleep: waits.

    Raises:
        BadInput: it is still out of reach after `ATTEMPTS` attempts, or another error of the call's.
    """
    for failures in range(1, ATTEMPTS):
        try:
            return call()
        except Unavailable as refusal:
            sleep(pause_after(failures, refusal))
    try:
        return call()
    except Unavailable as refusal:
        raise out_of_reach(refusal, ATTEMPTS) from None


def out_of_reach(refusal: Unavailable, attempts: int) -> BadInput:
    """The error of a provider that does not answer."""
    return BadInput(
        "the provider of the model does not answer",
        found=f"{refusal.told}, {attempts} times",
        expected="an answer",
        way_out="try again later: the same command goes on from here",
    )
