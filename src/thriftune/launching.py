"""A run on a rented machine: a SkyPilot task made of the project file and its row of the price table.

The money is one account: the rented machine works on the same database, so that its `thriftune run` reserves and
meters there like any other. What that run cannot meter, getting the machine ready and taking it down, is reserved here
before anything is launched. The task ends itself: its set-up and its run are under a time limit that budget and
deadline pay for, and the machine goes when it has been idle. No secret stands in the task: only names of variables.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import IO, Any, cast

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from thriftune.clock import Clock, SystemClock
from thriftune.errors import BadInput, CannotLand, LeaseHeld, MissingExtra
from thriftune.money.amounts import NANOSECONDS, price_to_nano, shown_money, upper_cost_nano
from thriftune.money.ledger import Ledger, Reservation
from thriftune.money.prices import LOCAL, Price, PriceTable
from thriftune.project.project import Project
from thriftune.session import DATABASE_VARIABLE, take_up

SETUP_SECONDS = 600.0  # the most that getting a machine ready may take, after which the task gives up
IDLE_MINUTES = 5  # after which the machine takes itself down, should nobody do it before
KILL_SECONDS = 60.0  # for a run that was told to stop
OVERHEAD_SECONDS = SETUP_SECONDS + 60.0 * IDLE_MINUTES + KILL_SECONDS
LEAST_RUN_SECONDS = 60.0
SECRETS = (DATABASE_VARIABLE, "HF_TOKEN")  # handed over by name, where they are set
TASK_FILE = "launch.yaml"
LAUNCH_LOCK = "launching.lock"
PHASE, CATEGORY, UNIT = "training", "machine", "launch"
REMOTE_FOLDER = "sky_workdir"  # where SkyPilot puts a task's working directory
BROUGHT_BACK = ("artifacts", "reports")
PARSER = """
import json, sys
import sky
config = json.load(sys.stdin)
given = [(name, "given at the launch") for name in config.get("secrets") or {}]
try:
    task = sky.Task.from_yaml_config(config, secrets_overrides=given)
    for each in task.resources:
        each.validate()
except Exception as error:
    sys.exit(" ".join(str(error).split()))
"""


@dataclass(frozen=True)
class Cap:
    """What a launch may take.

    Args:
        run_seconds: for the run itself.
        price_per_hour: of all machines together.
        currency: of the price.
    """

    run_seconds: int
    price_per_hour: Decimal
    currency: str

    @property
    def most(self) -> Decimal:
        """The most that the launch costs."""
        return self.price_per_hour * Decimal(self.run_seconds + OVERHEAD_SECONDS) / 3600

    @property
    def overhead_nano(self) -> int:
        """What is reserved before the launch: all but the run, which reserves for itself."""
        return upper_cost_nano(int(OVERHEAD_SECONDS * NANOSECONDS), price_to_nano(self.price_per_hour))


def row_of(project: Project, table: PriceTable | None = None) -> Price:
    """The project's row of the price table.

    Raises:
        BadInput: it is this machine, no row, or a machine on which a launch cannot run.
    """
    compute = project.file.compute
    if compute.machine == LOCAL:
        raise BadInput(
            "there is nothing to launch: the project runs on this machine",
            where="compute.machine",
            found=LOCAL,
            expected="a row of the price table, such as lambda:gpu_1x_a10",
            way_out="see what there is with `thriftune prices list`, and what it would take with "
            "`thriftune plan --compare`",
        )
    row = (table or PriceTable.load()).find(compute.machine, compute.region, compute.market)
    if compute.count > 1 or row.accelerator.startswith("tpu"):
        raise BadInput(
            "a launch cannot run there",
            where="compute",
            found=f"{compute.count} machines" if compute.count > 1 else f"the TPU {row.accelerator}",
            expected="one machine with GPUs or without: several must see one folder, and no run on a TPU is tested",
            way_out="take a machine with more accelerators in place of several; see docs/many-devices.md",
        )
    return row


def cap_of(project: Project, left: Decimal, seconds_left: float) -> Cap:
    """How long the run may take, so that set-up and leaving are still paid for and in time.

    Args:
        left: of the budget.
        seconds_left: to the deadline.

    Raises:
        CannotLand: not even a minute of it; names the minimum.
    """
    price = project.price_per_hour
    by_money = float(left / price * 3600) if price else math.inf
    seconds = math.floor(min(by_money, seconds_left) - OVERHEAD_SECONDS)
    if seconds < LEAST_RUN_SECONDS:
        least = OVERHEAD_SECONDS + LEAST_RUN_SECONDS
        currency = project.file.budget.currency
        money = shown_money(price * Decimal(least) / 3600, currency)
        raise CannotLand(
            "a rented machine cannot be got ready, used and left inside what is left",
            where=f"compute.machine {project.file.compute.machine}",
            found=f"{shown_money(left, currency)} and {max(0.0, seconds_left):.0f} s left",
            expected=f"at least {money} and {least:.0f} s: {OVERHEAD_SECONDS:.0f} s go to set-up and leaving",
            way_out=f"have {money} and {least:.0f} s left at the least, or run on this machine",
        )
    return Cap(seconds, price, project.file.budget.currency)


def task_of(project: Project, row: Price, cap: Cap, setup: str = "", secrets: Sequence[str] = ()) -> dict[str, Any]:
    """The SkyPilot task.

    Args:
        project: what is run.
        row: of the price table: where, and on which machine.
        cap: what it may take.
        setup: the command that installs Thriftune; by default from the package index, at this version.
        secrets: names of the environment's variables that are handed over; their values are not read here.

    Raises:
        BadInput: a data file or a model lies where it cannot be sent from.
    """
    compute = project.file.compute
    install = setup or f"pip install 'thriftune[postgres]=={version('thriftune')}'"
    resources: dict[str, Any] = {"infra": "/".join(part for part in (row.provider, row.region) if part)}
    resources["instance_type"] = row.machine
    if row.accelerator:
        resources["accelerators"] = f"{row.accelerator}:{row.accelerator_count.normalize():f}"
    resources |= {
        "use_spot": compute.market == "spot",
        "autostop": {"idle_minutes": IDLE_MINUTES, "down": True},
    }
    limit = f"timeout --signal=INT --kill-after={KILL_SECONDS:.0f} {cap.run_seconds}"
    task: dict[str, Any] = {
        "name": cluster_name(project),
        "workdir": str(project.folder.absolute()),
        "resources": resources,
    }
    if mounts := mounts_of(project):
        task["file_mounts"] = mounts
    if secrets:
        task["secrets"] = dict.fromkeys(secrets)
    return task | {
        "setup": f"timeout {SETUP_SECONDS:.0f} {install}\n",
        "run": f"{limit} {_command(project, row)}\n",
    }


def _command(project: Project, row: Price) -> str:
    file = shlex.quote(project.path.name)
    devices = int(row.accelerator_count)
    if devices > 1:
        return f'thriftune train --launch "torchrun --nproc-per-node {devices}" {file}'
    return f"thriftune run --no-queue {file}"


def cluster_name(project: Project) -> str:
    """The project's name in letters that SkyPilot takes."""
    return "thriftune-" + re.sub(r"[^a-z0-9]+", "-", project.file.name.lower()).strip("-")


def mounts_of(project: Project) -> dict[str, str]:
    """What lies outside of the project's folder, each at the same path on the machine.

    Raises:
        BadInput: a relative path that leads out of the folder.
    """
    folder = project.folder.absolute().resolve()
    named = [source.file for source in project.file.data]
    named += [model for model in project.file.models if (project.folder / Path(model).expanduser()).exists()]
    mounts = {}
    for name in named:
        path = (project.folder / Path(name).expanduser()).absolute()
        if path.resolve().is_relative_to(folder):
            continue
        if not Path(name).is_absolute() and not name.startswith("~"):
            raise BadInput(
                "what is sent to a rented machine lies in the project's folder, or has a whole path",
                where=str(project.path),
                found=name,
                expected=f"a path below {folder}, or one that begins with / or ~",
                way_out="move it into the folder, or write the whole path",
            )
        mounts[name] = name
    return mounts


def yaml_of(task: dict[str, Any], cap: Cap) -> str:
    """The task as text, with what it may cost on top."""
    out = StringIO()
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 4096
    writer.dump(task, out)
    most, beside = shown_money(cap.most, cap.currency), f"{OVERHEAD_SECONDS:.0f} s of set-up and leaving"
    return f"# At most {most}: {beside}, {cap.run_seconds} s of run.\n{out.getvalue()}"


@dataclass(frozen=True)
class Sky:
    """SkyPilot, which pins other versions than ours: whatever environment its command is in, its parser is beside it.

    Args:
        command: the path of `sky`.
    """

    command: Path

    def do(self, *words: str) -> int:
        """Do a command of SkyPilot's to its end; its exit status."""
        return subprocess.run([str(self.command), *words], check=False).returncode

    def read(self, path: Path) -> None:
        """Have SkyPilot's own parser read a task.

        Raises:
            BadInput: it refuses the task; the message has its words.
        """
        task = json.dumps(YAML(typ="safe").load(path.read_text()))
        python = self.command.resolve().parent / "python"
        read = subprocess.run([str(python), "-c", PARSER], input=task, capture_output=True, text=True, check=False)
        if read.returncode:
            raise BadInput(
                "SkyPilot does not take the task",
                where=str(path),
                found=(read.stderr.strip() or "no word from it").splitlines()[-1],
                expected="a task that its parser takes",
                way_out="change in compute what the message names; SkyPilot must reach its own catalogues",
            )


def sky() -> Sky:
    """SkyPilot, by the command `sky` on the path or beside this Python.

    Raises:
        MissingExtra: it is not there.
    """
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    found = shutil.which("sky", path=places)
    if found is None:
        raise MissingExtra(
            "a launch needs SkyPilot, which is not there",
            "sky",
            "no such command",
            "SkyPilot in an environment of its own, its command on the path",
            "pipx install skypilot, and let it use a cloud (`sky check`)",
        )
    return Sky(Path(found))


@dataclass(frozen=True)
class Launch:
    """A task that is written, and what it may take."""

    path: Path
    task: dict[str, Any]
    row: Price
    cap: Cap


def prepare_launch(project: Project, setup: str = "", now: float | None = None) -> Launch:
    """Write the task by what the budget and the deadline leave; nothing is reserved and nothing is launched.

    Raises:
        BadInput, CannotLand: as `row_of`, `cap_of`, `task_of`.
    """
    clock = SystemClock()
    row = row_of(project)
    left, deadline_at = _left(project, clock)
    cap = cap_of(project, left, deadline_at - (clock.now() if now is None else now))
    secrets = [name for name in SECRETS if os.environ.get(name)]
    task = task_of(project, row, cap, setup, secrets)
    project.root.mkdir(parents=True, exist_ok=True)
    path = project.root / TASK_FILE
    path.write_text(yaml_of(task, cap))
    return Launch(path, task, row, cap)


def launch(project: Project, setup: str = "") -> int:
    """Launch the project's run on its rented machine, wait for its end, bring back what it made, and take it down.

    Returns:
        SkyPilot's exit status.

    Raises:
        BadInput: the project's database is a file, which a rented machine cannot reach; SkyPilot refuses the task.
        MissingExtra: SkyPilot is not there.
        CannotLand: budget or deadline do not hold it.
        LeaseHeld: a launch of this project is at work.
    """
    if not os.environ.get(DATABASE_VARIABLE, "").startswith("postgres"):
        raise BadInput(
            "a rented machine spends from the same account, which must be in reach for it",
            where=DATABASE_VARIABLE,
            found="a file of this machine" if not os.environ.get(DATABASE_VARIABLE) else "another kind of database",
            expected="the address of a PostgreSQL database that the machine can reach",
            way_out=f"set {DATABASE_VARIABLE}, or look at the task with `thriftune launch --dry-run`",
        )
    skypilot = sky()
    prepared = prepare_launch(project, setup)
    skypilot.read(prepared.path)
    lock = FileLock(project.root / LAUNCH_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LeaseHeld(
            "a launch of this project is at work",
            str(project.path),
            f"another process holds {LAUNCH_LOCK}",
            "one launch at a time",
            "wait for it, or see how far it is with `thriftune status`",
        ) from None
    try:
        return _launch(project, prepared, skypilot)
    finally:
        lock.release()


def _launch(project: Project, prepared: Launch, skypilot: Sky) -> int:
    clock = SystemClock()
    store, _, ledger, _ = take_up(clock, project, ())
    ledger.open_deadline(project.file.deadline, clock.now())
    _settle_what_was_left(ledger)
    unit = f"{UNIT}: set-up and leaving of {prepared.row.label}"
    reservation = ledger.reserve(PHASE, CATEGORY, prepared.cap.overhead_nano, unit)
    began, metered = clock.now(), _metered_seconds(ledger)
    name = prepared.task["name"]
    try:
        named = [word for secret in prepared.task.get("secrets") or {} for word in ("--secret", secret)]
        status = skypilot.do("launch", "--yes", "--cluster", name, *named, str(prepared.path))
        _fetch(project, name)
    finally:
        gone = skypilot.do("down", "--yes", name) == 0
        seconds = max(0.0, clock.now() - began - (_metered_seconds(ledger) - metered))
        _post(ledger, reservation, prepared.cap.price_per_hour, seconds)
        store.close()
    if not gone:
        raise BadInput(
            "the rented machine could not be taken down",
            where=name,
            found="`sky down` failed",
            expected=f"a machine that is gone; it goes by itself when it has been idle for {IDLE_MINUTES} minutes",
            way_out=f"sky down {name}, and see with `sky status` that it is gone",
        )
    return status


def _fetch(project: Project, name: str) -> None:
    """Bring what the run made to this machine, by the name that SkyPilot gives the machine in ssh's configuration.

    Raises:
        BadInput: it cannot be fetched.
    """
    folders = " ".join(BROUGHT_BACK)
    command = f"cd {REMOTE_FOLDER}/{project.root.name} && mkdir -p {folders} && tar -cf - {folders}"
    try:
        with subprocess.Popen(["ssh", name, command], stdout=subprocess.PIPE) as sent, tempfile.TemporaryFile() as kept:
            shutil.copyfileobj(cast("IO[bytes]", sent.stdout), kept)
            if sent.wait() != 0:
                raise OSError(f"ssh {name} ended with status {sent.returncode}")
            kept.seek(0)
            with tarfile.open(fileobj=kept, mode="r:") as archive:
                archive.extractall(project.root, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise BadInput(
            "what the run made could not be fetched, and its machine is taken down",
            where=name,
            found=str(error),
            expected=f"the folders {folders} of {REMOTE_FOLDER}/{project.root.name}",
            way_out="launch again: what is recorded as done and is not here is done again",
        ) from error


def _left(project: Project, clock: Clock) -> tuple[Decimal, float]:
    """What is left of the budget, and the deadline as an instant: as they are, or as they would begin now."""
    from thriftune.events import latest_attempt
    from thriftune.session import database_url
    from thriftune.store import open_store

    declared = project.file.deadline
    fresh = clock.now() + declared.total_seconds() if isinstance(declared, timedelta) else declared.timestamp()
    store = open_store(database_url(project))
    try:
        last = latest_attempt(store, project.file.name)
        if last is None:
            return project.file.budget.total, fresh
        from thriftune.report.load import read_balance

        balance = read_balance(store, project.file.name)
        if balance is None:
            return project.file.budget.total, fresh
        return balance.left, fresh if balance.deadline_at is None else balance.deadline_at
    finally:
        store.close()


def _metered_seconds(ledger: Ledger) -> float:
    return math.fsum(transfer.seconds for transfer in ledger.transfers())


def _post(ledger: Ledger, reservation: Reservation, price_per_hour: Decimal, seconds: float) -> None:
    cost = upper_cost_nano(int(seconds * NANOSECONDS), price_to_nano(price_per_hour))
    ledger.post(reservation, cost, seconds, estimated=True)


def _settle_what_was_left(ledger: Ledger) -> None:
    """A launch that was killed may have used all that was reserved for it: nobody knows, so it counts in full."""
    for transfer in ledger.transfers():
        if transfer.state == "pending" and transfer.unit.startswith(f"{UNIT}: "):
            nano = int(transfer.reserved.scaleb(9))
            left = Reservation(transfer.id, transfer.phase, transfer.category, transfer.unit, nano)
            ledger.post(left, nano, 0.0, estimated=True)
