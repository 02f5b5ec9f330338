"""A rate for each layer, and weight decay where it belongs."""

import pytest
import torch
from loops import COSTS, ONLY_AT_THE_END, Record, classifier, loop_of, weights

from models_for_tests import bert_folder, llama_folder
from thriftune.errors import Interrupted
from thriftune.models.adapters import LoraShape
from thriftune.models.load import parameters_by_block
from thriftune.models.reference import resolve
from thriftune.tasks.chat import ChatTask
from thriftune.train.optimizer import adamw, set_rates
from thriftune.train.recipe import Recipe

RATE, DECAY = 1e-3, 0.5
RECIPE = Recipe(epochs=4, rows_per_update=16, rate=RATE, layer_decay=DECAY)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert", layers=3)


def rates_of(optimizer: torch.optim.Optimizer) -> dict[torch.nn.Parameter, list[float]]:
    found: dict[torch.nn.Parameter, list[float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            found.setdefault(parameter, []).append(group["lr"])
    return found


def test_each_parameter_is_in_one_group_at_the_rate_of_its_layer(model):
    built = classifier(model).build()
    optimizer = adamw(built, RATE, 0.01, DECAY)
    set_rates(optimizer, RATE, 0.5, 0.02)
    rates = rates_of(optimizer)
    assert set(rates) == set(built.parameters())
    depths = {"head": 0, "layer.2": 1, "layer.1": 2, "layer.0": 3, "embeddings": 4}
    for block, parameters in parameters_by_block(built).items():
        assert parameters
        for parameter in parameters:
            assert rates[parameter] == [pytest.approx(RATE * DECAY ** depths[block])]
    for group in optimizer.param_groups:
        assert all((group["weight_decay"] == 0) == (p.dim() < 2) for p in group["params"])


def test_adapters_have_the_rates_of_their_layers(tmp_path):
    task = ChatTask(resolve(str(llama_folder(tmp_path / "llama"))), max_tokens=100, lora=LoraShape(4, 8))
    built = task.build()
    rates = rates_of(adamw(built, RATE, 0.0, DECAY))
    trained = [p for p in built.parameters() if p.requires_grad]
    assert set(rates) == set(trained)
    for layer, depth in (("layer.1", 1), ("layer.0", 2)):
        adapters = [p for p in parameters_by_block(built)[layer] if p.requires_grad]
        assert len(adapters) == 14
        assert all(rates[p] == [RATE * DECAY**depth] for p in adapters)


def test_without_decay_all_layers_share_their_groups(model):
    assert len(adamw(classifier(model).build(), RATE, 0.01).param_groups) == 2


def test_a_resumed_run_has_the_rates_and_ends_with_the_weights_of_an_undisturbed_one(model, tmp_path):
    task = classifier(model)
    undisturbed = loop_of(task, RECIPE, Record(tmp_path / "undisturbed"))
    undisturbed.run(ONLY_AT_THE_END, COSTS)
    same = loop_of(task, Recipe(4, 16, RATE), Record(tmp_path / "same"))
    same.run(ONLY_AT_THE_END, COSTS)
    assert not torch.equal(weights(same), weights(undisturbed))

    record = Record(tmp_path / "stopped")
    stopped = loop_of(task, RECIPE, record, interrupted=lambda: stopped.step >= 5)
    stopped._block = lambda every, block=stopped._block: block(1)  # a step a block
    with pytest.raises(Interrupted):
        stopped.run(1, COSTS)
    resumed = loop_of(task, RECIPE, record)
    resumed.run(ONLY_AT_THE_END, COSTS)
    assert 0 < stopped.step < undisturbed.step
    assert rates_of(resumed.optimizer).values() and sorted(map(tuple, rates_of(resumed.optimizer).values())) == sorted(
        map(tuple, rates_of(undisturbed.optimizer).values())
    )
    assert torch.equal(weights(resumed), weights(undisturbed))
