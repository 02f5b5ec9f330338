"""The average of the weights: what it is, that it is what is validated and kept, and that it survives a stop."""

from dataclasses import replace

import pytest
import torch
from loops import COSTS, ONLY_AT_THE_END, Record, classifier, loop_of, weights

from models_for_tests import bert_folder
from thriftune.errors import Interrupted
from thriftune.train.recipe import Phase, Recipe

DECAY = 0.8
RECIPE = Recipe(epochs=4, rows_per_update=16, rate=1e-3, ema=DECAY)
PHASES = (Phase(0.0, 1), Phase(0.5, 0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


def test_the_average_of_the_weights_is_validated_and_kept(model, tmp_path):
    plain = loop_of(classifier(model), replace(RECIPE, ema=0.0), Record(tmp_path / "plain"))
    update, history = plain.update, []

    def noted(step):
        loss = update(step)
        history.append(weights(plain))
        return loss

    plain.update = noted
    plain.run(ONLY_AT_THE_END, COSTS)
    expected = history[0].double()
    for number, values in enumerate(history):
        decay = min(DECAY, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * values.double() if number else values.double()
    loop = loop_of(classifier(model), RECIPE, Record(tmp_path / "average"))
    outcome = loop.run(ONLY_AT_THE_END, COSTS)
    assert (weights(loop).double() - expected).norm() < 1e-6 * expected.norm()
    assert (weights(loop) - weights(plain)).norm() > 1e-4
    again = loop.task.validate(loop.model, loop.validation, loop.machine.read_batch_tokens)
    assert outcome.best == pytest.approx(again)


@pytest.mark.parametrize("phases", [(), PHASES])
def test_a_stopped_run_goes_on_with_its_average(model, tmp_path, phases):
    task, recipe = classifier(model), replace(RECIPE, phases=phases)
    undisturbed = loop_of(task, recipe, Record(tmp_path / "undisturbed"))
    undisturbed.run(ONLY_AT_THE_END, COSTS)
    record = Record(tmp_path / "stopped")
    stopped = loop_of(task, recipe, record, interrupted=lambda: stopped.step >= 5)
    stopped._block = lambda every, block=stopped._block: block(1)  # a step a block
    with pytest.raises(Interrupted):
        stopped.run(ONLY_AT_THE_END, COSTS)
    resumed = loop_of(task, recipe, record)
    resumed.run(ONLY_AT_THE_END, COSTS)
    assert torch.equal(weights(resumed), weights(undisturbed))
