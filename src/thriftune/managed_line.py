"""The part of the line in which a model is trained by somebody else: priced, sent, waited for.

It stands in the place of encoding, loading, probing and training; what comes before and after is the same for every
model (`pipeline.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thriftune.artifacts import Artifact, recipe_key
from thriftune.budget.forecast import Forecast
from thriftune.errors import BadInput
from thriftune.forecasting import forecast_managed
from thriftune.managed import job, task
from thriftune.managed.backends import Opened, adapter_rank, open_backend, provider_of
from thriftune.managed.job import PHASE, Quote, Tuning, at_work, is_reserved
from thriftune.managed.task import ManagedTask
from thriftune.managed.types import Order
from thriftune.money.amounts import from_nano
from thriftune.money.tokens import Tariff, TokenMeter, tariff_of
from thriftune.plan.plan import Plan, cannot_land
from thriftune.session import Session
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    from thriftune.prepare.types import Splits
    from thriftune.tasks.base import Request

STAGE_VERSION = 1
ASKED_PHASE = "evaluation"
NAME_LENGTH = 60  # of the project's name in a job's, which may have 128 characters


@dataclass(frozen=True)
class Ordered:
    """A managed tuning, before it is sent.

    Args:
        opened: the base model there.
        task: what it is tuned for.
        tariff: the prices of its tokens.
        requests: of the training rows.
        targets: their answers.
        epochs: passes over them.
        rank: of the adapters; None for the provider's choice.
        key: the recipe key.
    """

    opened: Opened
    task: ManagedTask
    tariff: Tariff
    requests: Sequence[Request]
    targets: Sequence[str]
    epochs: int
    rank: int | None
    key: str


def ordered(session: Session, splits: Splits, alone: bool = True) -> Ordered:
    """What the project wants trained elsewhere; nothing is sent yet.

    Args:
        session: the run.
        splits: the prepared rows.
        alone: whether this is the only process of the run.

    Raises:
        BadInput: the provider cannot do it, its client is not installed, or a price is not known.
    """
    import polars as pl

    from thriftune.evaluate.asking import requests_of

    project, context = session.project, session.context
    file = project.file
    reference = file.model_references[0]
    provider = provider_of(reference, project.folder)
    assert provider is not None
    if not alone:
        raise BadInput(
            "several processes cannot train a managed model",
            where="--launch",
            found=reference,
            expected="one process: the provider trains",
            way_out="run it without --launch",
        )
    rank = adapter_rank(reference, file.train)
    opened = open_backend(reference)
    tariff = tariff_of(provider.prices, opened.model, file.budget.currency)
    if old := tariff.warning(context.clock.now()):
        context.events.emit("warning", where="token prices", what=old)
    train = pl.read_parquet(splits.train)
    if len(train) < provider.fewest_rows:
        raise BadInput(
            "there are too few rows for a tuning job",
            where="the training split",
            found=f"{len(train)} rows",
            expected=f"at least {provider.fewest_rows}",
            way_out="add rows, or give training a larger share in prepare.split",
        )
    targets = train["target"].to_list()
    meter = TokenMeter(context.ledger, tariff, ASKED_PHASE, context.meter.fence)
    managed = task.task_of(splits.task, reference, targets, meter)
    epochs = file.train.epochs or kind_of(splits.task).epochs
    recipe = {"task": managed.describe(), "epochs": epochs, "rank": rank}
    key = recipe_key("train", STAGE_VERSION, {"splits": splits.content_hash}, recipe, {})
    return Ordered(opened, managed, tariff, requests_of(train), targets, epochs, rank, key)


def priced(session: Session, splits: Splits, order: Ordered) -> tuple[Plan, Quote]:
    """What the job and the answers will cost, held against money and time before anything is bought.

    Raises:
        CannotLand: they do not fit; names the job's cost and the minimum that works.
        BadInput: the provider refuses to count the rows' tokens.
    """
    import polars as pl

    from thriftune.evaluate.asking import drawn, requests_of

    file = session.project.file
    questions = [order.task.question(request) for request in order.requests]
    reference = file.model_references[0]
    with session.part("quote", f"quote/{reference}", len(questions)):
        quote = job.quote(
            order.opened.backend, order.opened.model, questions, order.targets, order.epochs, order.tariff.training
        )
    session.context.events.emit("job.quoted", what=str(quote))
    test = pl.read_parquet(splits.test)
    asked = drawn(test, file.evaluate.generate_rows) if kind_of(splits.task).generates_when_asked else test
    tests = [order.task.question(request) for request in requests_of(asked)]
    answers = order.tariff.answers_nano(
        sum(question.most_input_tokens for question in tests), sum(question.most_output_tokens for question in tests)
    )
    session.to_buy = {who: from_nano(answers) for who in ("untuned", "tuned")}
    if not is_reserved(session.context.ledger, display_name(session, order)):
        session.to_buy["job"] = from_nano(quote.upper_nano)
    plan = session.plan(tokens=quote.counted * quote.epochs)
    if plan.surely_needed > plan.limits.seconds:
        raise cannot_land(plan, str(quote))
    likely, most = (float(from_nano(quote.price.cost_nano(n * quote.epochs))) for n in (quote.counted, quote.most))
    cost = Forecast.of((likely, likely, likely, (likely + most) / 2, most), "measured")
    forecast_managed(session, plan, cost, 2 * float(from_nano(answers)))
    return plan, quote


def trained(session: Session, splits: Splits, order: Ordered, quote: Quote) -> Artifact:
    """The tuned model: an artifact that names its endpoint."""
    context, project = session.context, session.project
    context.events.emit("stage.started", stage="train", key=order.key)
    began, name = context.clock.now(), display_name(session, order)
    fresh = not is_reserved(context.ledger, name)
    for other in at_work(context.ledger):
        if not other.startswith(f"{name}-"):
            told = f"{other} may be at work, of rows or settings that were changed since; `thriftune cancel` ends it"
            context.events.emit("warning", where="tuning job", what=told)
    session.to_buy.pop("untuned", None)
    session.to_buy.pop("job", None)  # reserved from here on
    tuning = Tuning(
        order.opened.backend,
        Order(
            name,
            f"Thriftune, project {project.file.name}, attempt {context.attempt}",
            order.opened.model,
            "",
            order.epochs,
            order.rank,
        ),
        quote,
        context,
        session.decisions,
        lambda: session.limits().seconds,
        lambda: session.outlook.after("train"),
        session.interrupted,
    )

    def write(folder: Path) -> None:
        with session.watching(PHASE):
            done = tuning.run(order.task.lines(order.requests, order.targets))
        task.save(order.task, done.endpoint, order.opened.place, done.name, splits.serving_steps, folder)

    recipe = order.task.describe() | {"epochs": order.epochs, "rank": order.rank}
    artifact = context.artifacts.build("train", order.key, recipe, write)
    seconds = context.clock.now() - began
    if fresh:  # else an earlier process waited for a part of it
        session.record.add(f"job/{project.file.model_references[0]}", seconds)
        session.record.save()
    context.events.emit("stage.finished", stage="train", key=order.key, seconds=seconds, reused=False)
    session.outlook.done("train")
    return artifact


def display_name(session: Session, order: Ordered) -> str:
    """By which the job is found at its provider: of the project and the recipe."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in session.project.file.name)
    return f"thriftune-{name[:NAME_LENGTH]}-{order.key[:16]}"
