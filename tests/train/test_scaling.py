"""fp16 with loss scaling, on a CPU, whose autocast has float16 as well."""

from pathlib import Path

import pytest
import torch
from loops import COSTS, ONLY_AT_THE_END, Record, classifier, loop_of, weights

from models_for_tests import bert_folder
from thriftune.budget.record import Record as Durations
from thriftune.cli.telling import said
from thriftune.errors import BadInput, Interrupted
from thriftune.train.machine import Machine, choose_machine
from thriftune.train.options import TrainOptions
from thriftune.train.recipe import Recipe

FP16 = Machine(precision="fp16")
RECIPE = Recipe(epochs=4, rows_per_update=16, rate=1e-3)
TOO_LARGE = 2.0**24  # no gradient of the head's fits into float16 with it


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


def with_scale(loop, scale: float):
    loop.scaling.load({"scaler": loop.scaling._scaler.state_dict() | {"scale": scale}, "skipped": 0})
    return loop


def test_an_overflow_skips_its_update_and_halves_the_scale_until_none_overflows(model, tmp_path):
    record = Record(tmp_path)
    loop = with_scale(loop_of(classifier(model), RECIPE, record, FP16), TOO_LARGE)
    update, still, begun = loop.update, [], weights(loop)

    def noted(step):
        before = weights(loop)
        loss = update(step)
        still.append(weights(loop).equal(before))
        return loss

    loop.update = noted
    outcome = loop.run(ONLY_AT_THE_END, COSTS)
    skipped = sum(still)
    assert 0 < skipped < len(still)
    assert still == [True] * skipped + [False] * (len(still) - skipped)
    assert loop.scaling.skipped == skipped
    assert loop.scaling.scale == TOO_LARGE / 2**skipped
    told = record.of("training.overflow")
    assert [(event["step"], event["scale"]) for event in told] == [
        (number + 1, TOO_LARGE / 2 ** (number + 1)) for number in range(skipped)
    ]
    assert (weights(loop) - begun).norm() > 0
    (first, *_) = record.events.read(kinds=["training.overflow"])
    assert said(first) == "step 1 skipped: fp16 overflowed, and the loss is scaled by 8.38861e+06 from here on"
    assert outcome.best["loss"] < 1.0


def test_training_in_fp16_is_near_training_in_fp32(model, tmp_path):
    task = classifier(model, dropout=0.0)
    full = loop_of(task, RECIPE, Record(tmp_path / "full"))
    begun = weights(full)
    full.run(ONLY_AT_THE_END, COSTS)
    half = loop_of(task, RECIPE, Record(tmp_path / "half"), FP16)
    half.run(ONLY_AT_THE_END, COSTS)
    assert half.scaling.skipped == 0
    assert half.scaling.scale == 2.0**16
    assert full.scaling.scale == 1.0
    assert (weights(half) - weights(full)).norm() < 0.1 * (weights(full) - begun).norm()


def test_a_stopped_run_goes_on_with_its_scale(model, tmp_path):
    task = classifier(model)
    undisturbed = with_scale(loop_of(task, RECIPE, Record(tmp_path / "undisturbed"), FP16), TOO_LARGE)
    undisturbed.run(ONLY_AT_THE_END, COSTS)
    record = Record(tmp_path / "stopped")
    stopped = with_scale(loop_of(task, RECIPE, record, FP16, interrupted=lambda: stopped.step >= 2), TOO_LARGE)
    stopped._block = lambda every, block=stopped._block: block(1)  # a step a block
    with pytest.raises(Interrupted):
        stopped.run(ONLY_AT_THE_END, COSTS)
    resumed = loop_of(task, RECIPE, record, FP16)
    resumed.run(ONLY_AT_THE_END, COSTS)
    assert resumed.scaling.skipped == undisturbed.scaling.skipped > 2
    assert torch.equal(weights(resumed), weights(undisturbed))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is asked for what it lacks")
def test_tf32_is_refused_where_there_is_none():
    def take(what, choose):
        return choose()[0]

    with pytest.raises(BadInput, match="no TF32"):
        choose_machine(take, 32, TrainOptions(precision="tf32", threads=1), Durations(Path("unsaved"), "here"))
