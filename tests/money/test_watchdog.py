"""The watchdog, beside real processes: it ends the lease of one that was killed, and leaves the living alone."""

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
from sqlalchemy import select, update

from thriftune.clock import SystemClock
from thriftune.errors import LeaseHeld
from thriftune.events import EventLog
from thriftune.money import watchdog
from thriftune.money.leases import HEARTBEAT_SECONDS, acquire
from thriftune.money.ledger import Ledger
from thriftune.store import Store
from thriftune.store.tables import leases

SPENDER = Path(__file__).parent / "spender.py"
CLOCK = SystemClock()


@pytest.fixture
def hanging(shared_url: str, unused_name: str) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a unit, on a machine and a project of its own."""
    pipe = subprocess.PIPE
    command = [sys.executable, str(SPENDER), "hang", shared_url, unused_name, unused_name]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "in unit 0", process.communicate()
    yield process
    process.kill()
    process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def ledger_of(store: Store, project: str) -> Ledger:
    return Ledger(store, CLOCK, project, EventLog(store, CLOCK, project, 1))


def held(store: Store, machine: str) -> bool:
    with store.read() as connection:
        return bool(connection.execute(select(leases.c.held).where(leases.c.machine == machine)).scalar_one())


def test_the_lease_of_a_killed_process_is_ended_and_its_time_charged_once(
    shared_store: Store, hanging: subprocess.Popen[str], unused_name: str
) -> None:
    began = time.monotonic()
    time.sleep(1.3)
    kill(hanging)
    outside = time.monotonic() - began
    (seen,) = watchdog.look(shared_store, CLOCK, unused_name)
    assert seen.ended and seen.pid == hanging.pid and not held(shared_store, unused_name)
    ledger = ledger_of(shared_store, unused_name)
    (charge,) = ledger.transfers()
    assert (charge.state, charge.unit, charge.estimated) == ("posted", "unit 0", True)
    assert charge.seconds >= outside - HEARTBEAT_SECONDS
    assert ledger.balance().reserved == 0 and ledger.balance().spent == charge.amount
    (event,) = ledger.events.read(kinds=["lease.ended"])
    assert event.data["pid"] == hanging.pid and event.data["machine"] == unused_name
    assert watchdog.look(shared_store, CLOCK, unused_name) == []
    lease = acquire(shared_store, CLOCK, ledger, Decimal(36), unused_name, since=CLOCK.now())
    assert lease.fence.number == event.data["fence"] + 2
    assert ledger.transfers() == [charge]


@pytest.mark.parametrize("stopped", [False, True], ids=["at work", "without a sign of life"])
def test_a_live_owner_is_never_touched(
    shared_store: Store, hanging: subprocess.Popen[str], unused_name: str, stopped: bool
) -> None:
    if stopped:
        os.kill(hanging.pid, signal.SIGSTOP)
        time.sleep(2 * HEARTBEAT_SECONDS)
    (seen,) = watchdog.look(shared_store, CLOCK, unused_name, patience=0.0)
    assert not seen.ended and "alive" in seen.said and held(shared_store, unused_name)
    ledger = ledger_of(shared_store, unused_name)
    assert [each.state for each in ledger.transfers()] == ["pending"]
    assert ledger.events.read(kinds=["lease.ended"]) == []
    with pytest.raises(LeaseHeld):
        acquire(shared_store, CLOCK, ledger, Decimal(36), unused_name, since=CLOCK.now())


def out_of_sight(store: Store, machine: str) -> None:
    """Let the owner's place be another boot, as if the database were looked at from another machine."""
    with store.begin() as transaction:
        transaction.execute(update(leases).where(leases.c.machine == machine).values(owner_place="another boot"))


def test_an_owner_out_of_sight_is_watched_for_signs_of_life(
    shared_store: Store, hanging: subprocess.Popen[str], unused_name: str
) -> None:
    out_of_sight(shared_store, unused_name)
    (seen,) = watchdog.look(shared_store, CLOCK, unused_name, patience=10.0)
    assert not seen.ended and held(shared_store, unused_name)
    kill(hanging)
    (seen,) = watchdog.look(shared_store, CLOCK, unused_name, patience=2.0)
    assert seen.ended and not held(shared_store, unused_name)


def test_the_stop_command_is_tried_until_it_succeeds_and_never_for_a_new_owner(
    shared_store: Store, hanging: subprocess.Popen[str], unused_name: str, tmp_path: Path
) -> None:
    kill(hanging)
    watchdog.look(shared_store, CLOCK, unused_name)
    (ended,) = watchdog.unstopped(shared_store, CLOCK, unused_name)
    assert not watchdog.stop(shared_store, CLOCK, ended, "/no/such/command")
    assert not watchdog.stop(shared_store, CLOCK, ended, f"{sys.executable} -c 'import sys; sys.exit(3)'")
    (again,) = watchdog.unstopped(shared_store, CLOCK, unused_name)
    assert again == ended
    kept = tmp_path / "stopped"
    script = f"import os; open('{kept}', 'w').write(os.environ['THRIFTUNE_MACHINE'])"
    ledger = ledger_of(shared_store, unused_name)
    lease = acquire(shared_store, CLOCK, ledger, Decimal(36), unused_name, since=CLOCK.now())
    assert list(watchdog.unstopped(shared_store, CLOCK, unused_name)) == []  # somebody is at work there again
    with shared_store.begin() as transaction:
        lease.release(transaction)
    assert list(watchdog.unstopped(shared_store, CLOCK, unused_name)) == []  # and its end was no death
    assert watchdog.stop(shared_store, CLOCK, ended, f'{sys.executable} -c "{script}"')
    assert kept.read_text() == unused_name
    told = [(e.data["status"], e.data["lease"]) for e in ledger.events.read(kinds=["machine.stopped"])]
    assert told == [(1, ended.seq), (3, ended.seq), (0, ended.seq)]


def test_a_machine_is_charged_until_it_is_stopped_once(
    shared_store: Store, hanging: subprocess.Popen[str], unused_name: str
) -> None:
    kill(hanging)
    watchdog.look(shared_store, CLOCK, unused_name)
    ledger = ledger_of(shared_store, unused_name)
    (worked,) = ledger.transfers()
    (ended,) = watchdog.unstopped(shared_store, CLOCK, unused_name)
    assert not watchdog.stop(shared_store, CLOCK, ended, "/no/such/command")
    assert ledger.transfers() == [worked]  # it is billed on: how long, nobody knows yet
    time.sleep(HEARTBEAT_SECONDS + 0.5)  # it is paid for an interval longer than it was seen to live
    assert watchdog.stop(shared_store, CLOCK, ended, f"{sys.executable} -c 'pass'")
    stopped_at = CLOCK.now()
    _, idle = ledger.transfers()
    assert (idle.unit, idle.category, idle.estimated) == ("idle until it was stopped", "machine", True)
    assert 0.5 <= idle.seconds <= stopped_at - ended.data["paid_until"]
    assert float(idle.amount) == pytest.approx(float(worked.amount) * idle.seconds / worked.seconds, rel=1e-6)
    assert ledger.balance().spent == worked.amount + idle.amount
    assert list(watchdog.unstopped(shared_store, CLOCK, unused_name)) == []


def test_other_projects_leases_are_not_looked_at(
    shared_store: Store, hanging: subprocess.Popen[str], unused_name: str
) -> None:
    kill(hanging)
    assert watchdog.look(shared_store, CLOCK, "another project") == []
    assert held(shared_store, unused_name)
