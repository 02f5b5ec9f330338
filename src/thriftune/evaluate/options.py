"""Evaluation's part of the project file."""

from __future__ import annotations

from pydantic import Field, field_validator

from thriftune.options import Options

FEWEST_ASKED = 10


class EvaluateOptions(Options):
    """How predictors are scored and compared.

    The default of `looks` and how `error_budget` is spent over them are explained in `looks.py`.
    """

    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Of the interval of each metric; the usual 95 %")
    resamples: int = Field(
        default=2_000,
        ge=200,
        le=1_000_000,
        description="Bootstrap resamples for an interval; its ends then err by a few %",
    )
    comparison_resamples: int = Field(
        default=10_000, ge=1_000, le=1_000_000, description="For a comparison, whose later looks need tails of 0.1 %"
    )
    error_budget: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="Chance that any look at the test split calls an equal model better or worse",
    )
    looks: int = Field(
        default=20, ge=1, le=1_000, description="Tuned models that may be judged by one set of test rows"
    )
    minimum_gain: float = Field(
        default=0.0, ge=0, description="Smallest gain worth having, in the metric's own unit: any gain by default"
    )
    held_out_in_turn: int = Field(
        default=5,
        ge=0,
        le=20,
        description="Parts that the training rows are cut into where the test rows cannot tell: as many as it needs and"
        " budget and deadline hold are held out in turn from further trainings, and judged by too; 0 for none, else 2"
        " at least",
    )
    generate_rows: int = Field(
        default=100,
        ge=FEWEST_ASKED,
        description="Test rows a chat model answers at most: generating is slow, and the same rows serve all",
    )
    generate_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Of the money or time left before training, the most that generated answers may take: fewer test"
        " rows are asked where that does not hold `generate_rows`, but 10 at least",
    )
    batch_rows: int = Field(
        default=64, ge=1, le=100_000, description="Rows answered between two looks at money and time"
    )
    latency_rows: int = Field(
        default=100,
        ge=20,
        le=100_000,
        description="Single requests timed where the target names a latency; 100 bound a p95",
    )

    @field_validator("held_out_in_turn")
    @classmethod
    def _several(cls, parts: int) -> int:
        if parts == 1:
            raise ValueError("0, or 2 or more parts: what is held out must leave something to train on")
        return parts


class Target(Options):
    """What the project wants of the tuned model.

    Args:
        metric: the metric that the verdict looks at; None for the task's own.
        at_least: the smallest value that will do, for metrics where higher is better.
        at_most: the largest that will do, for `perplexity` and `ece`.
        latency_p95_ms: the longest that 95 % of single requests may take.
    """

    metric: str | None = Field(
        default=None, description="The metric that the verdict looks at; the task's own by default"
    )
    at_least: float | None = Field(default=None, description="The smallest value that will do")
    at_most: float | None = Field(default=None, description="The largest value that will do, for perplexity and ece")
    latency_p95_ms: float | None = Field(default=None, gt=0, description="The longest that 95 % of requests may take")
