"""What a launcher (torchrun, accelerate launch) tells a process, and the command line that makes one start ours.

Nothing heavy is imported here: every command asks whether it was launched.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from thriftune.errors import BadInput

MODULE = ("-m", "thriftune.cli")
SET_BY_LAUNCHERS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
NOTE = "THRIFTUNE_LAUNCH"  # names the file in which the launched tell whoever launched them that they are too few
ALL_PROCESSES = ("num_processes", "n", "np")  # accelerate's; mpirun's
PROCESSES_A_MACHINE, MACHINES = "nproc_per_node", "nnodes"  # torchrun's


def ranks_launched() -> int:
    """How many processes were launched together; 1 where no launcher did."""
    if any(name not in os.environ for name in SET_BY_LAUNCHERS):
        return 1
    return int(os.environ["WORLD_SIZE"])


def rank_here() -> int:
    """This process's number among them, from 0."""
    return int(os.environ["RANK"]) if ranks_launched() > 1 else 0


def ranks_on_this_machine() -> int:
    """How many of them share this machine's cores and memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if ranks_launched() > 1 else 1


def machines_launched() -> int:
    """How many machines they run on: those are what is paid for."""
    return max(1, ranks_launched() // ranks_on_this_machine())


def command(launcher: str, arguments: Sequence[str]) -> list[str]:
    """The launcher's command line with ours after it.

    Args:
        launcher: such as `torchrun --nproc-per-node 2`; a program that stands beside the running Python is found
            without PATH.
        arguments: of `thriftune`.

    Raises:
        BadInput: no words, an open quote, or a program that is not there.
    """
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise _no_launcher(launcher, str(error)) from error
    if not words:
        raise _no_launcher(launcher, "nothing")
    beside = Path(sys.executable).parent / words[0]
    program = str(beside) if beside.is_file() else shutil.which(words[0])
    if program is None:
        raise _no_launcher(launcher, f"no program {words[0]}")
    return [program, *words[1:], *MODULE, *arguments]


def stated_processes(launcher: str) -> int | None:
    """How many processes a launcher is asked to start, on all machines together; None where its options do not say.

    >>> stated_processes("torchrun --nnodes=2 --nproc-per-node 4"), stated_processes("torchrun --nproc-per-node gpu")
    (8, None)
    """
    words = re.findall(r"(?<!\S)--?([A-Za-z][\w-]*)(?:=|\s+)([^\s-]\S*)", launcher)
    options = {name.replace("-", "_"): value for name, value in words}
    numbers = {name: int(value) for name, value in options.items() if value.isdecimal()}
    for name in ALL_PROCESSES:
        if name in numbers:
            return numbers[name]
    machines = numbers.get(MACHINES, None if MACHINES in options else 1)
    a_machine = numbers.get(PROCESSES_A_MACHINE)
    return None if a_machine is None or machines is None else a_machine * machines


def note_for(launcher: str, folder: Path) -> dict[str, str]:
    """The environment that lets the launched compare their number with the stated one; empty where none is stated."""
    stated = stated_processes(launcher)
    if stated is None:
        return {}
    note = folder / "launched.json"
    note.write_text(json.dumps({"stated": stated}))
    return {NOTE: str(note)}


def as_stated() -> bool:
    """Whether this process is one of as many as its launcher was asked for; if not, that is noted for `check`."""
    note = Path(os.environ.get(NOTE, os.devnull))
    if not note.is_file():
        return True
    stated, found = json.loads(note.read_text())["stated"], ranks_launched()
    if found != stated:
        note.write_text(json.dumps({"stated": stated, "found": found}))
    return bool(found == stated)


def check(launcher: str, environment: dict[str, str]) -> None:
    """Refuse a launch whose processes noted that they are fewer or more than stated.

    Args:
        launcher: with its options.
        environment: of `note_for`.

    Raises:
        BadInput: they did.
    """
    noted = json.loads(Path(environment[NOTE]).read_text()) if environment else {}
    if "found" in noted:
        alone = noted["found"] == 1
        raise BadInput(
            "the launcher started another number of processes than it was asked for; nothing was trained",
            where=f"--launch {launcher!r}",
            found="processes that know of no other" if alone else f"{noted['found']} processes",
            expected=f"{noted['stated']} that share RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
            way_out="torchrun --nproc-per-node, or on a machine without GPUs accelerate launch --multi_gpu, whose"
            " --cpu starts one process",
        )


def _no_launcher(launcher: str, found: str) -> BadInput:
    return BadInput(
        "there is no such launcher",
        where=f"--launch {launcher!r}",
        found=found,
        expected="a program that starts a Python module in several processes, with its options",
        way_out='--launch "torchrun --nproc-per-node 2", or accelerate launch',
    )
