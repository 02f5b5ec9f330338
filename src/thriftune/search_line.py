"""The part of the line that finds what the project file leaves open: options of training, by cross-validation.

It stands between the baselines and encoding; what comes after is the same as if the project file had stated what was
found (`pipeline.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from thriftune.cluster.options import LOCAL
from thriftune.errors import BadInput
from thriftune.forecasting import money_for
from thriftune.project.project import Project
from thriftune.session import DATABASE_VARIABLE, Session, database_url

if TYPE_CHECKING:
    import polars as pl

    from thriftune.prepare.types import Splits
    from thriftune.train.options import TrainOptions
    from thriftune.train.train import Work


@dataclass(frozen=True)
class WorkMaker:
    """Makes the work of a model and options; a plain value, so that a search's workers can have it.

    Args:
        task: a name in `tasks/kinds.py`.
        meant: the model that each reference means in this attempt.
        folder: what a relative model path is relative to.
        seed: the run's.
        data_hash: content hash of the splits.
        watch: the validation figure that chooses the best checkpoint; None for the task's own.
        parts: the names of the data's parts.
        by_part: whether each part has a head of its own.
    """

    task: str
    meant: Mapping[str, str]
    folder: Path
    seed: int
    data_hash: str
    watch: str | None
    parts: tuple[str, ...]
    by_part: bool

    def __call__(self, reference: str, options: TrainOptions, train: pl.DataFrame, held_out: pl.DataFrame) -> Work:
        """The work of a model with these options on rows to train on and rows held out."""
        from thriftune.train.setup import work_of

        return work_of(
            self.task,
            self.meant[reference],
            self.folder,
            options,
            self.seed,
            self.data_hash,
            train,
            held_out,
            self.watch,
            self.parts,
            self.by_part,
        )

    def run_through(self, reference: str) -> float:
        """Parameters that a request runs through: all but the tables that a model looks its tokens up in."""
        from thriftune.models.reference import resolve

        model = resolve(self.meant[reference], base=self.folder)
        return float(model.parameters - model.embedding_parameters)


def check(project: Project, alone: bool) -> None:
    """Refuse a search where it is not made.

    Args:
        project: what to do.
        alone: whether one process trains, on this machine.

    Raises:
        BadInput: it is to search, and several processes or a provider are to train.
    """
    if project.file.search is None:
        return
    if alone:
        _check_reach(project)
        return
    raise BadInput(
        "a search trains on this machine, in one process",
        where="search",
        found="several processes, or a model that its provider tunes",
        expected="a model that is trained here, by thriftune run",
        way_out="leave search out; what a search of one process found can be stated under train",
    )


def _check_reach(project: Project) -> None:
    """Refuse a cluster of other machines that cannot reach the project's database."""
    cluster = project.file.compute.cluster
    if cluster is None or cluster.address == LOCAL or not database_url(project).startswith("sqlite"):
        return
    raise BadInput(
        "the nodes of a cluster write to the project's database, which must be in reach for them",
        where="compute.cluster",
        found="a file of this machine",
        expected=f"the address of a PostgreSQL database in {DATABASE_VARIABLE}",
        way_out=f"set {DATABASE_VARIABLE}, or have a cluster made on this machine with address: local",
    )


def work_maker(session: Session, splits: Splits, meant: Mapping[str, str]) -> WorkMaker:
    """Makes the work of a run's models, on other rows than its own too."""
    file = session.project.file
    target = file.objective.target
    return WorkMaker(
        splits.task,
        meant,
        session.project.folder,
        file.seed,
        splits.content_hash,
        target.metric if target else None,
        file.parts,
        splits.by_part,
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
    from thriftune.search.types import Means, Sought
    from thriftune.train.machine import choose_machine

    references = [file.model_references[0], *map(str, file.search.space.get("model", ()))]
    make = work_maker(session, splits, {reference: meant(reference) for reference in references})
    sought = Sought(
        options=file.search,
        train=file.train,
        reference=file.model_references[0],
        task=splits.task,
        rows=pl.read_parquet(splits.train),
        data_hash=splits.content_hash,
        work_of=make,
        choose_machine=lambda width: choose_machine(session.decisions.take, width, file.train, session.record),
        serving_of=make.run_through,
        nodes=file.compute.cluster,
    )
    worth = file.objective.worth
    with session.part("search", metered=False) as span:
        room = room_of(session.limits().seconds - session.outlook.after("search"))
        found, span.reused = search.run(
            sought,
            Means(
                room=room,
                money=money_for(session.limits(), room),
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
