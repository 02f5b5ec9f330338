"""Any number of labels a text, and a tag a word, on real data from the file to served answers.

Each model must be better than what it is held against by the evaluation's own paired comparison.
"""

import os
import subprocess
from pathlib import Path

import pytest
from test_line import assert_the_report_is_whole, served

from line_for_tests import Line
from thriftune.collect.packaged import write_packaged

PATIENT_SECONDS = 1200  # MiniLM on a machine that others use
RECIPE = """
prepare: {{proportions: {{train: 0.7, validation: 0.15, test: 0.15}}}}
train: {{epochs: {epochs}, learning_rate: 0.0003, validations_per_epoch: 1, threads: 1, precision: fp32}}
"""


def project(folder: Path, data: str, rows: int, epochs: int) -> Line:
    """A project that `thriftune init` made of every n-th row of a packaged data set."""
    folder.mkdir()
    write_packaged(data, folder / "all.jsonl")
    lines = (folder / "all.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    every = len(lines) // rows
    (folder / f"{data}.jsonl").write_text("".join(lines[::every][:rows]), encoding="utf-8")
    line = Line(folder, folder / "home")
    ended = line.do("init", f"{data}.jsonl", "--budget", "5.00", "--deadline", "1h")
    assert ended.returncode == 0, ended.stderr
    with (folder / "thriftune.yaml").open("a") as file:
        file.write(RECIPE.format(epochs=epochs))
    return line


def run(line: Line) -> None:
    process = line.start("run", **{name: os.environ[name] for name in ("THRIFTUNE_CACHE",) if name in os.environ})
    try:
        out, err = process.communicate(timeout=PATIENT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, (out[-2000:], err)


def gains(line: Line, metric: str) -> dict[str, tuple[str, float]]:
    """What the comparisons on a metric found, by baseline: the outcome and the interval's lower end."""
    rows = line.json("report")["verdict"]["comparisons"]
    return {row["baseline"]: (row["outcome"], row["low"]) for row in rows if row["metric"] == metric}


@pytest.mark.slow
def test_labels_of_rated_sentences_are_told_better_than_without_tuning(tmp_path):
    line = project(tmp_path / "facets", "facets", rows=1_200, epochs=3)
    run(line)
    found = gains(line, "f1_macro")
    assert set(found) == {"majority", "tfidf", "untuned"}
    for baseline in ("majority", "untuned"):
        outcome, low = found[baseline]
        assert outcome == "better" and low > 0, (baseline, found)
    assert_the_report_is_whole(line, "f1_macro", set(found))
    tuned = line.json("report")["tuned"]
    assert {"movie", "product", "news", "tweet", "positive", "negative"} <= set(tuned["by_class"])
    with served(line) as client:
        answer = client.post("/predict", json={"text": "A moving film, beautifully acted from start to end."}).json()
    assert answer["labels"] == sorted(label for label, p in answer["scores"].items() if p >= 0.5)
    assert max(("movie", "product", "news", "tweet"), key=answer["scores"].__getitem__) == "movie"


@pytest.mark.slow
def test_verbs_and_their_supersenses_are_found_better_than_by_each_word_s_usual_tag(tmp_path):
    line = project(tmp_path / "supersenses", "supersenses", rows=2_000, epochs=4)
    run(line)
    found = gains(line, "f1_span")
    assert set(found) == {"unigram"}
    outcome, low = found["unigram"]
    assert outcome == "better" and low > 0, found
    assert_the_report_is_whole(line, "f1_span", {"unigram"})
    with served(line) as client:
        words = ["They", "walked", "to", "the", "river"]
        answer = client.post("/predict", json={"tokens": words}).json()
    assert answer["tokens"] == words
    assert [tag != "O" for tag in answer["tags"]] == [False, True, False, False, False], answer
