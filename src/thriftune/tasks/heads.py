"""Heads by part: tasks that share an encoder, each with labels of its own (Caruana, "Multitask Learning", 1997).

All heads are one linear layer, a column for each label of each part. The loss of a row sees the columns of its own part
alone, and so does an answer: which is the same as a linear layer for each part, and costs one product of matrices.
Where labels of several parts stand together, in reports and in the model's own files, a label is named after its part,
since two parts may mean different things by one word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from thriftune.errors import BadInput
from thriftune.tasks.base import Content, OfPart, PartPredictor, Prediction, Predictor, Request
from thriftune.tasks.kinds import Target, kind_of
from thriftune.tasks.targets import classes_of, read_list, write_labels

if TYPE_CHECKING:
    import polars as pl

HeadsOption = Literal["auto", "shared", "by_part"]
FEWEST_LABELS = 2  # a head of one label has nothing to tell apart


@dataclass(frozen=True)
class Heads:
    """The heads of one model.

    Args:
        parts: their names, in the order of the project file, which numbers them.
        labels: of each part, in the order of its columns.
    """

    parts: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(train: pl.DataFrame, parts: Sequence[str], task: str) -> Heads:
        """The heads that training rows ask for: each part's own labels.

        Raises:
            BadInput: a part has fewer than two labels.
        """
        found = labels_by_part(train, task)
        for part in parts:
            if len(found.get(part, ())) < FEWEST_LABELS:
                raise BadInput(
                    "a part of the data has too few labels for a head of its own",
                    where=f"data, part: {part}",
                    found=", ".join(found.get(part, ())) or "no rows to train on",
                    expected="two labels or more to tell apart",
                    way_out="add rows with other labels, or set train.heads: shared",
                )
        return Heads(tuple(parts), tuple(found[part] for part in parts))

    @staticmethod
    def from_json(value: Mapping[str, Sequence[str]] | None) -> Heads | None:
        """What `as_json` gave."""
        return None if value is None else Heads(tuple(value), tuple(tuple(labels) for labels in value.values()))

    def as_json(self) -> dict[str, list[str]]:
        """Each part's labels, plain JSON values."""
        return {part: list(labels) for part, labels in zip(self.parts, self.labels, strict=True)}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every label of every part, by its full name, in the order of the head's outputs."""
        return tuple(
            named(part, label) for part, labels in zip(self.parts, self.labels, strict=True) for label in labels
        )

    @cached_property
    def own(self) -> NDArray[np.bool_]:
        """(parts, columns): which columns are a part's."""
        ends = np.array(list(accumulate(map(len, self.labels))))
        columns = np.arange(ends[-1])
        return (columns < ends[:, None]) & (columns >= np.concatenate([[0], ends[:-1]])[:, None])

    @cached_property
    def number(self) -> dict[str, int]:
        """A part's number by its name."""
        return {part: number for number, part in enumerate(self.parts)}

    def answers(
        self, requests: Sequence[Request], logits: Any, read: Callable[[Sequence[str], Any], list[Prediction]]
    ) -> list[Prediction]:
        """Predictions from each row's own columns.

        Args:
            requests: (rows,) each of a part.
            logits: (rows, columns).
            read: labels and (rows, labels) logits to predictions.

        Raises:
            BadInput: a request names no part, or none of these.
        """
        found: list[Prediction | None] = [None] * len(requests)
        for part, rows in by_part(requests, self.parts).items():
            number = self.number[part]
            own = logits[rows][:, np.flatnonzero(self.own[number])]
            for row, prediction in zip(rows, read(self.labels[number], own), strict=True):
                found[row] = prediction
        return cast(list[Prediction], found)


@dataclass(frozen=True)
class ByPart:
    """A predictor for each part: the baselines of a model with several heads."""

    name: str
    predictors: Mapping[str, Predictor]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that it knows."""
        return tuple(self.predictors)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """What the predictor of each request's part says to it.

        Raises:
            BadInput: a request names no part, or none of these.
        """
        found: list[Prediction | None] = [None] * len(requests)
        for part, rows in by_part(requests, self.parts).items():
            answers = self.predictors[part].predict(contents([requests[row] for row in rows]))
            for row, answer in zip(rows, answers, strict=True):
                found[row] = answer
        return cast(list[Prediction], found)


def heads_of(predictor: object) -> tuple[str, ...]:
    """The parts of which a request must name one; none for a predictor with one head."""
    return predictor.parts if isinstance(predictor, PartPredictor) else ()


def by_part(requests: Sequence[Request], parts: Sequence[str]) -> dict[str, list[int]]:
    """The places of each part's requests.

    Raises:
        BadInput: a request names no part, or none of these.
    """
    places: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        part = request.part if isinstance(request, OfPart) else ""
        if part not in parts:
            raise BadInput(
                "the model has a head for each part of its data, and must be told which one to answer with",
                where="a request's part",
                found=repr(part) if part else "none",
                expected=f"one of {', '.join(parts)}",
                way_out="name the part",
            )
        places.setdefault(part, []).append(place)
    return places


def contents(requests: Sequence[Request]) -> list[Content]:
    """What is asked, without the parts."""
    return [request.content if isinstance(request, OfPart) else request for request in requests]


def named(part: str, label: str) -> str:
    """A label's full name."""
    return f"{part}: {label}"


def named_target(part: str, target: str, kind: Target) -> str:
    """A target, or an answer in its form, with full names."""
    return named(part, target) if kind == "whole" else write_labels(named(part, label) for label in read_list(target))


def named_targets(targets: pl.Series, parts: pl.Series, task: str) -> pl.Series:
    """(rows,) targets with full names."""
    import polars as pl

    kind = kind_of(task).target
    full = [named_target(part, target, kind) for part, target in zip(parts, targets, strict=True)]
    return pl.Series(targets.name, full, pl.String)


def named_answer(part: str, answer: Prediction, task: str) -> Prediction:
    """An answer with full names, its scores too."""
    scores = {named(part, label): score for label, score in answer.scores.items()}
    return replace(answer, output=named_target(part, answer.output, kind_of(task).target), scores=scores)


def can_have_heads(task: str) -> bool:
    """Whether a task's model can have a head for each part: one that gives labels to whole texts."""
    kind = kind_of(task)
    return kind.classes and kind.target in ("whole", "labels")


def labels_by_part(frame: pl.DataFrame, task: str) -> dict[str, tuple[str, ...]]:
    """The labels of each part's rows, sorted."""
    import polars as pl

    rows = pl.DataFrame({"part": frame["part"], "label": classes_of(frame["target"], task)}).explode("label")
    rows = rows.drop_nulls().unique().sort("label")
    return {str(part): tuple(labels) for part, labels in rows.group_by("part").agg("label").iter_rows()}


def choose_heads(wanted: HeadsOption, frame: pl.DataFrame, task: str) -> tuple[Literal["shared", "by_part"], str]:
    """One head for all parts or one for each, and why.

    Args:
        wanted: train.heads; `auto` takes a head for each part where their labels differ, unless one of them has a
            single label.
        frame: rows with `part` and `target`.
        task: its name.
    """
    if wanted != "auto":
        return wanted, "stated in the project file"
    found = labels_by_part(frame, task)
    if len(set(found.values())) == 1:
        return "shared", "all parts have the same labels"
    single = [part for part, labels in found.items() if len(labels) < FEWEST_LABELS]
    if single:
        return "shared", f"{single[0]} has one label only, so that it is no task by itself"
    counts = ", ".join(f"{part} {len(labels)}" for part, labels in sorted(found.items()))
    return "by_part", f"the parts have different labels ({counts})"
