"""Data of several parts: one after the other with what is forgotten told, or mixed, each part measured apart."""

from pathlib import Path

import pytest

from line_for_tests import Line, classifier, write_films, write_opposites

PROJECT = """name: {name}
objective: {{task: classify}}
data:
  - {{file: films.csv, text: text, label: label, part: films}}
  - {{file: ironic.csv, text: text, label: label, part: ironic}}
budget: {{total: {budget}}}
deadline: {deadline}
compute: {{price_per_hour: 3.6}}
models: ./model
plan: {{probe_seconds: 0.2}}
train: {{epochs: {epochs}, batch_rows: 16, learning_rate: 0.003, dropout: 0, patience: 1000, precision: fp32,
  threads: 1, validations_per_epoch: 1, checkpoint_seconds: 1, {how}}}
"""


def films(folder: Path, model: Path, home: Path, how: str, epochs: int = 25, ironic: bool = True) -> Line:
    """Films, and a second part of them: ironic ones, where the same words mean the opposite, or more of the same."""
    line = classifier(folder, model, home, PROJECT, how=how, epochs=epochs)
    write_films(folder / "ironic.csv", seed=1)
    if ironic:
        write_opposites(folder / "ironic.csv", folder / "ironic.csv", before="oh ")
    return line


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory, model, home) -> Line:
    line = films(tmp_path_factory.mktemp("sequence") / "project", model, home, "order: sequence, replay: 0")
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    assert "after films" in ended.stdout + ended.stderr
    return line


def test_a_sequence_tells_what_each_part_made_the_model_forget(forgetful: Line) -> None:
    before, after_films, after_ironic = forgetful.json("report")["parts"]["forgetting"]
    assert [row["after"] for row in (before, after_films, after_ironic)] == ["", "films", "ironic"]
    assert after_films["parts"]["films"]["accuracy"] > 0.9
    assert after_films["parts"]["ironic"]["accuracy"] < 0.5
    assert after_ironic["parts"]["ironic"]["accuracy"] > 0.9
    assert after_ironic["parts"]["films"]["accuracy"] < after_films["parts"]["films"]["accuracy"] - 0.2
    assert after_ironic["step"] == max(event["step"] for event in forgetful.events("training.step"))
    page = next((forgetful.folder / ".thriftune").rglob("*.html")).read_text(encoding="utf-8")
    assert "What was forgotten" in page and "By part of the data" in page


def test_each_part_has_its_own_metrics_and_comparisons(forgetful: Line) -> None:
    told = forgetful.json("report")
    assert set(told["tuned"]["by_part"]) == {"films", "ironic"}
    figures = {part: metrics["f1_macro"] for part, metrics in told["tuned"]["by_part"].items()}
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures.values())
    assert figures["ironic"]["value"] > figures["films"]["value"]
    compared = {(row["part"], row["baseline"]): row for row in told["parts"]["comparisons"]}
    assert compared["ironic", "majority"]["outcome"] == "better"
    assert not any(row["part"] for row in told["verdict"]["comparisons"])


def test_replay_keeps_what_a_sequence_forgets(tmp_path, model, home, forgetful: Line) -> None:
    line = films(tmp_path / "project", model, home, "order: sequence, replay: 1")
    assert line.do("run").returncode == 0
    kept = line.json("report")["parts"]["forgetting"][-1]["parts"]["films"]["accuracy"]
    lost = forgetful.json("report")["parts"]["forgetting"][-1]["parts"]["films"]["accuracy"]
    assert kept > lost + 0.2


def test_mixed_parts_are_learned_together(tmp_path, model, home) -> None:
    line = films(tmp_path / "project", model, home, "mixing_temperature: 5", ironic=False)
    assert line.do("run").returncode == 0
    told = line.json("report")
    assert told["parts"]["forgetting"] == []
    assert all(metrics["accuracy"]["value"] > 0.85 for metrics in told["tuned"]["by_part"].values())


def test_a_sequence_killed_in_its_second_part_goes_on_to_the_same_weights(tmp_path, model, home) -> None:
    whole, killed = (films(tmp_path / name, model, home, "order: sequence", epochs=6) for name in ("whole", "killed"))
    assert whole.do("run").returncode == 0
    steps = len({event["step"] for event in whole.events("training.step")})
    killed.run_killed_at(f"step.done:{steps - 10}")
    assert killed.do("run").returncode == 0
    assert killed.weights() == whole.weights()


def test_a_sequence_of_one_part_is_refused(tmp_path, model, home) -> None:
    line = films(tmp_path / "project", model, home, "order: sequence")
    text = (line.folder / "thriftune.yaml").read_text().replace(", part: films", "").replace(", part: ironic", "")
    (line.folder / "thriftune.yaml").write_text(text)
    ended = line.do("run")
    assert ended.returncode == 2
    assert "two or more parts of the data" in ended.stderr
