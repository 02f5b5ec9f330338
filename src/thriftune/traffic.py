"""Bytes that go over the network for a run: told where they are fetched or sent, paid for by whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Ask = Callable[[int, str], None]


@dataclass(eq=False)
class Traffic:
    """What went over the network while it was watched.

    Args:
        bytes: both ways.
        ask: called with the most bytes of a transfer, and what it is, before it begins; raises where it must not.
    """

    bytes: int = 0
    ask: Ask | None = None


_open: list[Traffic] = []


@contextmanager
def watched(ask: Ask | None = None) -> Iterator[Traffic]:
    """Count what goes over the network from here to the end of the block; spans may nest."""
    seen = Traffic(ask=ask)
    _open.append(seen)
    try:
        yield seen
    finally:
        _open.remove(seen)


def is_asked() -> bool:
    """Whether somebody wants to know of a transfer before it begins."""
    return any(each.ask is not None for each in _open)


def begins(most_bytes: int, what: str) -> None:
    """A transfer is about to begin; whoever pays for it may refuse by raising."""
    for each in _open:
        if each.ask is not None:
            each.ask(most_bytes, what)


def moved(count: int) -> None:
    """So many bytes were fetched or sent."""
    for each in _open:
        each.bytes += count
