"""Fewer validation rows where a pass over all of them is dear."""

from dataclasses import replace

import numpy as np
import pytest
from loops import COSTS, classifier, frame

from models_for_tests import bert_folder
from thriftune.tasks.base import SOURCE_ROW
from thriftune.train.recipe import Recipe
from thriftune.train.train import Work
from thriftune.train.validation_rows import FEWEST_VALIDATED, VALIDATION_SHARE, validated_rows, with_validation


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    task = classifier(bert_folder(tmp_path_factory.mktemp("models") / "bert"))
    rows = task.encode(frame(200))
    return Work(task, rows, rows, Recipe(epochs=1, rows_per_update=16, rate=1e-3), "", 32, 2)


def test_a_pass_takes_its_share_of_what_is_left(work) -> None:
    costs = replace(COSTS, validation=10.0)
    assert validated_rows(work, costs, 10.0 / VALIDATION_SHARE) == 200
    assert validated_rows(work, costs, 5.0 / VALIDATION_SHARE) == 100
    assert validated_rows(work, costs, 0.0) == FEWEST_VALIDATED
    assert validated_rows(work, replace(COSTS, validation=0.0), 0.0) == 200


def test_parts_and_pieces_of_a_text_are_read_whole(work) -> None:
    costs = replace(COSTS, validation=10.0)
    in_parts = replace(work.validation, parts=np.zeros(200, dtype=np.int64))
    in_pieces = replace(work.validation, facts={SOURCE_ROW: np.arange(200)})
    for rows in (in_parts, in_pieces):
        assert validated_rows(replace(work, validation=rows), costs, 0.0) == 200


def test_rows_are_drawn_by_the_seed_and_cost_as_their_tokens(work) -> None:
    costs = replace(COSTS, validation=10.0)
    fewer, cheaper = with_validation(work, costs, 60)
    assert len(fewer.validation) == 60
    tokens = fewer.validation.lengths.sum() / work.validation.lengths.sum()
    assert cheaper.validation == pytest.approx(10.0 * tokens)
    again, _ = with_validation(work, costs, 60)
    assert np.array_equal(again.validation.tokens, fewer.validation.tokens)
    other, _ = with_validation(replace(work, recipe=replace(work.recipe, seed=7)), costs, 60)
    assert not np.array_equal(other.validation.tokens, fewer.validation.tokens)
    assert with_validation(work, costs, 200) == (work, costs)
    assert fewer.key == work.key
