"""What evaluation makes: scores of a predictor, comparisons of two, and a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thriftune.metrics.intervals import Interval
from thriftune.metrics.paired import Outcome

if TYPE_CHECKING:
    import polars as pl

Decision = Literal["ship", "hold", "reject", "cannot tell"]

SCORES_FILE = "scores.json"
PREDICTIONS_FILE = "predictions.parquet"
EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class Scores:
    """How one predictor did on one split.

    Args:
        predictor: its name.
        task: `classify` or `chat`.
        split: `validation` or `test`.
        rows: how many rows it was asked.
        metrics: each metric with its interval.
        by_class: for classifiers, by label: precision, recall, f1, the ends of f1's interval and the label's rows.
        by_part: where the data has parts, each part's metrics with their intervals.
        seconds: what its answers took.
        look: the number of the look at the test split that this was; 0 where it was none.
        candidate: content hash of a model that may ship; empty for a baseline.
        predictions: one row a request: id, target, output, probabilities (classifiers), loss and tokens (of the
            target, where the predictor can tell), generated (tokens), part. Comparisons are computed from it.
    """

    predictor: str
    task: str
    split: str
    rows: int
    metrics: Mapping[str, Interval]
    by_class: Mapping[str, Mapping[str, float]]
    by_part: Mapping[str, Mapping[str, Interval]]
    seconds: float
    look: int
    candidate: str
    predictions: pl.DataFrame = field(compare=False, repr=False)

    def save(self, folder: Path) -> None:
        """Write `scores.json` and `predictions.parquet` into a folder that is there."""
        about = {name: value for name, value in vars(self).items() if name not in ("predictions", "metrics", "by_part")}
        about["metrics"] = {name: asdict(interval) for name, interval in self.metrics.items()}
        about["by_part"] = {
            part: {name: asdict(interval) for name, interval in metrics.items()}
            for part, metrics in self.by_part.items()
        }
        (folder / SCORES_FILE).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
        self.predictions.write_parquet(folder / PREDICTIONS_FILE)

    @staticmethod
    def load(folder: Path) -> Scores:
        """What `save` wrote."""
        import polars as pl

        about = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
        about["metrics"] = {name: Interval(**interval) for name, interval in about["metrics"].items()}
        about["by_part"] = {
            part: {name: Interval(**interval) for name, interval in metrics.items()}
            for part, metrics in about["by_part"].items()
        }
        return Scores(**about, predictions=pl.read_parquet(folder / PREDICTIONS_FILE))


@dataclass(frozen=True)
class Comparison:
    """The tuned model against one baseline, on one metric and the same rows.

    Args:
        baseline: the baseline's name.
        metric: the metric.
        difference: the gain of the tuned model: positive where it is better, also where lower values are.
        low: lower end of the gain's interval.
        high: its upper end.
        p_value: two-sided, of no difference.
        confidence: of the interval: 1 minus the share of the error budget that this look may spend.
        outcome: better, not better or cannot tell.
        rows: how many rows both were asked.
        differing: on how many of these their answers count differently.
        part: of the data, where only its rows were compared; empty for all rows.
    """

    baseline: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    confidence: float
    outcome: Outcome
    rows: int
    differing: int
    part: str = ""


@dataclass(frozen=True)
class Verdict:
    """What to do with the tuned model, and why, in sentences."""

    decision: Decision
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Latency:
    """How long 95 % of single requests take at most, in milliseconds, with its interval, from `requests` of them."""

    p95_ms: Interval
    requests: int


@dataclass(frozen=True)
class Evaluation:
    """Everything that speaks for or against a tuned model.

    Args:
        metric: the metric that the verdict looks at.
        tuned: its scores on the test split.
        baselines: those of what it is held against.
        comparisons: the ones on `metric` first.
        verdict: what follows.
        latency: where the target names one.
    """

    metric: str
    tuned: Scores
    baselines: tuple[Scores, ...]
    comparisons: tuple[Comparison, ...]
    verdict: Verdict
    latency: Latency | None = None

    def save(self, folder: Path) -> None:
        """Write `evaluation.json` and a folder of scores for each predictor into a folder that is there."""
        about = {
            "metric": self.metric,
            "tuned": self.tuned.predictor,
            "baselines": [scores.predictor for scores in self.baselines],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "verdict": asdict(self.verdict),
            "latency": None if self.latency is None else _latency_as_json(self.latency),
        }
        (folder / EVALUATION_FILE).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
        for scores in (self.tuned, *self.baselines):
            place = folder / scores.predictor
            place.mkdir()
            scores.save(place)

    @staticmethod
    def load(folder: Path) -> Evaluation:
        """What `save` wrote."""
        about = json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
        return Evaluation(
            metric=about["metric"],
            tuned=Scores.load(folder / about["tuned"]),
            baselines=tuple(Scores.load(folder / name) for name in about["baselines"]),
            comparisons=tuple(Comparison(**comparison) for comparison in about["comparisons"]),
            verdict=Verdict(about["verdict"]["decision"], tuple(about["verdict"]["reasons"])),
            latency=_latency(about["latency"]),
        )


def _latency_as_json(latency: Latency) -> dict[str, Any]:
    # JSON has no infinity, which is how high a latency reaches that too few requests do not bound.
    about = asdict(latency)
    about["p95_ms"]["high"] = latency.p95_ms.high if math.isfinite(latency.p95_ms.high) else None
    return about


def _latency(about: dict[str, Any] | None) -> Latency | None:
    if about is None:
        return None
    found = about["p95_ms"]
    high = math.inf if found["high"] is None else found["high"]
    return Latency(Interval(found["value"], found["low"], high), about["requests"])
