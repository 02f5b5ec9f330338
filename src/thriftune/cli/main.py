"""The command line: parse, call, print. Every command's work is in the packages; every error ends here.

Exit status: 0 done, 2 bad input, 3 cannot be done within budget or deadline, 130 interrupted (resumable), 1 a defect
of ours, with a crash file.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import typer

from thriftune.cli.commands import app
from thriftune.errors import EXIT_DEFECT, EXIT_INTERRUPTED, ThriftuneError


def main() -> NoReturn:
    """Run one command and leave at once.

    The process ends with `os._exit`, output flushed: tearing down a large interpreter costs metered seconds and
    nothing in it is still needed.
    """
    try:
        returned = app(standalone_mode=False)  # click hands back the status of typer.Exit
        status = returned if isinstance(returned, int) else 0
    except typer.Exit as leave:
        status = leave.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except ThriftuneError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_code
    except Exception as error:
        status = _usage(error) or _crash(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _usage(error: Exception) -> int:
    """Print a wrong use of the command line and return its status, or 0 if `error` is something else."""
    shown = getattr(error, "format_message", None)
    if shown is None:
        return 0
    print(f"error: {shown()}", file=sys.stderr)
    print("  way out:  thriftune --help lists the commands and their options", file=sys.stderr)
    return int(getattr(error, "exit_code", 2))


def _crash(error: Exception) -> int:
    """Write the traceback of a defect of ours to a file and say where it is."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    text = "".join(traceback.format_exception(error))
    name = f"thriftune-crash-{stamp}-{os.getpid()}.txt"
    for folder in (Path.cwd() / ".thriftune", Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(f"thriftune {' '.join(sys.argv[1:])}\n\n{text}")
        except OSError:
            continue
        print(f"error: a defect of ours: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"  way out:  what was done is kept; please report {folder / name}", file=sys.stderr)
        return EXIT_DEFECT
    print(text, file=sys.stderr)
    return EXIT_DEFECT
