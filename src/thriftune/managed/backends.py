"""The providers, by the scheme of a model's reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thriftune.errors import BadInput
from thriftune.models.reference import ModelReference
from thriftune.tasks.kinds import TaskName

if TYPE_CHECKING:
    from pathlib import Path

    from thriftune.managed.types import Backend
    from thriftune.train.options import TrainOptions

SETTINGS = ("epochs", "lora", "method")  # the options of training that a tuning job knows


@dataclass(frozen=True)
class Opened:
    """A model that a provider has.

    Args:
        backend: the provider.
        model: what it calls the model: a base model or an endpoint.
        place: where the provider has it, to be opened again; no secret.
    """

    backend: Backend
    model: str
    place: dict[str, str]


@dataclass(frozen=True)
class Provider:
    """A provider of managed models.

    Args:
        prices: its name in the table of token prices.
        tasks: what its models can be tuned for.
        ranks: of adapters, that can be asked for.
        fewest_rows: that it trains on.
        thinking: tokens, at the least, that a model thinks before it answers, by the start of its name; tuned models
            are taught without thoughts.
        job_seconds: a prior of how long a tuning job takes.
        connect: the provider at a place, that of the environment by default; the place that it is.
    """

    prices: str
    tasks: tuple[TaskName, ...]
    ranks: tuple[int, ...]
    fewest_rows: int
    thinking: tuple[tuple[str, int], ...]
    job_seconds: float
    connect: Callable[[dict[str, str] | None], tuple[Backend, dict[str, str]]]


def _gemini(place: dict[str, str] | None) -> tuple[Backend, dict[str, str]]:
    from thriftune.managed.gemini import connect

    return connect(place)


PROVIDERS: dict[str, Provider] = {
    "gemini": Provider(
        prices="vertex",
        tasks=("chat", "classify"),
        ranks=(1, 2, 4, 8, 16),  # documented for Gemini 2.5 Flash
        fewest_rows=16,  # documented for supervised tuning
        thinking=(("gemini-2.5-pro", 128), ("gemini-2.5", 0)),
        job_seconds=2700.0,  # some 100 rows are told to take 45 to 60 minutes, a dozen 30
        connect=_gemini,
    )
}


def provider_of(reference: str, folder: Path | None = None) -> Provider | None:
    """Who trains a model; None where this machine does.

    Args:
        reference: as the project file names it.
        folder: what a relative path is relative to.
    """
    return PROVIDERS.get(ModelReference.parse(reference, folder).scheme)


def thinking_of(reference: str) -> int | None:
    """How many tokens a model is told to think at most before it answers; None where it is not told."""
    parsed = ModelReference.parse(reference)
    known = PROVIDERS[parsed.scheme].thinking
    return next((tokens for start, tokens in known if parsed.name.startswith(start)), None)


def check_task(reference: str, task: str, folder: Path | None = None) -> None:
    """Refuse a task that a managed model cannot be tuned for.

    Raises:
        BadInput: it cannot.
    """
    provider = provider_of(reference, folder)
    if provider is not None and task not in provider.tasks:
        raise BadInput(
            "a managed model cannot be tuned for this task",
            where="models",
            found=f"{reference} for task {task}",
            expected=f"task {' or '.join(provider.tasks)}, or a model that is trained here",
            way_out="name a model that is trained here: hub:org/name, package:name or a folder",
        )


def adapter_rank(reference: str, options: TrainOptions, folder: Path | None = None) -> int | None:
    """The stated rank of a managed job's adapters, or None; refuses options of training that a tuning job has not.

    Raises:
        BadInput: such an option is stated, or a rank that the provider does not have.
    """
    provider = provider_of(reference, folder)
    if provider is None:
        return None
    stated = sorted(options.model_fields_set - set(SETTINGS))
    stated += ["method"] if options.method not in ("auto", "lora") else []
    stated += [f"lora.{name}" for name in sorted(options.lora.model_fields_set - {"rank"})]
    if stated:
        raise BadInput(
            "a managed tuning job has no such setting",
            where=f"train.{stated[0]}",
            found="a stated value",
            expected="epochs and lora.rank alone: the provider decides the rest",
            way_out="leave it out, or name a model that is trained here",
        )
    rank = options.lora.rank if "rank" in options.lora.model_fields_set else None
    if rank is not None and rank not in provider.ranks:
        raise BadInput(
            "the provider has no adapters of this rank",
            where="train.lora.rank",
            found=str(rank),
            expected=", ".join(map(str, provider.ranks)),
            way_out="name one of these, or leave it out for the provider's choice",
        )
    return rank


def open_backend(reference: str) -> Opened:
    """The base model of a reference, at the place that the environment names.

    Raises:
        BadInput: the provider's client is not installed, or it cannot be signed in to.
    """
    parsed = ModelReference.parse(reference)
    backend, place = PROVIDERS[parsed.scheme].connect(None)
    return Opened(backend, parsed.name, place)


def opened_again(reference: str, endpoint: str, place: dict[str, str]) -> Opened:
    """A tuned model, where it was left.

    Raises:
        BadInput: as `open_backend`.
    """
    backend, place = PROVIDERS[ModelReference.parse(reference).scheme].connect(place)
    return Opened(backend, endpoint, place)
