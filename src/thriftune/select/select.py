"""The stage: fit the cheap baselines on the training split, and keep them.

The untuned model is a baseline too, but nothing of it is fitted: its task makes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftune.artifacts import recipe_key
from thriftune.budget.forecast import Forecast
from thriftune.errors import BadInput
from thriftune.evaluate.asking import PROBE_SECONDS, PROBE_SHARE, drawn, requests_of
from thriftune.select.options import SelectOptions
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    import polars as pl

    from thriftune.context import Context
    from thriftune.prepare.types import Splits
    from thriftune.tasks.base import Predictor

STAGE = "select"
STAGE_VERSION = 3
PHASE = "evaluation"  # baselines are evidence for the verdict
FILE = "selection.json"
PARTS_FILE = "parts.json"  # in a baseline's folder: the parts that the folders 0, 1, … are for
UNFITTED = ("untuned",)

# Measured on a shared 2-core machine: 1 s to import scikit-learn; of 8,000 movie rows 1 s to read the texts and 0.05 s
# a fit, of 1,674 definitions with 26 labels 0.25 s a fit, of 50,000 made rows with 300,000 terms and 20 labels 50 s:
# more rows have more terms, and at last the weights no longer fit into a processor's cache.
START_SECONDS = 1.5
ROW_SECONDS = 1.2e-4
FIT_ROW_SECONDS = 6e-6  # a fit and a label but the first
TWICE_ROWS = 1e4  # with so many rows each takes twice as long
SPREAD = 1.0  # 95th percentile over the median
SLOWER = 8.0  # how much longer a piece may take than the longest before it: weak regularisation takes more iterations


@dataclass(frozen=True)
class Selection:
    """The fitted baselines.

    Args:
        folder: a folder for each baseline, by its name.
        content_hash: of what is in it.
        task: its name.
        baselines: the fitted ones' names, in the order of the project file.
        chosen: what was chosen in fitting, by baseline.
        reused: whether they were there already.
    """

    folder: Path
    content_hash: str
    task: str
    baselines: tuple[str, ...]
    chosen: dict[str, Any]
    reused: bool

    def predictors(self) -> list[Predictor]:
        """The fitted baselines, read back."""
        return [open_baseline(self.folder / name) for name in self.baselines]


def run(
    splits: Splits,
    options: SelectOptions,
    context: Context,
    upper_seconds: float | None = None,
    parts: tuple[str, ...] = (),
) -> Selection:
    """Fit the baselines that the options name, unless they are there already.

    Args:
        splits: train to fit on, validation to choose by; the test split is not looked at.
        options: selection's part of the project file.
        context: the run's surroundings.
        upper_seconds: the most that it may take, reserved as one metered unit; None to reserve piece by piece.
        parts: the data's parts, where each has a head of its own: then each has baselines of its own.

    Raises:
        BadInput: a baseline that does not suit the task, one label only, or no validation rows.
        OutOfBudget: money or time do not hold the next unit.
    """
    import polars as pl

    names = fitted(options, splits.task)
    recipe = {"task": splits.task, "baselines": names, "options": options.model_dump(mode="json")}
    recipe |= {"parts": parts} if parts else {}
    key = recipe_key(STAGE, STAGE_VERSION, {"splits": splits.content_hash}, recipe, _libraries())

    def write(folder: Path) -> None:
        meter = _Pieces(context, upper_seconds)
        with meter.whole():
            train = pl.read_parquet(splits.train)
            validation = pl.read_parquet(splits.validation) if "tfidf" in names else train.clear()
            chosen = _fit_all(train, validation, splits.task, names, options, folder, meter, parts)
        if "tfidf" in chosen:
            context.events.emit("decision", at_step=0, what="tfidf C", **chosen["tfidf"])
        (folder / FILE).write_text(json.dumps({"baselines": names, "task": splits.task, "chosen": chosen}, indent=1))

    artifact = context.artifacts.build(STAGE, key, recipe, write)
    about = json.loads((artifact.folder / FILE).read_text())
    return Selection(
        artifact.folder,
        artifact.content_hash,
        about["task"],
        tuple(about["baselines"]),
        about["chosen"],
        artifact.reused,
    )


def fitted(options: SelectOptions, task: str) -> tuple[str, ...]:
    """The baselines that are fitted here; the untuned model is one as well, but its task makes it."""
    return tuple(name for name in options.baselines_for(task) if name not in UNFITTED)


def estimate(rows: int, labels: int, task: str, options: SelectOptions) -> Forecast:
    """Seconds that `run` will take.

    Args:
        rows: of the training split.
        labels: how many there are; not read for chat.
        task: its name.
        options: selection's part of the project file.
    """
    used = min(rows, options.max_rows)
    fits = len(options.tfidf_c) * max(1, labels - 1) if "tfidf" in options.baselines_for(task) else 0
    row = ROW_SECONDS + fits * FIT_ROW_SECONDS * (1 + used / TWICE_ROWS)
    return Forecast.lognormal(START_SECONDS + used * row, SPREAD, "record")


def open_baseline(folder: Path) -> Predictor:
    """The baseline that a folder holds, as `run` saved it.

    Raises:
        BadInput: it holds none.
    """
    from thriftune.select import longer, majority, retrieval, tfidf, unigram
    from thriftune.tasks.heads import ByPart

    if (folder / PARTS_FILE).is_file():
        parts = json.loads((folder / PARTS_FILE).read_text(encoding="utf-8"))
        predictors = {part: open_baseline(folder / str(number)) for number, part in enumerate(parts)}
        return ByPart(next(iter(predictors.values())).name, predictors)
    kinds: dict[str, Any] = {
        majority.FILE: majority.MajorityPredictor,
        tfidf.LABELS_FILE: tfidf.TfidfPredictor,
        unigram.FILE: unigram.UnigramPredictor,
        retrieval.ANSWERS_FILE: retrieval.RetrievalPredictor,
        longer.FILE: longer.LongerPredictor,
    }
    for file, kind in kinds.items():
        if (folder / file).is_file():
            predictor: Predictor = kind.load(folder)
            return predictor
    raise BadInput(
        "no baseline is here",
        where=str(folder),
        found=f"none of {', '.join(kinds)}",
        expected="the folder of a baseline that `thriftune run` fitted",
        way_out="run `thriftune run` first",
    )


def fit(
    train: pl.DataFrame, validation: pl.DataFrame, task: str, options: SelectOptions, folder: Path, context: Context
) -> list[Predictor]:
    """Fit the baselines on other rows than those of the splits, metered piece by piece.

    Args:
        train: to fit on.
        validation: to choose by.
        task: its name.
        options: selection's part of the project file.
        folder: an empty one, which holds them afterwards.
        context: the run's surroundings.

    Raises: as `run`.
    """
    names = fitted(options, task)
    _fit_all(train, validation, task, names, options, folder, _Pieces(context, None), ())
    return [open_baseline(folder / name) for name in names]


def _fit_all(
    train: pl.DataFrame,
    validation: pl.DataFrame,
    task: str,
    names: tuple[str, ...],
    options: SelectOptions,
    folder: Path,
    meter: _Pieces,
    parts: tuple[str, ...],
) -> dict[str, Any]:
    train = drawn(train, options.max_rows)
    chosen: dict[str, Any] = {}
    for name in names:
        place = folder / name
        place.mkdir()
        if not parts:
            found = _fit(name, train, validation, task, options, place, meter)
        else:
            by_part = {}
            for number, part in enumerate(parts):
                own, held_out = (rows.filter(rows["part"] == part) for rows in (train, validation))
                (place / str(number)).mkdir()
                by_part[part] = _fit(name, own, held_out, task, options, place / str(number), meter, part)
            (place / PARTS_FILE).write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")
            found = _joined(by_part)
        if found:
            chosen[name] = found
    return chosen


def _fit(
    name: str,
    train: pl.DataFrame,
    validation: pl.DataFrame,
    task: str,
    options: SelectOptions,
    place: Path,
    meter: _Pieces,
    part: str = "",
) -> dict[str, Any]:
    """Fit one baseline into a folder; what was chosen, if anything."""
    of = f" on {part}" if part else ""
    if name == "tfidf":
        several = kind_of(task).target == "labels"
        return _fit_tfidf(train, validation, options, place, meter, several, of)
    with meter.piece(f"fit {name}{of}"):
        _fit_simple(name, train, task).save(place)
    return {}


def _joined(by_part: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was chosen for each part, as one decision."""
    found = {part: choice for part, choice in by_part.items() if choice}
    return {
        name: "; ".join(f"{part}: {choice[name]}" for part, choice in found.items())
        for name in ("chosen", "because")
        if found
    }


def _fit_simple(name: str, train: pl.DataFrame, task: str) -> Any:
    from thriftune.select.longer import LongerPredictor
    from thriftune.select.majority import MajorityPredictor
    from thriftune.select.retrieval import RetrievalPredictor
    from thriftune.select.unigram import UnigramPredictor

    if name == "longer":
        return LongerPredictor()
    if name == "majority":
        kind = kind_of(task)
        return MajorityPredictor.fit(train["target"].to_list(), labels=kind.classes and kind.target == "whole")
    if name == "unigram":
        return UnigramPredictor.fit(train["tokens"].to_list(), train["target"].to_list())
    return RetrievalPredictor.fit(requests_of(train), train["target"].to_list())


def _fit_tfidf(
    train: pl.DataFrame,
    validation: pl.DataFrame,
    options: SelectOptions,
    place: Path,
    meter: _Pieces,
    several: bool,
    of: str,
) -> dict[str, Any]:
    from thriftune.select.tfidf import fit

    fitted = fit(
        train["text"].to_list(),
        train["target"].to_list(),
        validation["text"].to_list(),
        validation["target"].to_list(),
        options.tfidf_c,
        guard=lambda what: meter.piece(f"tfidf{of}: {what}"),
        several=several,
    )
    fitted.predictor.save(place)
    tried = ", ".join(f"{c:g}: {loss:.4f}" for c, loss in fitted.cross_entropy.items())
    return {"chosen": fitted.c, "because": f"smallest cross-entropy on {len(validation)} validation rows ({tried})"}


@dataclass
class _Pieces:
    """Meters the work: as one unit where its upper bound is known, else piece by piece."""

    context: Context
    upper_seconds: float | None
    longest: float = 0.0

    @contextmanager
    def whole(self) -> Iterator[None]:
        if self.upper_seconds is None:
            yield
        else:
            with self.context.meter.unit(PHASE, "fit the baselines", self.upper_seconds):
                yield

    @contextmanager
    def piece(self, what: str) -> Iterator[None]:
        if self.upper_seconds is not None:
            yield
            return
        meter, clock = self.context.meter, self.context.clock
        began = clock.now()
        bound = max(PROBE_SECONDS, SLOWER * self.longest)
        with meter.unit(PHASE, what, min(bound, PROBE_SHARE * meter.remaining_seconds())):
            yield
        self.longest = max(self.longest, clock.now() - began)


def _libraries() -> dict[str, str]:
    from importlib.metadata import version

    return {"scikit-learn": version("scikit-learn")}
