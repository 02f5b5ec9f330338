"""Real processes, killed and raced: what is spent is spent once, and never more than there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from thriftune.clock import SystemClock
from thriftune.errors import LeaseHeld
from thriftune.events import EventLog
from thriftune.money.leases import HEARTBEAT_SECONDS, acquire
from thriftune.money.ledger import Ledger, Transfer
from thriftune.store import Store

SPENDER = Path(__file__).parent / "spender.py"
PRICE_PER_HOUR = Decimal(36)
CENT_A_SECOND = 100.0  # seconds that one unit of the currency pays for


class Spenders:
    """Starts spending processes on one database; ends those that are left."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.started: list[subprocess.Popen[str]] = []

    def start(self, role: str, project: str, *rest: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(SPENDER), role, self.url, project, *rest]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment
        )
        self.started.append(process)
        return process


@pytest.fixture
def spenders(shared_url: str) -> Iterator[Spenders]:
    spenders = Spenders(shared_url)
    yield spenders
    for process in spenders.started:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    assert said == line, (said, process.stderr.read() if process.stderr and process.poll() is not None else "")


def ledger_of(store: Store, project: str, attempt: int = 9) -> Ledger:
    clock = SystemClock()
    return Ledger(store, clock, project, EventLog(store, clock, project, attempt))


def take_over(store: Store, ledger: Ledger, machine: str) -> None:
    """Acquire the machine as a later run would, and give it back at once."""
    lease = acquire(store, SystemClock(), ledger, PRICE_PER_HOUR, machine, since=SystemClock().now())
    with store.begin() as transaction:
        lease.release(transaction)


def posted(ledger: Ledger) -> list[Transfer]:
    """The posted transfers, after seeing that ledger, transfers and events agree and that nothing is left open."""
    transfers = ledger.transfers()
    charges = ledger.events.read(kinds=["charge"])
    settled = [each for each in transfers if each.state == "posted"]
    assert [each for each in transfers if each.state == "pending"] == [] and ledger.balance().reserved == 0
    assert sorted(event.data["transfer"] for event in charges) == [each.id for each in settled]
    assert sum(Decimal(event.data["amount"]) for event in charges) == ledger.balance().spent
    assert sum(each.amount for each in settled) == ledger.balance().spent
    return settled


@pytest.mark.parametrize("seed", [1, 2])
def test_processes_that_race_for_one_budget_cannot_overdraw_it(
    shared_store: Store, spenders: Spenders, unused_name: str, seed: int
) -> None:
    racing = [spenders.start("race", unused_name, str(10 * seed + number)) for number in range(3)]
    for spender in racing:
        wait_for(spender, "ready")
    for spender in racing:
        assert spender.stdin is not None
        spender.stdin.close()
        spender.stdin = None
    said = [spender.communicate(timeout=60) for spender in racing]
    assert [spender.returncode for spender in racing] == [0, 0, 0], said
    ledger = ledger_of(shared_store, unused_name)
    posted(ledger)
    balance = ledger.balance()
    assert sum(Decimal(out) for out, _ in said) == balance.spent
    assert Decimal(98) < balance.spent <= balance.total == Decimal(100)
    assert sum(Decimal(out) > 0 for out, _ in said) >= 2  # or it was no race
    assert all(phase.spent <= phase.allowance for phase in balance.phases.values())
    assert sum(phase.allowance for phase in balance.phases.values()) <= balance.total
    assert [event.seq for event in ledger.events.read()] == list(range(1, len(ledger.events.read()) + 1))


def test_the_ledger_agrees_with_who_watches_from_outside(
    shared_store: Store, spenders: Spenders, unused_name: str
) -> None:
    began = time.monotonic()
    spender = spenders.start("run", unused_name, unused_name)
    assert spender.wait(60) == 0
    outside = time.monotonic() - began
    ledger = ledger_of(shared_store, unused_name)
    metered = posted(ledger)
    assert float(ledger.balance().spent) * CENT_A_SECOND == pytest.approx(outside, abs=1.0)
    assert sum(each.seconds for each in metered) == pytest.approx(outside, abs=1.0)
    assert [each.unit for each in metered] == ["unit 0", "unit 1", "unit 2", "after the last unit", "exit"]
    assert [each.estimated for each in metered] == [False, False, False, False, True]


def test_a_second_run_is_refused_while_the_first_lives_and_names_it(
    shared_store: Store, spenders: Spenders, unused_name: str
) -> None:
    spender = spenders.start("hang", unused_name, unused_name)
    wait_for(spender, "in unit 0")
    os.kill(spender.pid, signal.SIGSTOP)  # also when it gives no sign of life: it may go on at any time
    time.sleep(2 * HEARTBEAT_SECONDS)
    with pytest.raises(LeaseHeld) as caught:
        take_over(shared_store, ledger_of(shared_store, unused_name), unused_name)
    assert f"process {spender.pid}" in caught.value.found and str(spender.pid) in caught.value.way_out
    second = spenders.start("run", unused_name, unused_name)
    assert second.wait(60) == 2
    assert second.stderr is not None and f"process {spender.pid}" in second.stderr.read()
    assert [each.state for each in ledger_of(shared_store, unused_name).transfers()] == ["pending"]


def test_a_killed_run_is_charged_up_to_its_last_sign_of_life_and_once(
    shared_store: Store, spenders: Spenders, unused_name: str
) -> None:
    began = time.monotonic()
    spender = spenders.start("hang", unused_name, unused_name)
    wait_for(spender, "in unit 0")
    time.sleep(1.3)
    spender.kill()
    os.waitid(os.P_PID, spender.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie: it holds no lease
    outside = time.monotonic() - began
    ledger = ledger_of(shared_store, unused_name)
    take_over(shared_store, ledger, unused_name)
    (charge,) = posted(ledger)
    assert (charge.unit, charge.estimated, charge.attempt) == ("unit 0", True, 1)
    assert charge.seconds == pytest.approx(outside, abs=HEARTBEAT_SECONDS + 0.5)
    take_over(shared_store, ledger, unused_name)
    assert posted(ledger) == [charge]


@pytest.mark.parametrize(
    ("crash_at", "charges"),
    [("ledger.reserved:2", ["unit 0", "unit 1"]), ("ledger.posted:2", ["unit 0", "unit 1", "ended without notice"])],
)
def test_a_run_killed_around_a_commit_loses_and_doubles_no_charge(
    shared_store: Store, spenders: Spenders, unused_name: str, crash_at: str, charges: list[str]
) -> None:
    began = time.monotonic()
    spender = spenders.start("run", unused_name, unused_name, THRIFTUNE_CRASH_AT=crash_at)
    assert spender.wait(60) == -signal.SIGKILL
    outside = time.monotonic() - began
    ledger = ledger_of(shared_store, unused_name)
    take_over(shared_store, ledger, unused_name)
    first = posted(ledger)
    assert [each.unit for each in first] == charges
    assert [each.estimated for each in first] == [False] * (len(charges) - 1) + [True]
    assert sum(each.seconds for each in first) == pytest.approx(outside, abs=HEARTBEAT_SECONDS + 0.5)
    again = spenders.start("run", unused_name, unused_name)
    assert again.wait(60) == 0
    assert posted(ledger)[: len(first)] == first
    assert [each.unit for each in posted(ledger)[len(first) :]][:3] == ["unit 0", "unit 1", "unit 2"]
