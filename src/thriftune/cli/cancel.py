"""`thriftune cancel`: end tuning jobs that go on at their provider."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from thriftune.errors import BadInput


def cancel(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
) -> None:
    """Cancel the tuning jobs that the project's runs have sent; the next run settles what they cost."""
    from thriftune.cli.records import load_project, opened
    from thriftune.clock import SystemClock
    from thriftune.events import EventLog
    from thriftune.managed.backends import open_backend, provider_of
    from thriftune.managed.job import WHAT
    from thriftune.managed.patience import patiently

    loaded = load_project(project)
    reference = loaded.file.model_references[0]
    with opened(loaded) as store:
        events = [] if store is None else EventLog(store, SystemClock(), loaded.file.name, 0).read(kinds=["decision"])
    names = dict.fromkeys(str(e.data["chosen"]) for e in events if e.data["what"].startswith(f"{WHAT} "))
    if not names or provider_of(reference, loaded.folder) is None:
        raise BadInput(
            "there is no tuning job to cancel",
            where=str(project),
            found=f"models: {reference}" + ("" if names else ", and no job that a run has sent"),
            expected="a managed model whose tuning job is at work",
            way_out="`thriftune run` sends one; what is trained on this machine is stopped with Ctrl-C",
        )
    backend = open_backend(reference).backend
    for name in names:
        job = patiently(partial(backend.get, name))
        if job.ended:
            print(f"{name} has ended already: {job.told}")
            continue
        patiently(partial(backend.cancel, name))
        told = patiently(partial(backend.get, name)).told
        print(f"{name}: {told}; what it cost stays reserved until the next `thriftune run` settles it")
