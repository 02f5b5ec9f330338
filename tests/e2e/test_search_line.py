"""A search in the line: it finds what the project leaves open, inside its allowance, and survives being killed."""

from decimal import Decimal
from pathlib import Path

import pytest

from line_for_tests import CLASSIFY, Line, charged, classifier
from models_for_tests import bert_folder

SEARCHED = CLASSIFY.replace(", learning_rate: 0.003", "") + (
    "search: {{space: {{learning_rate: [0.0000001, 0.003], freeze_layers: [0, 1]}}, folds: 2, share: 0.6, runs: 50, "
    "sampler: {sampler}}}\n"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


def looks_of(line: Line) -> list[dict]:
    return line.events("search.look")


@pytest.mark.parametrize("sampler", ["curves", "random"])
def test_a_search_leaves_a_rate_that_learns_and_charges_what_it_took(tmp_path, model, home, sampler):
    line = classifier(tmp_path / "project", model, home, SEARCHED, sampler=sampler, epochs=15)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    (found,) = line.events("search.finished")
    assert found["values"]["learning_rate"] == 0.003
    (allowed,) = (e["chosen"] for e in line.events("decision") if e["what"] == "search_allowance")
    assert sum(look["seconds"] for look in looks_of(line)) == pytest.approx(found["seconds"])
    assert 0 < found["seconds"] <= 1.5 * allowed
    report = line.json("report")
    assert report["search"]["winner"] == found["values"]
    assert {row["values"]["learning_rate"] for row in report["search"]["configurations"]} == {0.0000001, 0.003}
    assert report["tuned"]["metrics"]["f1_macro"]["value"] > 0.8


def test_a_killed_search_goes_on_with_the_looks_it_has_paid_for(tmp_path, model, home):
    line = classifier(tmp_path / "project", model, home, SEARCHED, sampler="curves", epochs=4)
    process = line.start("run")
    line.wait_for("search.look", 3)
    process.kill()
    process.communicate()
    before = looks_of(line)
    assert not line.events("search.finished")
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    after = looks_of(line)
    assert after[: len(before)] == before
    paid = [(look["configuration"], look["fold"], look["rung"]) for look in after]
    assert len(set(paid)) == len(paid)
    spent = Decimal(line.json("report")["cost"]["spent"])
    assert spent == charged(line)
