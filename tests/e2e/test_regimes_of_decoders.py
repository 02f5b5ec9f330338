"""Each regime of decoders on real data: SmolLM2, tuned shortly, is better than untuned, by a paired test."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from real_context import open_context
from thriftune.budget.decisions import Decisions
from thriftune.budget.record import Record
from thriftune.collect.collect import read_source
from thriftune.collect.options import CollectOptions, Source
from thriftune.collect.packaged import write_packaged
from thriftune.context import Context
from thriftune.evaluate.evaluate import compare, score
from thriftune.evaluate.options import EvaluateOptions
from thriftune.evaluate.types import Comparison, Scores
from thriftune.prepare.options import PrepareOptions, Proportions
from thriftune.prepare.prepare import prepare
from thriftune.prepare.split import SIDE
from thriftune.tasks.kinds import SMOLLM2
from thriftune.train import setup
from thriftune.train.costs import Costs
from thriftune.train.loop import Loop
from thriftune.train.machine import choose_machine
from thriftune.train.options import TrainOptions
from thriftune.train.supervision import Supervision

pytestmark = pytest.mark.slow

COSTS = Costs(seconds_per_token=1e-3, validation=1.0, checkpoint=1.0, peak_bytes=0.0)
OPTIONS = EvaluateOptions(resamples=500, comparison_resamples=2_000)
SIDES = PrepareOptions(proportions=Proportions(train=0.7, validation=0.15, test=0.15))
QUICK: dict[str, Any] = {"freeze_layers": 20, "epochs": 1, "learning_rate": 1e-3, "max_tokens": 128}


@dataclass(frozen=True)
class Regime:
    """What a regime is tried on.

    Args:
        data: a packaged data set.
        source: its columns.
        metric: which must be better.
        rows: of the training split.
        asked: of the test split.
        train: options, beside those that all share.
        answer_tokens: the longest generated answer.
    """

    data: str
    source: dict[str, str]
    metric: str
    rows: int
    asked: int
    train: dict[str, Any]
    answer_tokens: int = 0


PAIR = {"prompt": "prompt", "completion": "completion"}
REGIMES = {
    "definitions": Regime("definitions", PAIR, "perplexity", 96, 24, {}, 1),
    "ukrainian": Regime("ukrainian", PAIR, "perplexity", 48, 16, {}, 1),
    "translation": Regime("italian", PAIR, "perplexity", 96, 24, {}, 1),
    "trivia": Regime("trivia", PAIR, "perplexity", 96, 32, {}, 1),
    "editorials": Regime("editorials", {"text": "text"}, "perplexity", 12, 16, {}),
    "tone": Regime(
        "tone",
        {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "group": "review"},
        "margin",
        96,
        72,
        {"batch_rows": 8},
    ),
}


def outcome_of(regime: Regime, folder: Path) -> tuple[Scores, Scores, Comparison]:
    """The scores of the tuned and of the untuned model, and what a paired test says of them."""
    write_packaged(regime.data, folder / "rows.jsonl")
    source = Source(file="rows.jsonl", **regime.source)
    corpus, _ = read_source(source, CollectOptions(), folder)
    assigned, _, _ = prepare(corpus, source.task, SIDES)
    train, validation, test = (
        assigned.filter(pl.col(SIDE) == side).sample(fraction=1.0, shuffle=True, seed=0)
        for side in ("train", "validation", "test")
    )
    options = TrainOptions(**QUICK | regime.train)
    work = setup.work_of(source.task, SMOLLM2, folder, options, 0, "", train[: regime.rows], validation[:8])
    task = replace(work.task, max_new_tokens=regime.answer_tokens) if regime.answer_tokens else work.task
    with open_context(folder, "evaluation") as context:
        loop = Loop(
            task,
            task.build(),
            work.train,
            work.validation,
            work.recipe,
            choose_machine(take, work.hidden_size, options, Record(folder / "record.json", "here")),
            Supervision(Decisions(context.events), context.events, None, None, folder / "checkpoints"),
        )
        loop.run(validate_every=10_000, costs=COSTS)
        tuned = scored(task.predictor(loop.model, "tuned"), test[: regime.asked], source.task, context, "tuned")
        untuned = scored(task.untuned(), test[: regime.asked], source.task, context)
    comparison = compare(tuned, untuned, OPTIONS, regime.metric)
    assert comparison is not None
    return tuned, untuned, comparison


def take(what: str, choose: Callable[[], tuple[Any, str]]) -> Any:
    """A choice that nobody records."""
    return choose()[0]


def scored(predictor: Any, rows: pl.DataFrame, task: str, context: Context, candidate: str = "") -> Scores:
    return score(predictor, rows, "test", task, OPTIONS, context, candidate=candidate, upper_seconds=600.0)


@pytest.mark.parametrize("name", REGIMES)
def test_a_short_tuning_is_better_than_none(name: str, tmp_path: Path) -> None:
    regime = REGIMES[name]
    tuned, untuned, comparison = outcome_of(regime, tmp_path)
    figures = [f"{who.predictor} {who.metrics[regime.metric].value:.3f}" for who in (tuned, untuned)]
    print(name, *figures, comparison)
    assert comparison.outcome == "better", (figures, comparison)
    assert comparison.low > 0 and comparison.p_value < 0.05
