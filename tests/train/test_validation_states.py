"""Validations with the frozen first layers' states kept are validations without, and run those layers once."""

import numpy as np
import polars as pl
import pytest
import torch
from loops import COSTS, Record, classifier, frame, loop_of, weights
from transformers import AutoTokenizer, XLNetConfig, XLNetForSequenceClassification

from models_for_tests import bert_folder, llama_folder
from thriftune.models.adapters import LoraShape
from thriftune.models.load import layer_list
from thriftune.models.prefix import Prefix, passable_depth
from thriftune.models.reference import resolve
from thriftune.tasks.chat import ChatTask
from thriftune.tasks.prefer import PreferTask
from thriftune.tasks.pretrain import PretrainTask
from thriftune.tasks.tag import TagTask
from thriftune.tasks.targets import write_tags
from thriftune.train.machine import Machine
from thriftune.train.prefix_cache import Needs, PrefixCache, open_or_build_all
from thriftune.train.recipe import Phase, Recipe
from thriftune.train.validation_states import ValidationStates, validations_to_pay

DEPTH, BATCH_TOKENS = 2, 128
DEPTH_OF_TWO_LAYERS = 1
ASKED = [f"how do i mend lamp {number}?" + " please" * (number % 4) for number in range(24)]
MESSAGES = [[{"role": "user", "content": text}] for text in ASKED]
ANSWERS = [f"turn it off {number}" for number in range(24)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    bert_folder(folder / "bert", layers=3)
    llama_folder(folder / "llama")
    AutoTokenizer.from_pretrained(folder / "bert").save_pretrained(folder / "xlnet")
    torch.manual_seed(0)
    shape = XLNetConfig(vocab_size=60, d_model=32, n_layer=3, n_head=2, d_inner=64)
    XLNetForSequenceClassification(shape).save_pretrained(folder / "xlnet")
    return folder


def tagged(folder):
    words = [text.split() for text in frame()["text"]]
    targets = [write_tags(["B-x" if word == "good" else "O" for word in row]) for row in words]
    task = TagTask(resolve(str(folder)), ("B-x", "O"), max_tokens=60, frozen_layers=DEPTH)
    return task, task.encode(pl.DataFrame({"tokens": words, "target": targets}))


def of(kind: str, models):
    """A task with its first layers frozen, and its rows."""
    if kind in ("bert", "xlnet"):
        task = classifier(models / kind, frozen_layers=DEPTH)
        return task, task.encode(frame())
    if kind == "tag":
        return tagged(models / "bert")
    model, shared = resolve(str(models / "llama")), {"lora": LoraShape(4, 8, 0.0), "frozen_layers": DEPTH_OF_TWO_LAYERS}
    if kind == "chat":
        task = ChatTask(model, **shared)
        return task, task.encode_pairs(MESSAGES, ANSWERS)
    if kind == "prefer":
        task = PreferTask(model, **shared)
        rows = {"messages": MESSAGES, "target": ANSWERS, "rejected": [f"no {answer}" for answer in ANSWERS]}
        return task, task.encode(pl.DataFrame(rows))
    task = PretrainTask(model, **shared)
    return task, task.encode(pl.DataFrame({"text": ASKED}))


def counted(model):
    """How many rows each layer really computes from here on."""
    seen = [0] * len(layer_list(model))
    for number, layer in enumerate(layer_list(model)):
        attention = next(part for name, part in layer.named_modules() if "attn" in name or "attention" in name)

        def note(_module, _inputs, _output, at=number):
            seen[at] += 1

        attention.register_forward_hook(note)
    return seen


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["bert", "tag", "xlnet", "chat", "prefer", "pretrain"])
def test_figures_are_the_same_to_the_last_bit_and_frozen_layers_run_once(models, tmp_path, kind, precision):
    task, rows = of(kind, models)
    model, machine = task.build(), Machine(precision=precision)
    states = ValidationStates(tmp_path, 1e9, "cpu")
    depth = passable_depth(model)
    assert depth == (DEPTH if kind in ("bert", "tag", "xlnet") else DEPTH_OF_TWO_LAYERS)
    prefix, seen = Prefix(model, depth), counted(model)

    def validated(kept: bool):
        with torch.no_grad(), machine.autocast():
            if not kept:
                return task.validate(model, rows, BATCH_TOKENS)
            with prefix.remembered(states):
                return task.validate(model, rows, BATCH_TOKENS)

    figures, ran = [], []
    drawn = torch.Generator().manual_seed(0)
    for _ in range(3):
        for parameter in model.parameters():
            if parameter.requires_grad:  # adapters begin at zero
                parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=drawn))
        expected = validated(kept=False)
        before = list(seen)
        figures.append(validated(kept=True))
        ran.append([now - then for now, then in zip(seen, before, strict=True)])
        assert figures[-1] == expected
    assert len({figure["loss"] for figure in figures}) == 3  # what is trained does show
    assert ran[0][0] > 0
    assert [runs[:depth] for runs in ran[1:]] == [[0] * depth] * 2
    assert task.validate(model, rows, BATCH_TOKENS)["loss"] != 0  # the model is whole afterwards
    assert seen[0] > sum(runs[0] for runs in ran)


def test_what_has_no_room_is_computed_each_time(models, tmp_path):
    task, rows = of("bert", models)
    model = task.build()
    prefix, expected, seen = Prefix(model, DEPTH), task.validate(model, rows, BATCH_TOKENS), counted(model)
    states = ValidationStates(tmp_path, 20_000, "cpu")
    runs = []
    for _ in range(2):
        before = seen[0]
        with prefix.remembered(states):
            assert task.validate(model, rows, BATCH_TOKENS) == expected
        runs.append(seen[0] - before)
    assert 0 < runs[1] < runs[0]


def test_nothing_is_left_on_the_disk(models, tmp_path):
    states = ValidationStates(tmp_path / "prefix", 1e9, "cpu")
    states.keep(b"key", torch.ones(2, 3, 4))
    assert states.recall(b"key").equal(torch.ones(2, 3, 4))
    assert states.recall(b"other") is None
    assert list((tmp_path / "prefix").iterdir()) == []
    states.clear()
    assert states.recall(b"key") is None


def test_states_of_another_depth_are_others(models, tmp_path):
    task, rows = of("bert", models)
    model = task.build()
    prefix, states = Prefix(model, DEPTH), ValidationStates(tmp_path, 1e9, "cpu")
    expected = task.validate(model, rows, BATCH_TOKENS)
    for depth in (2, 1, 2, 1):
        with prefix.remembered(states, depth):
            assert task.validate(model, rows, BATCH_TOKENS) == expected


@pytest.mark.parametrize("phases", [(), (Phase(0.0, 2), Phase(0.4, 1), Phase(0.7, 0))])
def test_a_run_that_keeps_them_is_the_run_that_does_not(models, tmp_path, phases):
    recipe = Recipe(epochs=6, rows_per_update=16, rate=1e-3, patience=1000, phases=phases)
    found = []
    for keeps in (False, True):
        record = Record(tmp_path / str(keeps))
        task = classifier(models / "bert", frozen_layers=0 if phases else DEPTH)
        loop = loop_of(task, recipe, record)
        depths = [phase.frozen for phase in phases if phase.frozen] or [DEPTH]
        wanted = {depth: Needs(task, loop.train, loop.machine, depth) for depth in depths}
        prefix = Prefix(loop.model, max(depths))
        loop.kept = open_or_build_all(tmp_path / "prefix", loop.model, prefix, wanted, 1e-5, 1e9, loop.watch.unit)
        if keeps:
            loop.validation_states = ValidationStates(tmp_path / "prefix", 1e9, "cpu")
        outcome = loop.run(2, COSTS)
        found.append((outcome, [data["loss"] for data in record.of("training.validation")], weights(loop)))
    (one, losses, ours), (other, same, theirs) = found
    assert one == other
    assert losses == same
    assert len(losses) > 5
    assert ours.equal(theirs)


def test_break_even_is_where_writing_is_won_back():
    assert validations_to_pay(compute=1.0, keep=0.0) == 1
    assert validations_to_pay(compute=1.0, keep=0.5) == 2
    assert validations_to_pay(compute=1.0, keep=1.0) == float("inf")
    n = validations_to_pay(compute=1.0, keep=0.2)
    assert n * 1.0 == pytest.approx(1.0 + 0.2 + (n - 1) * 0.2)


def test_rows_that_nobody_has_seen_are_computed(models, tmp_path):
    task, rows = of("bert", models)
    model = task.build()
    prefix, states = Prefix(model, DEPTH), ValidationStates(tmp_path, 1e9, "cpu")
    other = task.encode(frame(12))
    with prefix.remembered(states):
        task.validate(model, rows, BATCH_TOKENS)
        found = task.validate(model, other, BATCH_TOKENS)
    assert found == task.validate(model, other, BATCH_TOKENS)
    assert isinstance(PrefixCache(prefix, lambda row: np.zeros((1, 1), np.float32)).prefix, Prefix)
