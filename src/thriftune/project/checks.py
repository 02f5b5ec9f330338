"""The project file against the world: the clock, the price table, the folder that it lies in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from thriftune.clock import utc
from thriftune.collect.options import Source, forms_for
from thriftune.errors import BadInput
from thriftune.managed.backends import adapter_rank, check_task
from thriftune.models.reference import ModelReference
from thriftune.money.prices import Price, PriceTable, local_price
from thriftune.project.file import ProjectFile
from thriftune.project.nearest import nearest
from thriftune.project.problems import Problem, shown


def priced(file: ProjectFile, table: PriceTable | None) -> tuple[Price | None, list[Problem]]:
    """What an hour of the project's machine costs, or the problem with that.

    Args:
        file: the project file.
        table: the price table; None reads the user's, and only where it is needed.
    """
    compute, currency = file.compute, file.budget.currency
    if compute.price_per_hour is not None:
        stated = Price(
            machine=compute.machine,
            per_hour=compute.price_per_hour,
            region=compute.region or "",
            market=compute.market,
            currency=currency,
            source="compute.price_per_hour",
        )
        return stated, []
    if compute.machine == "local":
        assumed_in = currency if "local" in compute.model_fields_set else "USD"
        price = local_price(compute.local, assumed_in)
    else:
        try:
            price = (table or PriceTable.load()).find(compute.machine, compute.region, compute.market)
        except BadInput as error:
            return None, [Problem(("compute", "machine"), error.what, error.found, error.expected, error.way_out)]
    if price.currency != currency:
        return price, [
            Problem(
                ("budget", "currency"),
                "the price is in another currency",
                f"{currency}; {price.label} is priced in {price.currency}",
                f"{price.currency}, or a price in {currency}",
                f"state compute.price_per_hour in {currency}",
            )
        ]
    return price, []


def problems_to_run(file: ProjectFile, folder: Path, now: float) -> Iterator[Problem]:
    """What stands in the way of a run that begins now: a deadline that is past, data that is not there."""
    if isinstance(file.deadline, datetime) and file.deadline.timestamp() <= now:
        moment = f"{utc(now):%Y-%m-%d %H:%M} UTC"
        yield Problem(
            ("deadline",),
            "the deadline is in the past",
            f"{file.deadline:%Y-%m-%d %H:%M} UTC",
            f"an instant after {moment}, or a duration such as 20m",
            "give it more time",
        )
    for index, source in enumerate(file.data):
        yield from _file_problems(source, index, folder)


def problems_in(file: ProjectFile, folder: Path) -> Iterator[Problem]:
    """What the file says that can never be."""
    for index, source in enumerate(file.data):
        yield from _source_problems(source, index, file.objective.task)
    for model in file.model_references:
        yield from _model_problems(model, folder, file.objective.task)
        yield from _setting_problems(model, file, folder)
    try:
        file.select.baselines_for(file.objective.task)
    except BadInput as error:
        yield Problem(("select", "baselines"), error.what, error.found, error.expected, error.way_out)


def _file_problems(source: Source, index: int, folder: Path) -> Iterator[Problem]:
    path = folder / source.file
    try:
        path = folder / Path(source.file).expanduser()
        kind = "a directory" if path.is_dir() else "a file" if path.exists() else "nothing"
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, with a NUL, of a user who is not there
        kind = str(error)
    if kind != "a file":
        yield Problem(
            ("data", index, "file"),
            "there is no such data file",
            f"{source.file}: {kind}" + _like(path),
            f"a file, looked for at {shown(str(path))}",
            "name the file, from the project file's folder",
        )


def _source_problems(source: Source, index: int, task: str) -> Iterator[Problem]:
    if source.task != task:
        yield Problem(
            ("data", index),
            f"these columns are not for the task {task}",
            ", ".join(source.columns),
            forms_for(task),
            f"name the columns for {task}, or set objective.task: {source.task}",
        )


def _like(path: Path) -> str:
    """A hint at the file in the same folder whose name is most like it."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except (OSError, ValueError):
        return ""
    return f"; nearest: {nearest(path.name, names)}" if names else ""


def _model_problems(text: str, folder: Path, task: str) -> Iterator[Problem]:
    try:
        if (folder / Path(text).expanduser()).is_dir():
            return
        reference = ModelReference.parse(text)
    except (OSError, ValueError, RuntimeError) as error:
        yield Problem(("models",), "this names no model", shown(text), str(error), "name a model")
        return
    except BadInput as error:
        yield Problem(("models",), error.what, error.found, error.expected, error.way_out)
        return
    try:
        check_task(str(reference), task)
    except BadInput as error:
        yield Problem(("models",), error.what, error.found, error.expected, error.way_out)


def _setting_problems(text: str, file: ProjectFile, folder: Path) -> Iterator[Problem]:
    try:
        adapter_rank(text, file.train, folder)
    except BadInput as error:
        if error.where.startswith("train."):  # another one is told of the model itself
            yield Problem(tuple(error.where.split(".")), error.what, error.found, error.expected, error.way_out)
