"""The part of the line that finds what the project file leaves open: options of training, by cross-validation.

It stands between the baselines and encoding; what comes after is the same as if the project file had stated what was
found (`pipeline.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from thriftune.errors import BadInput
from thriftune.project.project import Project
from thriftune.session import Session

if TYPE_CHECKING:
    import polars as pl

    from thriftune.prepare.types import Splits
    from thriftune.train.options import TrainOptions
    from thriftune.train.train import Work


def check(project: Project, alone: bool) -> None:
    """Refuse a search where it is not made.

    Args:
        project: what to do.
        alone: whether one process trains, on this machine.

    Raises:
        BadInput: it is to search, and several processes or a provider are to train.
    """
    if project.file.search is None or alone:
        return
    raise BadInput(
        "a search trains on this machine, in one process",
        where="search",
        found="several processes, or a model that its provider tunes",
        expected="a model that is trained here, by thriftune run",
        way_out="leave search out; what a search of one process found can be stated under train",
    )


def searched(session: Session, splits: Splits, meant: Callable[[str], str], room_of: Callable[[float], float]) -> None:
    """Find what the project file leaves open; the session goes on with a project that states it.

    Args:
        session: the run.
        splits: the prepared rows, of which only those to train on are seen.
        meant: the model that a reference means in this attempt.
        room_of: of the seconds that are left for search and training, those that the search is to see.
    """
    file, context = session.project.file, session.context
    if file.search is None:
        return
    import polars as pl

    from thriftune.search import search
    from thriftune.search.options import train_options
    from thriftune.train.machine import choose_machine
    from thriftune.train.setup import work_of

    target = file.objective.target

    def work(reference: str, options: TrainOptions, train: pl.DataFrame, held_out: pl.DataFrame) -> Work:
        return work_of(
            splits.task,
            meant(reference),
            session.project.folder,
            options,
            file.seed,
            splits.content_hash,
            train,
            held_out,
            target.metric if target else None,
            file.parts,
            splits.by_part,
        )

    sought = search.Sought(
        options=file.search,
        train=file.train,
        reference=file.model_references[0],
        task=splits.task,
        rows=pl.read_parquet(splits.train),
        data_hash=splits.content_hash,
        work_of=work,
        choose_machine=lambda width: choose_machine(session.decisions.take, width, file.train),
    )
    worth = file.objective.worth
    with session.part("search", metered=False) as span:
        room = room_of(session.limits().seconds - session.outlook.after("search"))
        found, span.reused = search.run(
            sought,
            search.Means(
                room=room,
                worth_per_score=None if worth is None else 100 * float(worth.per_point_over_horizon()),
                decisions=session.decisions,
                earlier=context.events.read(attempt=context.attempt),
                interrupted=session.interrupted,
            ),
            context,
        )
    options = train_options(file.train, found.values)
    models = (found.values.get("model", sought.reference), *file.model_references[1:])
    decided = file.model_copy(update={"train": options, "models": models})
    session.project = replace(session.project, file=decided)
