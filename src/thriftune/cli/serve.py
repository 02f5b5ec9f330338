"""`thriftune serve`: the latest tuned model behind HTTP."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thriftune.errors import BadInput
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    from thriftune.deploy.release import Release
    from thriftune.project import Project

PREDICT = """curl {address}/predict -H 'Content-Type: application/json' -d '{{{part}"text": "…"}}'"""
COMPLETE = (
    "curl {address}/v1/chat/completions -H 'Content-Type: application/json'"
    """ -d '{{"messages": [{{"role": "user", "content": "…"}}]}}'"""
)


def serve(
    project: Annotated[Path, typer.Argument(help="The project file.")] = Path("thriftune.yaml"),
    host: Annotated[str | None, typer.Option(help="The address to listen on; deploy.host by default.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="0 takes a free one; deploy.port by default.")
    ] = None,
) -> None:
    """Serve the latest tuned model until Ctrl-C; what is in flight is answered first."""
    from thriftune.cli.records import load_project
    from thriftune.deploy.access import service_token
    from thriftune.tasks.heads import heads_of

    loaded = load_project(project)
    stated = {"host": host, "port": port}
    options = loaded.file.deploy.model_copy(update={name: value for name, value in stated.items() if value is not None})
    token = service_token(options.host, options.token_env, os.environ)  # before the models are loaded
    release = open_latest(loaded)

    from thriftune.deploy.serve import serve as serve_release

    def ready(address: str) -> None:
        print(f"{release.name} answers at {address} (/healthz, /metrics); Ctrl-C stops it", flush=True)
        header = f' -H "Authorization: Bearer ${options.token_env}"' if token else ""
        example = COMPLETE if kind_of(release.task).generates else PREDICT
        part = "".join(f'"part": {json.dumps(part)}, ' for part in heads_of(release.predictor)[:1])
        print("  " + example.format(address=address, part=part) + header, flush=True)

    serve_release(release.predictor, release.clean, release.task, options, release.name, ready=ready)


def open_latest(project: Project) -> Release:
    """The project's latest tuned model, in memory.

    Raises:
        BadInput: there is none.
    """
    from thriftune.artifacts import ArtifactStore
    from thriftune.cli.records import opened
    from thriftune.clock import SystemClock
    from thriftune.deploy.release import latest_tuned, open_release
    from thriftune.events import EventLog

    name, clock = project.file.name, SystemClock()
    with opened(project) as store:
        if store is None:
            raise BadInput(
                "there is no tuned model to serve",
                where=str(project.path),
                found="no run yet",
                expected="a model that `thriftune run` tuned",
                way_out="run `thriftune run` first",
            )
        events = EventLog(store, clock, name, attempt=0)
        artifact = latest_tuned(events, ArtifactStore(project.root, store, clock, name))
    return open_release(artifact)
