"""`thriftune run` and `thriftune plan`: the line, and what it will take."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from thriftune.errors import EXIT_BAD_INPUT

if TYPE_CHECKING:
    from thriftune.cli.progress import Subscriber
    from thriftune.project import Project

PROJECT_ARGUMENT = Annotated[Path, typer.Argument(help="The project file.")]


def run(
    project: PROJECT_ARGUMENT = Path("thriftune.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON, one a line, for programs.")] = False,
    no_queue: Annotated[
        bool, typer.Option("--no-queue", help="Where another project has this machine, refuse at once (status 2).")
    ] = False,
) -> None:
    """Do it all, inside budget and deadline; go on where an earlier run stopped, or watch the one at work.

    Where another project is at work on this machine, it waits for its turn, which costs nothing.
    """
    from thriftune import pipeline
    from thriftune.cli.progress import watch
    from thriftune.cli.report import show_report
    from thriftune.project import Project
    from thriftune.queueing import in_turn
    from thriftune.train.launch import as_stated, rank_here, ranks_launched

    if not as_stated():
        raise typer.Exit(EXIT_BAD_INPUT)  # whoever launched it says so
    if rank_here() > 0:
        _follow(project)
        return
    loaded = Project.load(project)
    if ranks_launched() == 1:
        if _watched(loaded, as_json):
            return
        interrupted = _on_interrupt()
        with watch(loaded, as_json) as listener:
            page = in_turn(
                loaded,
                lambda turn, stop: pipeline.run(loaded, [listener], stop, turn=turn),
                [listener],
                interrupted,
                waits=not no_queue,
                afresh=lambda: _afresh(listener),
            )
    else:
        from thriftune.train.ranks import join

        interrupted = _on_interrupt()
        group = join()
        with group.leading(), watch(loaded, as_json) as listener:
            page = pipeline.run(loaded, [listener], interrupted, group)
    if not as_json:
        show_report(loaded, page)


def _afresh(listener: Subscriber) -> None:
    """Begin this process anew, as it was called: what it held of the machine's memory is free for the next."""
    listener.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def train(
    project: PROJECT_ARGUMENT = Path("thriftune.yaml"),
    launch: Annotated[
        str,
        typer.Option("--launch", help="A launcher with its options, such as 'torchrun --nproc-per-node 2'."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON, one a line, for programs.")] = False,
) -> None:
    """The same as `run`, in the processes that a launcher starts; prints the command and runs it."""
    if not launch:
        run(project, as_json)
        return
    from thriftune.project import Project
    from thriftune.train.launch import check, command, note_for

    words = command(launch, ["run", str(project), *(["--json"] if as_json else [])])
    loaded = Project.load(project)
    if _watched(loaded, as_json):
        return
    print(shlex.join(words), file=sys.stderr if as_json else sys.stdout, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = note_for(launch, Path(folder))
        status = _launched(words, environment)
        check(launch, environment)
    if status:
        raise typer.Exit(_status_of(loaded, status))


def _launched(words: list[str], environment: dict[str, str]) -> int:
    """Run a launcher to its end, handing on the signals that ask to stop; its exit status."""
    quieter = (
        {"TORCH_CPP_LOG_LEVEL": "ERROR"} | os.environ | environment
    )  # what torch warns of is no concern of the user's
    with subprocess.Popen(words, start_new_session=True, env=quieter) as launcher:

        def hand_on(number: int, frame: FrameType | None) -> None:
            launcher.send_signal(number)

        signal.signal(signal.SIGINT, hand_on)
        signal.signal(signal.SIGTERM, hand_on)
        return launcher.wait()


def _status_of(project: Project, launcher: int) -> int:
    """The exit status of what was launched; launchers answer 1 whatever became of it."""
    from thriftune.cli.records import opened
    from thriftune.errors import EXIT_INTERRUPTED
    from thriftune.events import latest_attempt

    with opened(project) as store:
        ended = None if store is None else latest_attempt(store, project.file.name)
    if ended is None or ended.exit_code == 0:
        return launcher
    return EXIT_INTERRUPTED if ended.exit_code is None else ended.exit_code


def _follow(path: Path) -> None:
    """Be one of the processes that train as the first one orders; what cannot be done is told by that one.

    Raises:
        typer.Exit: with the status of what went wrong.
    """
    from thriftune.errors import ThriftuneError
    from thriftune.project import Project
    from thriftune.train.ranks import join
    from thriftune.train.worker import follow, prepared

    group = join()
    try:
        loaded = Project.load(path)
        file = loaded.file
        watch = file.objective.target.metric if file.objective.target else None
        project = (loaded.root, loaded.folder, file.train, file.seed, watch, file.parts)
        follow(group, lambda order: prepared(group, order, *project))
    except ThriftuneError as error:
        group.refuse(error)
        raise typer.Exit(error.exit_code) from error


def plan(
    project: PROJECT_ARGUMENT = Path("thriftune.yaml"),
    compare: Annotated[
        bool, typer.Option("--compare", help="Beside it the same run on other machines, and by managed tuning.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="With --compare: write cost against time as FILE.svg.", show_default=False)
    ] = None,
    budget: Annotated[str | None, typer.Option(help="What if the whole budget were this?", show_default=False)] = None,
    deadline: Annotated[
        str | None, typer.Option(help="What if the deadline were this, a duration or a date?", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="What if the metric had to come to this?", show_default=False)
    ] = None,
    rows: Annotated[str | None, typer.Option(help="What if there were so many rows?", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON.")] = False,
) -> None:
    """What each phase will cost and when it ends; the probe of real steps is metered like everything else.

    With --budget, --deadline, --target or --rows also what it would be; the project file stays as it is.
    """
    from thriftune import pipeline
    from thriftune.cli.plan import check_picture, show_plan
    from thriftune.cli.progress import watch
    from thriftune.cli.whatif import parse_question
    from thriftune.project import Project

    check_picture(picture, compare)
    question = parse_question(budget, deadline, target, rows)
    loaded = Project.load(project)
    with watch(loaded, quiet=as_json) as listener:
        found = pipeline.ask(loaded, question, [listener])
    show_plan(loaded, found, as_json, compare, picture)


def _watched(project: Project, as_json: bool) -> bool:
    """If another process is at work on the project, show its progress to the end instead of starting a second one.

    Raises:
        typer.Exit: with the status that it ended with, where that is not 0.
    """
    from thriftune.cli.records import opened
    from thriftune.cli.status import attach
    from thriftune.errors import EXIT_INTERRUPTED
    from thriftune.events import latest_attempt
    from thriftune.report.state import is_alive, owner_of

    with opened(project) as store:
        owner = None if store is None else owner_of(store, project.file.name)
        if store is None or owner is None or not is_alive(owner, time.time()):
            return False
        print(f"process {owner.owner_pid} is at work on this project; showing its progress", file=sys.stderr)
        attach(store, project, as_json)
        ended = latest_attempt(store, project.file.name)
        if ended is not None and ended.outcome is None:
            print("it ended without notice; the same command goes on from its last checkpoint", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED)
        if ended is not None and ended.exit_code:
            raise typer.Exit(ended.exit_code)
    return True


def _on_interrupt() -> Callable[[], bool]:
    """Ctrl-C (and SIGTERM) once: stop at the next safe moment; a second time: at once."""
    from thriftune.train.launch import ranks_launched

    asked: list[int] = []
    launched = ranks_launched() > 1  # then the launcher signals too, once more, and ends what does not end

    def note(number: int, frame: FrameType | None) -> None:
        if asked and launched:
            return
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if not launched:
            print("stopping at the next safe moment; press Ctrl-C again to stop at once", file=sys.stderr)
        elif number == signal.SIGINT:  # SIGTERM comes when another process is gone, which is told in full
            print("stopping at the next safe moment", file=sys.stderr)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    return lambda: bool(asked)
