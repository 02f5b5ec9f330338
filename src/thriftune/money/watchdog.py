"""The watchdog: ends the lease of an owner that is dead, so that a forgotten machine does not go on billing.

It stands outside of the run, in a process of its own. What the dead owner left open is posted as the next run would
have done it, estimated; then the project's stop command is run, again and again until it succeeds, unless a new owner
has taken the machine meanwhile. Until then the machine was billed for nothing, which is charged too. A live owner is
never touched.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, select, update

from thriftune.clock import Clock
from thriftune.events import Event, EventLog
from thriftune.money.amounts import NANOSECONDS, cost_nano, to_nanoseconds
from thriftune.money.leases import HEARTBEAT_SECONDS, owner_of, settle_dead
from thriftune.money.ledger import Ledger
from thriftune.processes import Life
from thriftune.store import Store, Transaction
from thriftune.store.tables import leases

STOP_SECONDS = 600.0  # how long a stop command may take
PATIENCE_SECONDS = 30.0  # an owner out of sight is dead if it gives no sign of life for so long
ENDED, STOPPED = "lease.ended", "machine.stopped"


@dataclass(frozen=True)
class Watched:
    """What a look at one lease came to.

    Args:
        machine: its name.
        pid: of its owner.
        ended: whether its owner is dead, so that it was ended.
        said: the same in words.
    """

    machine: str
    pid: int
    ended: bool
    said: str


def look(store: Store, clock: Clock, project: str, patience: float = PATIENCE_SECONDS) -> list[Watched]:
    """End the leases of a project whose owners are dead.

    Args:
        store: where they are kept.
        clock: dates what is posted, and is waited on for the signs of life of an owner that is out of sight.
        project: whose leases; others' are not touched.
        patience: seconds in which an owner out of sight (another boot, container or machine) must give a sign.
    """
    with store.read() as connection:
        held = connection.execute(select(leases).where(leases.c.project == project, leases.c.held)).all()
    return [_looked_at(store, clock, row.machine, row.fence, patience) for row in held]


def unstopped(store: Store, clock: Clock, project: str) -> Iterator[Event]:
    """The leases that were ended and whose machines are still to be stopped, the oldest first.

    A machine that somebody holds again is left alone.
    """
    log = EventLog(store, clock, project, 0)
    kept = log.read(kinds=[ENDED, STOPPED])
    stopped = {event.data["lease"] for event in kept if event.kind == STOPPED and event.data["status"] == 0}
    for event in kept:
        if event.kind == ENDED and event.seq not in stopped and _is_free(store, event):
            yield event


def stop(store: Store, clock: Clock, ended: Event, command: str) -> bool:
    """Run the stop command for a machine whose lease was ended, and record what became of it.

    What the machine cost from its owner's end until the command succeeded is charged, estimated: the provider may have
    ended it before. The command finds the machine in `THRIFTUNE_MACHINE` and the project in `THRIFTUNE_PROJECT`.

    Returns:
        whether it succeeded.
    """
    told = {"THRIFTUNE_MACHINE": str(ended.data["machine"]), "THRIFTUNE_PROJECT": ended.project}
    try:
        done = subprocess.run(
            shlex.split(command),
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=STOP_SECONDS,
            check=False,
        )
        status, said = done.returncode, (done.stderr.strip() or done.stdout.strip())[-500:]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        status, said = 1, str(error)
    with store.begin() as transaction:
        if status == 0:
            _charge_idle(store, clock, ended, transaction)
        EventLog(store, clock, ended.project, ended.attempt).emit(
            STOPPED, inside=transaction, lease=ended.seq, machine=ended.data["machine"], status=status, said=said
        )
    return status == 0


def _charge_idle(store: Store, clock: Clock, ended: Event, transaction: Transaction) -> None:
    """Charge a machine that nobody held up to now, unless somebody has taken and so paid for it since."""
    row = transaction.execute(_lease(ended.data["machine"]).with_for_update()).one()
    until_ns = max(row.metered_until_ns, to_nanoseconds(clock.now()))
    nanoseconds = until_ns - row.metered_until_ns
    cost, remainder = cost_nano(nanoseconds, row.price_nano_per_hour, row.remainder)
    if not _is_as_ended(row, ended) or cost == 0:
        return
    ledger = Ledger(store, clock, ended.project, EventLog(store, clock, ended.project, ended.attempt))
    phase, seconds = ledger.last_phase(transaction), nanoseconds / NANOSECONDS
    ledger.charge(phase, "machine", cost, "idle until it was stopped", seconds, True, inside=transaction)
    paid = {"metered_until_ns": until_ns, "remainder": remainder}
    transaction.execute(update(leases).where(leases.c.machine == row.machine).values(paid))


def _looked_at(store: Store, clock: Clock, machine: str, fence: int, patience: float) -> Watched:
    """Look at one lease; it is ended if its owner is dead by then and nobody has taken it meanwhile."""
    silent = _silent(store, clock, machine, fence, patience)
    with store.begin() as transaction:
        row = transaction.execute(_lease(machine).with_for_update()).one()
        life = owner_of(row).life()
        dead = life is Life.DEAD or (life is Life.UNSEEN and silent == row.heartbeat_ns)
        if not row.held or row.fence != fence:
            return Watched(machine, row.owner_pid, False, "another owner has it by now")
        if not dead:
            return Watched(machine, row.owner_pid, False, f"process {row.owner_pid} is alive")
        paid_until_ns, remainder = settle_dead(store, clock, row, transaction)
        _end(transaction, machine, fence, paid_until_ns, remainder)
        log = EventLog(store, clock, row.project, row.attempt)
        log.emit(
            ENDED,
            inside=transaction,
            machine=machine,
            pid=row.owner_pid,
            fence=fence,
            last_sign_at=row.heartbeat_ns / 1e9,
            paid_until=paid_until_ns / 1e9,
        )
    return Watched(machine, row.owner_pid, True, f"process {row.owner_pid} is gone; its lease was ended")


def _end(transaction: Transaction, machine: str, fence: int, paid_until_ns: int, remainder: int) -> None:
    """Nobody holds the machine, and whoever did can post nothing any more: the next number is not its own."""
    values = {"held": False, "fence": fence + 1, "metered_until_ns": paid_until_ns, "remainder": remainder}
    transaction.execute(update(leases).where(leases.c.machine == machine).values(values))


def _silent(store: Store, clock: Clock, machine: str, fence: int, patience: float) -> int | None:
    """The last sign of life of an owner that is out of sight, if none came within our patience; None otherwise.

    It is waited for by our own clock: the owner's may tell another time.
    """
    before: int | None = None
    waited = 0.0
    while True:
        with store.read() as connection:
            row = connection.execute(_lease(machine)).one()
        if not row.held or row.fence != fence or owner_of(row).life() is not Life.UNSEEN:
            return None
        if before is not None and row.heartbeat_ns != before:
            return None
        if waited >= patience:
            return int(row.heartbeat_ns)
        before = int(row.heartbeat_ns)
        clock.sleep(HEARTBEAT_SECONDS)
        waited += HEARTBEAT_SECONDS


def _is_free(store: Store, ended: Event) -> bool:
    """Whether nobody has taken the machine since its lease was ended."""
    with store.read() as connection:
        row = connection.execute(_lease(ended.data["machine"])).one_or_none()
    return row is not None and _is_as_ended(row, ended)


def _lease(machine: str) -> Select[Any]:
    return select(leases).where(leases.c.machine == machine)


def _is_as_ended(row: Row[Any], ended: Event) -> bool:
    return not row.held and bool(row.fence == ended.data["fence"] + 1)
