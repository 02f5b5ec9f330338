"""Training from kept states of the frozen first layers is training with these layers in evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest
import torch
from transformers import (
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForPreTraining,
    RobertaConfig,
    RobertaForMaskedLM,
)

from models_for_tests import bert_folder, llama_folder
from thriftune.budget.decisions import Decisions
from thriftune.clock import SystemClock
from thriftune.errors import BadInput
from thriftune.events import EventLog, open_attempt
from thriftune.models.prefix import NotPassable, Prefix, frozen_depth
from thriftune.models.reference import resolve
from thriftune.store import open_store
from thriftune.tasks.chat import ChatTask, LoraShape
from thriftune.tasks.classify import ClassifyTask
from thriftune.tasks.multilabel import MultilabelTask
from thriftune.tasks.tag import TagTask
from thriftune.tasks.targets import write_labels, write_tags
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.prefix_cache import STATES, Needs, bytes_kept, open_or_build
from thriftune.train.probe import probe_costs
from thriftune.train.recipe import Recipe
from thriftune.train.supervision import Supervision

STEPS = 12
RECIPE = Recipe(epochs=4, rows_per_update=16, rate=1e-3)
FP16_TOLERANCE = 0.02  # of how far the weights moved: AdamW's first steps go by the signs of small gradients too
WORDS = 60
SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
HEADS = {
    "classify": (ClassifyTask, ("no", "yes")),
    "multilabel": (MultilabelTask, ("bad", "good")),
    "tag": (TagTask, ("B-x", "O")),
}
FAMILIES = {
    "roberta": lambda: RobertaForMaskedLM(
        RobertaConfig(vocab_size=WORDS, max_position_embeddings=66, pad_token_id=0, **SIZE)
    ),
    "electra": lambda: ElectraForPreTraining(ElectraConfig(vocab_size=WORDS, embedding_size=16, **SIZE)),
    "distilbert": lambda: DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=WORDS, dim=32, n_layers=3, n_heads=2, hidden_dim=64)
    ),
}


def frame(rows: int = 48) -> pl.DataFrame:
    drawn = np.random.default_rng(3)
    texts = [" ".join(drawn.choice(["good", "bad", "film", "the", "was"], drawn.integers(2, 20))) for _ in range(rows)]
    return pl.DataFrame({"text": texts, "target": ["yes" if "good" in text else "no" for text in texts]})


def labelled() -> pl.DataFrame:
    targets = [write_labels({"good", "bad"} & set(text.split())) for text in frame()["text"]]
    return frame().with_columns(target=pl.Series(targets))


def tagged() -> pl.DataFrame:
    words = [text.split() for text in frame()["text"]]
    targets = [write_tags(["B-x" if word in ("good", "bad") else "O" for word in row]) for row in words]
    return pl.DataFrame({"tokens": words, "target": targets})


def conversations(rows: int = 32) -> pl.DataFrame:
    asked = [f"how do i mend lamp {number}?" for number in range(rows)]
    messages = [[{"role": "user", "content": text}] for text in asked]
    return pl.DataFrame({"messages": messages, "target": [f"turn it off {number}" for number in range(rows)]})


@pytest.fixture
def task_of(tmp_path):
    """A task by the family of its model and the number of frozen layers; dropout is on."""

    def made(family: str, frozen: int):
        family, _, head = family.partition(" ")
        folder = tmp_path / family
        if family == "llama":
            if not folder.exists():
                llama_folder(folder)
            return ChatTask(resolve(str(folder)), max_tokens=200, lora=LoraShape(4, 8, 0.1), frozen_layers=frozen)
        if not folder.exists():
            bert_folder(folder, layers=3)
            if family != "bert":
                tokenizer = AutoTokenizer.from_pretrained(folder)
                torch.manual_seed(0)
                FAMILIES[family]().save_pretrained(folder)
                tokenizer.save_pretrained(folder)
        task, labels = HEADS[head or "classify"]
        return task(resolve(str(folder)), labels, max_tokens=60, frozen_layers=frozen)

    return made


def data_of(task):
    return task.encode({"chat": conversations, "classify": frame, "multilabel": labelled, "tag": tagged}[task.name]())


def loop_of(task, encoded, machine: Machine) -> Loop:
    return Loop(task, task.build(), encoded, encoded, RECIPE, machine, None)


def unmetered(_what: str, _upper: float):
    @contextmanager
    def unit() -> Iterator[None]:
        yield

    return unit()


def cached(loop: Loop, root, depth: int, most_bytes: float = 1e9):
    prefix = Prefix(loop.model, depth)
    needs = Needs(loop.task, loop.train, loop.machine, depth)
    return open_or_build(root, loop.model, prefix, needs, 1e-5, most_bytes, unmetered)


def trained_weights(loop: Loop) -> torch.Tensor:
    losses = [loop.update(step).item() for step in range(STEPS)]
    assert np.isfinite(losses).all()
    return torch.cat([p.detach().flatten() for p in loop.trained])


@pytest.mark.parametrize("micro_batch", [None, 64])
@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        ("bert", 1),
        ("bert", 2),
        ("roberta", 2),
        ("electra", 1),
        ("distilbert", 2),
        ("llama", 1),
        ("bert multilabel", 2),
        ("bert tag", 1),
        ("electra tag", 2),
        ("distilbert multilabel", 1),
    ],
)
def test_training_from_the_cache_is_training_without_it(task_of, tmp_path, family, frozen, micro_batch):
    task = task_of(family, frozen)
    encoded, machine = data_of(task), Machine(micro_batch_tokens=micro_batch)
    plain, kept = loop_of(task, encoded, machine), loop_of(task, encoded, machine)
    assert frozen_depth(kept.model) == frozen
    begun = torch.cat([p.detach().flatten() for p in plain.trained])
    kept.prefix_cache = cached(kept, tmp_path / "prefix", frozen)
    expected, found = trained_weights(plain), trained_weights(kept)
    moved = (expected - begun).norm()
    assert moved > 0
    assert (found - expected).norm() / moved < 1e-4
    assert (found - expected).norm() / expected.norm() < 1e-5
    # Outside the training the model is whole, with the cache or without.
    assert kept.task.validate(kept.model, encoded, 512)["loss"] == pytest.approx(
        plain.task.validate(plain.model, encoded, 512)["loss"], rel=1e-4
    )


@pytest.mark.parametrize(("family", "frozen"), [("bert", 2), ("distilbert", 2), ("electra", 1), ("llama", 1)])
def test_states_in_fp16_take_half_the_room_and_training_hardly_differs(task_of, tmp_path, family, frozen):
    task = task_of(family, frozen)
    encoded = data_of(task)
    loops = {kind: loop_of(task, encoded, Machine(states=kind)) for kind in ("fp32", "fp16")}
    begun = torch.cat([p.detach().flatten() for p in loops["fp32"].trained])
    for kind, loop in loops.items():
        loop.prefix_cache = cached(loop, tmp_path / kind, frozen)
    sizes = {kind: bytes_kept(tmp_path / kind) for kind in loops}
    assert sizes["fp32"] == 2 * sizes["fp16"] > 0
    weights = {kind: trained_weights(loop) for kind, loop in loops.items()}
    assert 0 < (weights["fp16"] - weights["fp32"]).norm() / (weights["fp32"] - begun).norm() < FP16_TOLERANCE


def test_a_state_beyond_fp16_is_refused_and_nothing_is_kept(task_of, tmp_path):
    task = task_of("bert", 2)
    loop = loop_of(task, data_of(task), Machine(states="fp16"))
    loop.model.bert.encoder.layer[1].output.LayerNorm.weight.data.fill_(1e6)
    with pytest.raises(BadInput, match="too large") as refused:
        cached(loop, tmp_path, 2)
    assert (refused.value.where, refused.value.way_out) == ("train.prefix_states", "state fp32 there")
    assert bytes_kept(tmp_path) == 0


def test_the_frozen_prefix_drops_nothing_and_the_rest_does(task_of):
    task = task_of("bert", 2)
    encoded = data_of(task)
    loop = loop_of(task, encoded, Machine())
    batch = task.batch(encoded, np.arange(16))
    prefix = Prefix(loop.model, 2)
    first, second = (prefix.answer(lambda: task.loss(loop.model, batch)) for _ in range(2))
    assert torch.equal(first, second)
    assert task.loss(loop.model, batch).item() != task.loss(loop.model, batch).item()
    prefix.release()
    assert all("forward" not in vars(layer) for layer in loop.model.bert.encoder.layer[:2])


def test_kept_states_are_found_again_and_damaged_ones_are_made_anew(task_of, tmp_path):
    task = task_of("bert", 2)
    encoded = data_of(task)
    root = tmp_path / "prefix"
    loop = loop_of(task, encoded, Machine())
    row = cached(loop, root, 2).states_of(5).copy()
    loop.prefix_cache = None
    (folder,) = root.iterdir()
    written = (folder / STATES).stat().st_mtime_ns
    again = loop_of(task, encoded, Machine())
    assert np.array_equal(cached(again, root, 2).states_of(5), row)
    assert (folder / STATES).stat().st_mtime_ns == written
    with (folder / STATES).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff\xff\xff")
    third = loop_of(task, encoded, Machine())
    assert np.array_equal(cached(third, root, 2).states_of(5), row)
    assert (folder / STATES).stat().st_mtime_ns != written
    (folder / STATES).write_bytes((folder / STATES).read_bytes()[:-40])
    fourth = loop_of(task, encoded, Machine())
    assert np.array_equal(cached(fourth, root, 2).states_of(5), row)


def test_other_rows_depths_and_machines_have_states_of_their_own(task_of):
    task = task_of("bert", 2)
    keys = {
        Needs(task, encoded, machine, depth).key
        for encoded in (task.encode(frame()), task.encode(frame(40)))
        for machine in (Machine(), Machine(precision="bf16"), Machine(states="fp16"))
        for depth in (1, 2)
    }
    assert len(keys) == 12


def test_the_disk_s_bound_is_kept_by_removing_what_took_least_time(task_of, tmp_path):
    task = task_of("bert", 2)
    root = tmp_path / "prefix"
    sets = [task.encode(frame(rows)) for rows in (32, 48, 64)]
    bytes_of = [int(encoded.offsets[-1]) * 32 * 4 for encoded in sets]
    bound = bytes_of[1] + bytes_of[2] + 2000
    for encoded in sets:
        cached(loop_of(task, encoded, Machine()), root, 2, bound)
        assert sum(file.stat().st_size for file in root.rglob(STATES)) <= bound
    assert (root / Needs(task, sets[-1], Machine(), 2).key).is_dir()


def test_the_probe_measures_the_way_with_the_cache_and_leaves_the_model_alone(task_of, tmp_path):
    store, clock = open_store(f"sqlite:///{tmp_path}/events.db"), SystemClock()
    events = EventLog(store, clock, "test", open_attempt(store, clock, "test", "recipe").attempt)
    watch = Supervision(Decisions(events), events, None, None, tmp_path / "checkpoints")
    for family, frozen, depth in (("bert", 2, 2), ("llama", 1, 1), ("bert", 0, None)):
        task = task_of(family, frozen)
        encoded = data_of(task)
        loop = Loop(task, task.build(), encoded, encoded, RECIPE, Machine(), watch)
        before = {name: value.clone() for name, value in loop.model.state_dict().items()}
        costs = probe_costs(loop, 0.0, tmp_path)
        assert (costs.prefix and costs.prefix.depth) == depth
        assert all(value.equal(before[name]) for name, value in loop.model.state_dict().items())
        assert loop.prefix_cache is None
        if costs.prefix:
            assert costs.prefix.bytes_per_token == 32 * 4
            assert costs.prefix.update_seconds_per_token > 0
    store.close()


def test_a_prefix_that_changes_from_step_to_step_is_not_kept_and_a_warning_tells_why(task_of, tmp_path):
    store, clock = open_store(f"sqlite:///{tmp_path}/events.db"), SystemClock()
    events = EventLog(store, clock, "test", open_attempt(store, clock, "test", "recipe").attempt)
    watch = Supervision(Decisions(events), events, None, None, tmp_path / "checkpoints")
    task = task_of("bert", 2)
    encoded = data_of(task)

    loop = Loop(task, task.build(), encoded, encoded, RECIPE, Machine(), watch)
    noise = loop.model.bert.embeddings.register_forward_hook(
        lambda _module, _in, output: output + torch.rand_like(output)
    )
    assert probe_costs(loop, 0.0, tmp_path).prefix is None
    (warned,) = [event.data["what"] for event in events.read(kinds=["warning"])]
    assert "something in the first layers is drawn at random at each step" in warned
    noise.remove()
    assert probe_costs(loop, 0.0, tmp_path).prefix is not None
    assert len(list(events.read(kinds=["warning"]))) == 1
    model = task.build()
    model.bert.embeddings.LayerNorm.requires_grad_(True)
    with pytest.raises(
        NotPassable, match=r"bert\.embeddings\.LayerNorm\.weight is trained and enters the first layers"
    ):
        Prefix(model, 2)
    store.close()


def test_freezing_every_layer_is_refused(task_of):
    with pytest.raises(BadInput, match="no layer would be left to train"):
        task_of("bert", 3).build()
