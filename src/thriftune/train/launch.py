"""What a launcher (torchrun, accelerate launch) tells a process, and the command line that makes one start ours.

Nothing heavy is imported here: every command asks whether it was launched.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from thriftune.errors import BadInput

MODULE = ("-m", "thriftune.cli")
SET_BY_LAUNCHERS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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


def _no_launcher(launcher: str, found: str) -> BadInput:
    return BadInput(
        "there is no such launcher",
        where=f"--launch {launcher!r}",
        found=found,
        expected="a program that starts a Python module in several processes, with its options",
        way_out='--launch "torchrun --nproc-per-node 2", or accelerate launch',
    )
