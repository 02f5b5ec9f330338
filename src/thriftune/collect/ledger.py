"""The data ledger's way into the event stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from thriftune.collect.types import LedgerEntry

if TYPE_CHECKING:
    from thriftune.context import Context


def record(entries: Iterable[LedgerEntry], context: Context) -> None:
    """Emit a `data.entry` event for each entry, once an attempt: going on after an interruption repeats none."""
    known = [event.data for event in context.events.read(attempt=context.attempt, kinds=["data.entry"])]
    context.events.emit_all(("data.entry", data) for entry in entries if (data := entry.as_data()) not in known)
