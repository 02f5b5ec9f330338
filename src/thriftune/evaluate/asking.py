"""Asking a predictor the rows of a split, batch by batch, each a metered unit, or one that asks before each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from thriftune.evaluate.looks import hash_of
from thriftune.evaluate.options import EvaluateOptions
from thriftune.tasks.base import OfPart
from thriftune.tasks.heads import heads_of, named_answer, named_targets
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from thriftune.context import Context
    from thriftune.tasks.base import Prediction, Predictor, Request

PHASE = "evaluation"
PROBE_SECONDS = 30.0  # most that the first batch of a predictor of unknown speed reserves
PROBE_SHARE = 0.9  # of what is left of money and time, if that is less: the clock goes on until the unit begins
STALL_SECONDS = 1.0  # how long a shared machine may stand still within a batch without being called a breach
SLOWER = 2.0  # how much slower per row than the slowest before it a batch may be; the longest rows come first

CONTENTS = ("text", "tokens", "messages")  # the columns that may hold what is asked

Progress = Callable[[int, int], None]
"""Called with rows answered and rows to answer; may raise `Interrupted`."""


@runtime_checkable
class Likelihood(Protocol):
    """A predictor that knows how likely it finds a given answer."""

    def answer_losses(
        self, requests: Sequence[Request], targets: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(rows,) negative log-likelihood summed over each target's tokens, and (rows,) how many tokens it has."""
        ...


@runtime_checkable
class Judge(Protocol):
    """A predictor that says which of two answers is the better one."""

    def judge(
        self, requests: Sequence[Request], first: Sequence[str], second: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """(rows,) by how much it prefers each first answer, 0 where it prefers none; and (rows,) the difference of
        both answers' log-likelihoods in nats, None for a judge that is no language model."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A predictor that knows how likely it finds a text."""

    def text_losses(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(rows,) negative log-likelihood summed over each text's tokens, and (rows,) how many tokens it has."""
        ...


def asked_rows(frame: pl.DataFrame, task: str, options: EvaluateOptions) -> pl.DataFrame:
    """The rows of a split that predictors are asked: all, or where answers are generated `generate_rows`
    of them, drawn by hash of id."""
    return drawn(frame, options.generate_rows) if kind_of(task).generates_when_asked else frame


def drawn(frame: pl.DataFrame, count: int) -> pl.DataFrame:
    """At most `count` rows, drawn by hash of id: the same ones each time, and rows that are added replace few."""
    if len(frame) <= count:
        return frame
    return frame.filter(frame["id"].is_in(sorted(frame["id"], key=hash_of)[:count]))


def requests_of(frame: pl.DataFrame) -> list[Any]:
    """A split's rows as predictors with one head are asked: texts, words, or conversations."""
    return frame[next(kind for kind in CONTENTS if kind in frame.columns)].to_list()


def requests_for(predictor: Predictor, frame: pl.DataFrame) -> list[Request]:
    """A split's rows as this predictor is asked: with their parts where it has a head for each."""
    asked = requests_of(frame)
    if not heads_of(predictor):
        return asked
    return [OfPart(part, content) for part, content in zip(frame["part"], asked, strict=True)]


@dataclass(frozen=True)
class Asking:
    """A predictor being asked, batch by batch."""

    predictor: Predictor
    task: str
    options: EvaluateOptions
    context: Context
    metered: bool
    progress: Progress | None

    def ask(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The answers, a row a request, in the order of `rows`; of a predictor with a head for each part, labels are
        named after their part."""
        import polars as pl

        from thriftune.collect.canonical import lengths

        sizes = lengths(rows).to_list()
        order = sorted(range(len(rows)), key=lambda row: (-sizes[row], row))
        parts, slowest = [], None
        for start in range(0, len(order), self.options.batch_rows):
            batch = order[start : start + self.options.batch_rows]
            if not self.metered and slowest is not None:
                self.context.meter.go_on(f"evaluate {self.predictor.name}", slowest * len(batch))
            began = self.context.clock.now()
            with unit(self.context, f"evaluate {self.predictor.name}", self._upper(len(batch), slowest)):
                answers = answers_of(self.predictor, rows[batch], self.task)
            taken = (self.context.clock.now() - began) / len(batch)
            slowest = max(slowest or 0.0, taken)
            parts.append(answers.with_columns(place=pl.Series(batch)))
            if self.progress is not None:
                self.progress(min(start + len(batch), len(order)), len(order))
        answered = pl.concat(parts).sort("place").drop("place")
        asked = rows.select("id", "target", "part").hstack(answered)
        if heads_of(self.predictor):
            asked = asked.with_columns(named_targets(asked["target"], asked["part"], self.task))
        return asked

    def _upper(self, rows: int, slowest: float | None) -> float | None:
        if not self.metered:
            return None
        return upper_seconds(self.context, rows, slowest)


def answers_of(predictor: Predictor, rows: pl.DataFrame, task: str) -> pl.DataFrame:
    """What a predictor says to rows of a task, as the kind of task has it asked: a row a row, in their order."""
    return ASK[kind_of(task).asked](predictor, rows, task)


def _answers(predictor: Predictor, rows: pl.DataFrame, task: str) -> pl.DataFrame:
    requests, targets = requests_for(predictor, rows), rows["target"].to_list()
    answers = predictor.predict(requests)
    if heads_of(predictor):
        answers = [named_answer(part, answer, task) for part, answer in zip(rows["part"], answers, strict=True)]
    losses: Sequence[float | None] = [None] * len(requests)
    tokens: Sequence[float | None] = losses
    if isinstance(predictor, Likelihood):
        found, counted = predictor.answer_losses(requests, targets)
        losses, tokens = found.tolist(), counted.tolist()
    return _table(
        output=[answer.output for answer in answers],
        probabilities=[_probabilities(answer) for answer in answers],
        loss=losses,
        tokens=tokens,
        generated=[answer.tokens for answer in answers],
    )


def _preferences(predictor: Predictor, rows: pl.DataFrame, _: str) -> pl.DataFrame:
    """The answer that it prefers as `output`: the rejected one where it has no preference."""
    chosen, rejected = rows["target"].to_list(), rows["rejected"].to_list()
    preferred, margins = cast(Judge, predictor).judge(requests_of(rows), chosen, rejected)
    better = [ours if gain > 0 else theirs for gain, ours, theirs in zip(preferred, chosen, rejected, strict=True)]
    return _table(output=better, margin=[None] * len(rows) if margins is None else margins.tolist())


def _likelihoods(predictor: Predictor, rows: pl.DataFrame, _: str) -> pl.DataFrame:
    texts = rows["text"].to_list()
    losses, tokens = cast(Reader, predictor).text_losses(texts)
    characters = rows["text"].str.len_chars().cast(float).to_list()
    return _table(output=[""] * len(rows), loss=losses.tolist(), tokens=tokens.tolist(), characters=characters)


ASK = {"answers": _answers, "preferences": _preferences, "likelihoods": _likelihoods}


def _table(output: list[str], **given: Sequence[Any]) -> pl.DataFrame:
    """Predictions as a frame: null where a predictor has no such figure; margins and characters only if given."""
    import polars as pl

    types: dict[str, Any] = {
        "output": pl.String,
        "probabilities": pl.List(pl.Struct({"label": pl.String, "probability": pl.Float64})),
        "loss": pl.Float64,
        "tokens": pl.Float64,
        "generated": pl.Int64,
    } | {name: pl.Float64 for name in ("margin", "characters") if name in given}
    columns = {name: given.get(name, [None] * len(output)) for name in types} | {"output": output}
    return pl.DataFrame(columns, schema=types)


def _probabilities(answer: Prediction) -> list[dict[str, Any]]:
    return [{"label": label, "probability": probability} for label, probability in answer.scores.items()]


def upper_seconds(context: Context, rows: int, slowest: float | None) -> float:
    """The most that a batch may take, from the slowest seconds a row so far; None before the first batch."""
    if slowest is None:
        return min(PROBE_SECONDS, PROBE_SHARE * context.meter.remaining_seconds())
    return STALL_SECONDS + SLOWER * slowest * rows


@contextmanager
def unit(context: Context, what: str, upper: float | None) -> Iterator[None]:
    """A metered unit of evaluation, or with None a part of one that is open already."""
    with nullcontext() if upper is None else context.meter.unit(PHASE, what, upper):
        yield
