"""Which weights are kept: the best, and the last where only chance tells them apart."""

import pytest
from loops import COSTS, Record, classifier, frame, loop_of

from models_for_tests import bert_folder
from thriftune.train.best import Best
from thriftune.train.recipe import Recipe

ACCURACY = Recipe(epochs=1, rows_per_update=8, rate=1e-3, watch="accuracy", higher_is_better=True)
LOSS = Recipe(epochs=1, rows_per_update=8, rate=1e-3, watch="loss", higher_is_better=False)


@pytest.mark.parametrize(("last", "rows", "chance"), [(0.88, 100, True), (0.86, 100, False), (0.88, 10_000, False)])
def test_a_standard_error_of_a_share_tells_chance(last: float, rows: int, chance: bool) -> None:
    best = Best(10, {"accuracy": 0.90, "loss": 0.3})  # a standard error of 0.03 on 100 rows, 0.003 on 10,000
    assert best.leads_by_chance({"accuracy": last, "loss": 0.4}, rows, ACCURACY) is chance


def test_a_loss_is_taken_at_its_word_and_a_perfect_share_too() -> None:
    assert not Best(10, {"loss": 0.300}).leads_by_chance({"loss": 0.301}, 100, LOSS)
    assert not Best(10, {"accuracy": 1.0, "loss": 0.3}).leads_by_chance({"accuracy": 0.99, "loss": 0.3}, 100, ACCURACY)


def test_a_run_ends_with_the_last_weights_or_says_nothing(tmp_path) -> None:
    task = classifier(bert_folder(tmp_path / "bert"))
    recipe = Recipe(epochs=8, rows_per_update=16, rate=3e-3, watch="accuracy", higher_is_better=True, seed=1)
    record = Record(tmp_path / "record")
    loop = loop_of(task, recipe, record)
    outcome = loop.run(2, COSTS)
    validations = record.of("training.validation")
    best = max(one["metrics"]["accuracy"] for one in validations)
    last = validations[-1]["metrics"]["accuracy"]
    kept = [one for one in record.of("decision") if one["what"] == "weights kept"]
    rows = len(task.encode(frame()))
    if outcome.best_step == outcome.steps:
        assert outcome.best["accuracy"] == last
        assert bool(kept) == (best > last)
    else:
        assert not kept
        assert best - last > (best * (1 - best) / rows) ** 0.5 or best == 1.0
