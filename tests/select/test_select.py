from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from real_context import open_context
from thriftune.context import Context
from thriftune.errors import BadInput, OutOfBudget
from thriftune.evaluate.evaluate import conclude, score
from thriftune.evaluate.options import EvaluateOptions
from thriftune.prepare.types import Splits
from thriftune.select.options import SelectOptions
from thriftune.select.select import estimate, open_baseline, run
from thriftune.tasks.base import OfPart
from thriftune.tasks.heads import heads_of

OPTIONS = SelectOptions(tfidf_c=(1.0, 10.0))


def splits_of(frame: pl.DataFrame, folder: Path, task: str, content_hash: str = "a") -> Splits:
    folder.mkdir(exist_ok=True)
    sides = {"train": frame[: len(frame) // 2], "validation": frame[len(frame) // 2 : -20], "test": frame[-20:]}
    for side, rows in sides.items():
        rows.write_parquet(folder / f"{side}.parquet")
    paths = {side: folder / f"{side}.parquet" for side in sides}
    return Splits(folder, content_hash, **paths, entries=(), serving_steps=(), proportions={}, report={}, task=task)


@pytest.fixture
def classify(tmp_path: Path) -> Splits:
    rng = np.random.default_rng(0)
    good = rng.random(200) < 0.6
    noise = rng.choice(["film", "plot", "actor", "the"], size=(200, 4))
    frame = pl.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(200)],
            "text": [" ".join([*words, "good" if yes else "bad"]) for words, yes in zip(noise, good, strict=True)],
            "target": ["pos" if yes else "neg" for yes in good],
            "part": pl.Series([None] * 200, dtype=pl.String),
        }
    )
    return splits_of(frame, tmp_path / "splits", "classify")


@pytest.fixture
def chat(tmp_path: Path) -> Splits:
    frame = pl.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(60)],
            "messages": [[{"role": "user", "content": f"my part{i % 10} is broken"}] for i in range(60)],
            "target": [f"replace part{i % 10}" for i in range(60)],
        }
    )
    return splits_of(frame, tmp_path / "splits", "chat")


def test_a_classifier_gets_majority_and_tfidf(classify: Splits, context: Context) -> None:
    selection = run(classify, OPTIONS, context)
    assert selection.baselines == ("majority", "tfidf")
    majority, tfidf = selection.predictors()
    assert {answer.output for answer in majority.predict(["bad film", "good film"])} == {"pos"}
    assert [answer.output for answer in tfidf.predict(["bad film", "good film"])] == ["neg", "pos"]
    (decision,) = context.events.read(kinds=["decision"])
    assert decision.data["what"] == "tfidf C"
    assert decision.data["chosen"] == selection.chosen["tfidf"]["chosen"]
    assert "validation rows" in decision.data["because"]


def test_each_part_with_a_head_of_its_own_has_baselines_of_its_own(classify: Splits, context: Context) -> None:
    for side in (classify.train, classify.validation, classify.test):
        rows = pl.read_parquet(side)
        size = rows.with_columns(
            pl.col("id") + "s",
            target=pl.when(pl.col("text").str.contains("plot")).then(pl.lit("yes")).otherwise(pl.lit("no")),
        )
        pl.concat([rows.with_columns(part=pl.lit("tone")), size.with_columns(part=pl.lit("plot"))]).write_parquet(side)
    selection = run(classify, OPTIONS, context, parts=("tone", "plot"))
    majority, tfidf = selection.predictors()
    assert [heads_of(each) for each in (majority, tfidf)] == [("tone", "plot")] * 2
    asked = [OfPart(part, "bad film plot") for part in ("plot", "tone")]
    assert [answer.output for answer in majority.predict(asked)][1] == "pos"
    assert [answer.output for answer in tfidf.predict(asked)] == ["yes", "neg"]
    (decision,) = context.events.read(kinds=["decision"])
    assert decision.data["chosen"].startswith("tone: ") and "; plot: " in decision.data["chosen"]
    options = EvaluateOptions(comparison_resamples=1_000)
    scores = score(tfidf, pl.read_parquet(classify.test), "test", "classify", options, context)
    assert set(scores.by_class) == {"tone: neg", "tone: pos", "plot: no", "plot: yes"}
    assert set(scores.by_part) == {"tone", "plot"}
    for target, output, part in scores.predictions.select("target", "output", "part").iter_rows():
        assert target.startswith(part) and output.startswith(part)


def test_chat_gets_majority_and_retrieval(chat: Splits, context: Context) -> None:
    selection = run(chat, OPTIONS, context)
    assert selection.baselines == ("majority", "retrieval")
    asked = [[{"role": "user", "content": "part7 broken"}]]
    assert selection.predictors()[1].predict(asked)[0].output == "replace part7"  # type: ignore[arg-type]


def test_what_was_fitted_is_fitted_once(classify: Splits, context: Context) -> None:
    first = run(classify, OPTIONS, context)
    charged = len(context.events.read(kinds=["charge"]))
    again = run(classify, OPTIONS, context)
    assert again.reused and not first.reused
    assert (again.folder, again.content_hash, again.chosen) == (first.folder, first.content_hash, first.chosen)
    assert len(context.events.read(kinds=["charge"])) == charged
    assert run(classify, SelectOptions(tfidf_c=(2.0,)), context).folder != first.folder


def test_fitting_again_gives_the_same_bytes(classify: Splits, tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "two"):
        with open_context(tmp_path / name, "evaluation") as context:
            hashes.add(run(classify, OPTIONS, context).content_hash)
    assert len(hashes) == 1


def test_the_test_split_is_not_read(classify: Splits, context: Context) -> None:
    classify.test.unlink()
    run(classify, OPTIONS, context)


def test_each_piece_is_metered_or_the_whole(classify: Splits, context: Context) -> None:
    run(classify, OPTIONS, context)
    units = [event.data["unit"] for event in context.events.read(kinds=["charge"])]
    assert units == ["fit majority", "tfidf: read the texts", "tfidf: fit with C = 1", "tfidf: fit with C = 10"]
    run(classify, SelectOptions(tfidf_c=(2.0,)), context, upper_seconds=60)
    assert [event.data["unit"] for event in context.events.read(kinds=["charge"])][4:] == ["fit the baselines"]
    assert not context.events.read(kinds=["breach"])


def test_without_the_money_nothing_is_left_behind(classify: Splits, tmp_path: Path) -> None:
    with open_context(tmp_path / "poor", "evaluation", budget="30") as context:
        with pytest.raises(OutOfBudget):
            run(classify, OPTIONS, context, upper_seconds=100)
        assert not list((tmp_path / "poor").rglob("selection.json"))
        assert context.ledger.balance().reserved == Decimal(0)


def test_the_baselines_are_held_against_each_other_like_any_predictor(classify: Splits, context: Context) -> None:
    majority, tfidf = run(classify, OPTIONS, context).predictors()
    frame, options = pl.read_parquet(classify.validation), EvaluateOptions(comparison_resamples=1_000)
    beaten = score(majority, frame, "test", "classify", options, context)
    better = score(tfidf, frame, "test", "classify", options, context, candidate="tfidf")
    assert conclude(better, [beaten], options, context).verdict.decision == "ship"


def test_at_most_so_many_training_rows_are_used(classify: Splits, context: Context) -> None:
    rows = pl.read_parquet(classify.train)
    many = pl.concat([rows.with_columns(pl.col("id") + f"-{i}") for i in range(3)])
    many.write_parquet(classify.train)
    selection = run(classify, SelectOptions(baselines=("majority",), max_rows=100), context)
    shares = json.loads((selection.folder / "majority" / "majority.json").read_text())["shares"]
    assert all(round(100 * share, 9).is_integer() for share in shares.values())


def test_a_baseline_of_another_task_is_bad_input(chat: Splits, context: Context) -> None:
    with pytest.raises(BadInput, match="does not suit"):
        run(chat, SelectOptions(baselines=("tfidf",)), context)
    with pytest.raises(ValidationError):
        SelectOptions(baselines=("magic",))  # type: ignore[arg-type]


def test_a_folder_without_a_baseline_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no baseline is here"):
        open_baseline(tmp_path)


def test_the_estimate_grows_with_rows_up_to_those_that_are_used() -> None:
    small, large, larger = (estimate(rows, 2, "classify", OPTIONS).p50 for rows in (1_000, 50_000, 10**6))
    assert small < large == larger
    assert estimate(1_000, 2, "chat", OPTIONS).p50 < small
