"""Preference tuning and pretraining, from a file to a verdict, by the command line on a small random model."""

import json
import random
import shutil
from pathlib import Path

import httpx
import pytest
from safetensors.torch import load_file
from test_line import assert_the_report_is_whole, served

from line_for_tests import FILLING, Line
from models_for_tests import llama_folder

TRAIN = """
train: {epochs: 3, batch_rows: 4, learning_rate: 0.01, patience: 1000, precision: fp32, threads: 1,
  validations_per_epoch: 1, checkpoint_seconds: 1}
plan: {probe_seconds: 0.2}
"""


def preferences(path: Path) -> None:
    """Chosen answers begin politely; the rejected ones say more, with the same words."""
    drawn = random.Random(0)
    lines = []
    for number in range(120):
        words = [" ".join(drawn.choice(FILLING) for _ in range(6)) for _ in range(2)]
        rejected = f"well, {words[1]}" + (" and so on" if number % 3 else "")
        lines.append(json.dumps({"prompt": f"{words[0]} {number}?", "chosen": f"ok, {words[1]}", "rejected": rejected}))
    path.write_text("\n".join(lines) + "\n")


def documents(path: Path) -> None:
    """Texts of few words, some longer than the model reads at once."""
    drawn = random.Random(0)
    lines = [
        json.dumps({"text": " ".join(drawn.choice(FILLING) for _ in range(drawn.choice([8, 12, 200]))), "page": number})
        for number in range(240)
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_folder(tmp_path_factory.mktemp("models") / "llama")


def started(folder: Path, model: Path, home: Path, data: str) -> Line:
    """A project that `init` made of a data file, trained as the tests can wait for."""
    shutil.copytree(model, folder / "model")
    line = Line(folder, home)
    ended = line.do("init", data, "--model", "./model", "--budget", "5.00", "--deadline", "20m")
    assert ended.returncode == 0, ended.stderr
    file = folder / "thriftune.yaml"
    kept = [text for text in file.read_text().splitlines() if not text.startswith("#")]
    file.write_text("\n".join(kept) + TRAIN)
    return line


def test_preferences_from_a_file_to_a_served_model(tmp_path: Path, model: Path, home: Path) -> None:
    preferences(tmp_path / "pairs.jsonl")
    line = started(tmp_path, model, home, "pairs.jsonl")
    assert "task: prefer" in (tmp_path / "thriftune.yaml").read_text()
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    assert_the_report_is_whole(line, "preference_accuracy", {"longer", "untuned"})
    told = line.json("report")
    untuned = next(row for row in told["verdict"]["comparisons"] if row["baseline"] == "untuned")
    assert (untuned["metric"], untuned["outcome"]) == ("preference_accuracy", "better")
    assert told["tuned"]["metrics"]["margin"]["value"] > told["baselines"]["untuned"]["metrics"]["margin"]["value"]
    validations = line.events("training.validation")
    assert validations[-1]["metrics"]["reward_accuracy"] > 0.9 and validations[-1]["metrics"]["reward_margin"] > 0
    with served(line) as client:
        body = {"messages": [{"role": "user", "content": "what is it"}], "max_tokens": 4}
        assert client.post("/v1/chat/completions", json=body).status_code == httpx.codes.OK


def test_raw_text_from_a_file_to_a_base_for_further_tuning(tmp_path: Path, model: Path, home: Path) -> None:
    documents(tmp_path / "pages.jsonl")
    line = started(tmp_path, model, home, "pages.jsonl")
    assert "task: pretrain" in (tmp_path / "thriftune.yaml").read_text()
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    assert_the_report_is_whole(line, "perplexity", {"untuned"})
    told = line.json("report")
    (untuned,) = told["verdict"]["comparisons"]
    assert (untuned["metric"], untuned["outcome"]) == ("perplexity", "better")
    bits = [
        scores["metrics"]["bits_per_character"]["value"] for scores in (told["tuned"], told["baselines"]["untuned"])
    ]
    assert bits[0] < bits[1]
    (tokens,) = line.events("data.tokens")
    assert tokens["cut_tokens"] == 0
    ended = line.do("serve", "--port", "0")
    assert ended.returncode == 2 and "base for further tuning" in ended.stderr
    (weights,) = (tmp_path / ".thriftune" / "artifacts" / "train").glob("**/model.safetensors")
    assert not [name for name in load_file(weights) if "lora" in name]


@pytest.mark.parametrize("kind", ["pairs", "pages"])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, model: Path, home: Path, kind: str) -> None:
    write = {"pairs": preferences, "pages": documents}[kind]
    hashes = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder / f"{kind}.jsonl")
        line = started(folder, model, home, f"{kind}.jsonl")
        if name == "killed":
            line.run_killed_at("step.done:70")
        ended = line.do("run")
        assert ended.returncode == 0, ended.stderr
        hashes.append(line.weights())
    assert hashes[0] == hashes[1]
