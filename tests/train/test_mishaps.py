"""A loss that is no number: the rows are named as the corpus names them, and the last good checkpoint stays."""

import math
from dataclasses import replace

import polars as pl
import pytest
import torch
from loops import COSTS, ONLY_AT_THE_END, Record, classifier, frame, loop_of, weights

from models_for_tests import bert_folder
from thriftune.errors import BadInput
from thriftune.train.checkpoint import load_latest
from thriftune.train.options import TrainOptions
from thriftune.train.recipe import Recipe
from thriftune.train.setup import work_of

RECIPE = Recipe(epochs=4, rows_per_update=16, rate=1e-3)
BAD_STEP = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


def test_a_loss_that_is_no_number_names_the_rows_of_the_corpus_and_keeps_the_last_checkpoint(model, tmp_path):
    task = classifier(model)
    undisturbed = loop_of(task, RECIPE, Record(tmp_path / "undisturbed"))
    undisturbed.run(ONLY_AT_THE_END, COSTS)
    encoded = replace(task.encode(frame()), ids=tuple(f"review-{number}" for number in range(48)))
    record = Record(tmp_path / "bad")
    loop = loop_of(task, RECIPE, record, encoded=encoded, checkpoint_seconds=0.0)
    loop._block = lambda every, block=loop._block: block(1)  # a step a block, and so a checkpoint a step
    update = loop.update
    loop.update = lambda step: update(step) * (math.nan if step == BAD_STEP else 1.0)
    with pytest.raises(BadInput, match="no longer a number") as refused:
        loop.run(ONLY_AT_THE_END, COSTS)
    said = str(refused.value)
    named, unnamed = loop.rows_of(BAD_STEP)[:8], loop.rows_of(BAD_STEP)[8:]
    assert f"update {BAD_STEP + 1}, training rows {', '.join(f'review-{row}' for row in named)} and 8 more" in said
    assert len(unnamed) == 8
    assert load_latest(tmp_path / "bad" / "checkpoints").step == BAD_STEP
    resumed = loop_of(task, RECIPE, record, encoded=encoded)
    resumed.run(ONLY_AT_THE_END, COSTS)
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_the_rows_of_a_run_have_the_corpus_s_names(model, tmp_path):
    rows = frame(12).with_columns(id=pl.Series([f"films.csv:{number}" for number in range(12)]))
    work = work_of("classify", str(model), tmp_path, TrainOptions(max_tokens=60), 0, "", rows, rows)
    assert work.train.ids == tuple(rows["id"])
