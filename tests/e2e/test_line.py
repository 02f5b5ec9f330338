"""The line end to end, as a user walks it: a file in, a served model with a verdict out, by the command line alone."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import polars as pl
import pytest

from line_for_tests import Line, charged, classifier, write_films
from models_for_tests import bert_folder, llama_folder

DIRTY = "  A  GOOD\tfilm&nbsp;was \u201cgreat\u201d &amp; not caf\u00c3\u00a9 dull\u00a0 "
BIG_VOCABULARY = 262_000  # Gemma's is of this size

REPORT_KEYS = {
    "project",
    "verdict",
    "tuned",
    "baselines",
    "cost",
    "time",
    "forecast",
    "data_ledger",
    "decisions",
    "breaches",
    "return",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@contextmanager
def served(line: Line) -> Iterator[httpx.Client]:
    """`thriftune serve` as a process of its own, stopped as a user stops it."""
    process = line.start("serve", "--port", "0")
    assert process.stdout
    try:
        said = process.stdout.readline()
        address = next((word for word in said.split() if word.startswith("http://")), "")
        assert address, process.stderr.read() if process.stderr else said
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            yield client
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)
    finally:
        process.kill()
        process.communicate()


def assert_the_report_is_whole(line: Line, metric: str, baselines: set[str]) -> None:
    """`report --json` has what scripts rely on (BENCHMARKS.md), and agrees with the ledger."""
    told = line.json("report")
    assert set(told) >= REPORT_KEYS
    assert told["verdict"]["decision"] in ("ship", "hold", "reject", "cannot tell")
    assert told["verdict"]["reasons"]
    assert {row["baseline"] for row in told["verdict"]["comparisons"]} == baselines
    for row in told["verdict"]["comparisons"]:
        assert set(row) >= {"baseline", "metric", "difference", "low", "high", "outcome"}
        assert row["outcome"] in ("better", "not better", "cannot tell")
    assert set(told["baselines"]) == baselines
    for scores in (told["tuned"], *told["baselines"].values()):
        figure = scores["metrics"][metric]
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert told["cost"]["spent"] == str(charged(line)) or float(told["cost"]["spent"]) == float(charged(line))
    assert set(told["cost"]["by_phase"]) == {"collection", "training", "evaluation", "deployment", "upkeep"}
    assert 0 < told["time"]["used_s"] <= told["time"]["deadline_s"]
    for quantity in ("time_s", "cost", "memory_bytes"):
        forecast = told["forecast"]["training"][quantity]
        assert forecast["p5"] <= forecast["p50"] <= forecast["p95"]
        assert forecast["actual"] > 0
    for entry in told["data_ledger"]:
        assert entry["rows_in"] == entry["kept"] + sum(entry["dropped"].values())
    assert {decision["what"] for decision in told["decisions"]} >= {"device", "threads", "precision", "planned_steps"}


def assert_what_tells_of_other_models_is_on_record(home, task):
    """What a first plan of another model and more rows is made from."""
    (parts,) = json.loads((home / "record.json").read_text()).values()
    for part in ("open-relative", f"answer-relative/{task}", f"bytes/grown/{task}"):
        assert min(parts[part]) > 0
    assert max(parts[f"bytes/grown/{task}"]) > 1e8  # PyTorch alone takes more


def test_a_classifier_from_a_file_to_served_answers(tmp_path, model, home):
    folder = tmp_path / "films"
    folder.mkdir()
    shutil.copytree(model, folder / "model")
    write_films(folder / "films.csv")
    with (folder / "films.csv").open("a") as file:
        file.write(f'"{DIRTY}",pos\n')
    line = Line(folder, home)

    ended = line.do("init", "films.csv", "--model", "./model", "--budget", "1.00", "--deadline", "20m")
    assert ended.returncode == 0, ended.stderr
    assert "a classify task" in ended.stdout

    plan = line.json("plan")
    assert plan["fits_whole"]
    assert plan["total"]["time_s"]["p5"] <= plan["total"]["time_s"]["p95"]
    assert plan["phases"]["training"]["memory_bytes"]["p50"] <= plan["memory_bytes"]["p50"]
    assert line.json("status")["state"] == "planned"

    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    assert "Serve it: thriftune serve" in ended.stdout
    status = line.json("status")
    assert (status["state"], status["attempt"]) == ("finished", 1)
    (attempt,) = line.json("runs")["attempts"]
    assert attempt["outcome"] == "done"
    assert_what_tells_of_other_models_is_on_record(home, "classify")
    assert_the_report_is_whole(line, "f1_macro", {"majority", "tfidf", "untuned"})
    (page,) = (folder / ".thriftune" / "reports").glob("*.html")
    assert "http-equiv" in page.read_text() or "<html" in page.read_text()

    prepared = pl.concat(pl.read_parquet(file) for file in (folder / ".thriftune/artifacts/prepare").rglob("*.parquet"))
    (cleaned,) = prepared.filter(pl.col("row") == prepared["row"].max())["text"]
    assert cleaned != DIRTY
    with served(line) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.post("/predict", json={"text": DIRTY}).json()
        assert answer["label"] in ("neg", "pos")
        # The service reads what training read, to the byte: the answers would differ in their last digits.
        assert answer["scores"] == client.post("/predict", json={"text": cleaned}).json()["scores"]
    assert cleaned.encode() == cleaned_by_the_release(line, DIRTY).encode()

    (folder / "films.csv").unlink()  # what was done can be told without it; a run cannot
    assert line.json("status")["state"] == "finished"
    assert line.json("report")["verdict"]
    ended = line.do("run")
    assert ended.returncode == 2
    assert "there is no such data file" in ended.stderr


def cleaned_by_the_release(line: Line, text: str) -> str:
    """What the served model is given for a text."""
    from thriftune.cli.serve import open_latest
    from thriftune.project import Project

    return open_latest(Project.load(line.folder / "thriftune.yaml")).clean(text)


@pytest.mark.slow
def test_another_decoder_and_other_column_names_need_no_change_to_the_code(tmp_path, home):
    folder = tmp_path / "help"
    folder.mkdir()
    llama_folder(folder / "gemma", vocabulary_size=BIG_VOCABULARY)
    assert "chat_template" not in (folder / "gemma" / "tokenizer_config.json").read_text()
    asked = [f"how do i mend {thing} {i}?" for i in range(30) for thing in ("lamp", "door")]
    rows = [f'"{text}","turn it off {i}"' for i, text in enumerate(asked)]
    (folder / "tickets.csv").write_text("\n".join(["enquiry,advice", *rows]) + "\n")
    line = Line(folder, home)
    columns = ("--text", "enquiry", "--label", "advice")
    ended = line.do("init", "tickets.csv", *columns, "--model", "./gemma", "--budget", "1.00", "--deadline", "20m")
    assert ended.returncode == 0, ended.stderr
    assert "a chat task" in ended.stdout
    with (folder / "thriftune.yaml").open("a") as file:
        file.write("\ntrain: {epochs: 2, batch_rows: 4, learning_rate: 0.01}\n")
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    told = line.json("report")
    assert told["verdict"]["decision"] in ("ship", "hold", "reject", "cannot tell")
    assert (
        told["tuned"]["metrics"]["perplexity"]["value"] < told["baselines"]["untuned"]["metrics"]["perplexity"]["value"]
    )
    with served(line) as client:
        request = {"messages": [{"role": "user", "content": asked[0]}], "max_tokens": 8}
        answer = client.post("/v1/chat/completions", json=request).json()
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert answer["usage"]["completion_tokens"] <= 8


@pytest.mark.slow
def test_ctrl_c_exits_130_and_the_next_run_goes_on(tmp_path, model, home):
    line = classifier(tmp_path / "films", model, home)
    process = line.start("run")
    line.wait_for("training.step")
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert "the same command goes on" in complaint
    assert line.json("status")["state"] == "interrupted"
    reached = line.events("training.step")[-1]["step"]
    assert line.events("training.checkpoint")[-1]["step"] == reached
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    steps = [event["step"] for event in line.events("training.step")]
    assert steps == sorted(set(steps))  # nothing was done twice
    assert len(line.json("runs")["attempts"]) == 1


@pytest.mark.slow
def test_a_budget_that_is_too_small_is_refused_and_the_minimum_it_names_works(tmp_path, model, home):
    line = classifier(tmp_path / "films", model, home, budget="0.002")
    refused = line.do("run")
    assert refused.returncode == 3, refused.stderr
    named = minimum(refused)
    path = line.folder / "thriftune.yaml"
    path.write_text(path.read_text().replace("total: 0.002", f"total: {named}"))
    ended = line.do("run")
    assert ended.returncode == 0, (named, ended.stderr)
    assert line.events("verdict")
    assert float(charged(line)) <= float(named)


def minimum(refused: subprocess.CompletedProcess[str]) -> str:
    """The budget that a refusal names."""
    assert "Traceback" not in refused.stderr
    found = re.search(r"expected: at least a budget of \$?([0-9.]+)", refused.stderr)
    assert found, refused.stderr
    assert re.search(r"a deadline of \d+ s", refused.stderr)
    return found[1]
