"""A process that spends, for the tests to watch, kill and race: python spender.py ROLE URL PROJECT [MACHINE]."""

from __future__ import annotations

import os
import random
import sys
import time
from decimal import Decimal

from thriftune.clock import SystemClock
from thriftune.errors import OutOfBudget, ThriftuneError
from thriftune.events import EventLog, open_attempt
from thriftune.money.amounts import from_nano
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter
from thriftune.store import Store, open_store

PRICE_PER_HOUR = Decimal(36)  # a cent a second
ALLOWANCES = {"collection": Decimal(10), "training": Decimal(50), "evaluation": Decimal(20), "deployment": Decimal(0)}
TOTAL = Decimal(100)
PAUSE_SECONDS = 0.01


def open_ledger(store: Store, project: str) -> Ledger:
    """The project's ledger, in a new attempt."""
    clock = SystemClock()
    attempt = open_attempt(store, clock, project, "recipe")
    ledger = Ledger(store, clock, project, EventLog(store, clock, project, attempt.attempt))
    ledger.open_budget(TOTAL, "USD", ALLOWANCES)
    return ledger


def race(ledger: Ledger, seed: int) -> None:
    """Reserve and post amounts drawn at random until the budget is spent; say how much was posted.

    The pauses let the others have their turns: the lock of a file goes to whoever asks again first.
    """
    drawn = random.Random(seed)
    posted = 0
    refused = 0
    while refused < 3:
        time.sleep(drawn.uniform(0.0, PAUSE_SECONDS))
        upper = drawn.randrange(1, 1_000_000_000)
        try:
            held = ledger.reserve(drawn.choice(list(ALLOWANCES)), "tokens", upper, "draw")
        except OutOfBudget:
            refused += 1
            continue
        if drawn.random() < 0.1:
            ledger.void(held)
        else:
            actual = drawn.randrange(upper // 2, upper + 1)
            ledger.post(held, actual, 0.0)
            posted += actual
    print(from_nano(posted))


def run(meter: Meter, unit_seconds: float, units: int) -> None:
    """Do units of work, with a pause before each."""
    for number in range(units):
        time.sleep(0.1)
        with meter.unit("training", f"unit {number}", 2 * unit_seconds + 1.0):
            print(f"in unit {number}", flush=True)
            time.sleep(unit_seconds)


def main() -> None:
    role, url, project, *rest = sys.argv[1:]
    store = open_store(url)
    ledger = open_ledger(store, project)
    if role == "race":
        print("ready", flush=True)
        sys.stdin.read()  # all start at once, when the test closes their input
        race(ledger, seed=int(rest[0]))
        return
    with_unit_of = {"run": 0.3, "hang": 3600.0}[role]
    meter = Meter.start(store, ledger.clock, ledger, PRICE_PER_HOUR, None, machine=rest[0])
    run(meter, with_unit_of, units=3)
    meter.close("training", exit_seconds=0.1)
    os._exit(0)  # on a busy machine, taking the interpreter down would last longer than all the rest


if __name__ == "__main__":
    try:
        main()
    except ThriftuneError as error:
        print(type(error).__name__, error, file=sys.stderr)
        sys.exit(error.exit_code)
