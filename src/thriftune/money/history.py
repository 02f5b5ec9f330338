"""Replacing prices, and keeping the ones that were there before.

A price file is replaced whole or not at all. The prices that change or go are first added to `price-history.csv` in
the same folder, the newest last, so that a crash between the two at most leaves one there that still holds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from thriftune.clock import utc
from thriftune.errors import BadInput
from thriftune.money.prices import COLUMNS, OWN_FILE, Price, format_prices, parse_prices, read_prices, thriftune_home

HISTORY_FILE = "price-history.csv"
REPLACED_AT = "replaced_at"
LOCK_FILE = "prices.lock"


@dataclass(frozen=True)
class Replaced:
    """A price that held until an instant."""

    price: Price
    at: datetime


def renew(path: Path, now: float, change: Callable[[list[Price]], Iterable[Price]]) -> int:
    """Replace a price file, the prices that change or go being kept in the history; how many those are.

    Args:
        path: the file; it need not be there yet.
        now: the instant, in seconds since the epoch.
        change: from the prices that are there to those that shall be, while nobody else changes them.

    Raises:
        BadInput: the folder cannot be written to, or the file that is there is no price file.
    """
    from filelock import FileLock

    from thriftune.artifacts import explained, write_file_atomic

    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / LOCK_FILE):
            old = read_prices(path) if path.exists() else []
            fresh = {price.key: price for price in change(old)}
            gone = [price for price in old if fresh.get(price.key) != price]
            if gone:
                _remember(gone, path.parent / HISTORY_FILE, now)
            write_file_atomic(path, format_prices(fresh.values()).encode())
    return len(gone)


def set_price(price: Price, now: float, home: Path | None = None) -> Path:
    """Add a price of the user's own, which stands above the catalogue's; the file it was written to.

    Raises:
        BadInput: the user's price file cannot be read or written.
    """
    path = (thriftune_home() if home is None else home) / OWN_FILE
    renew(path, now, lambda own: [*own, replace(price, as_of=None)])
    return path


def forget_price(machine: str, provider: str, now: float, home: Path | None = None) -> int:
    """Take the user's own prices of a machine back, so that the catalogue's hold again; how many there were.

    Raises:
        BadInput: the user's price file cannot be read or written.
    """
    path = (thriftune_home() if home is None else home) / OWN_FILE

    def is_kept(price: Price) -> bool:
        return price.machine.lower() != machine.lower() or provider.lower() not in ("", price.provider.lower())

    return renew(path, now, lambda own: filter(is_kept, own)) if path.exists() else 0


def history(home: Path | None = None) -> list[Replaced]:
    """The prices that held before, the oldest first.

    Raises:
        BadInput: the history cannot be read; the message names its line.
    """
    path = (thriftune_home() if home is None else home) / HISTORY_FILE
    if not path.exists():
        return []
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    try:
        if not rows or tuple(rows[0]) != (*COLUMNS, REPLACED_AT):
            raise ValueError(f"the columns of a price file and {REPLACED_AT}")
        instants = [datetime.fromisoformat(row[-1]) for row in rows[1:]]
    except ValueError as error:
        raise BadInput(
            "the history of prices cannot be read", str(path), "another form", str(error), "remove it"
        ) from None
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(row[:-1] for row in rows)
    prices = parse_prices(buffer.getvalue(), str(path))
    return [Replaced(price, at) for price, at in zip(prices, instants, strict=True)]


def _remember(gone: list[Price], path: Path, now: float) -> None:
    from thriftune.artifacts import write_file_atomic

    there = path.read_text(encoding="utf-8") if path.exists() else ",".join((*COLUMNS, REPLACED_AT)) + "\n"
    at = utc(now).isoformat(timespec="seconds")
    rows = csv.reader(io.StringIO(format_prices(gone), newline=""))
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([*row, at] for row in list(rows)[1:])
    write_file_atomic(path, (there + buffer.getvalue()).encode())
