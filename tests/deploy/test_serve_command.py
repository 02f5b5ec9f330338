import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from models_for_tests import bert_folder
from thriftune.artifacts import ArtifactStore
from thriftune.cli.serve import open_latest, serve
from thriftune.clock import SystemClock
from thriftune.errors import BadInput
from thriftune.events import EventLog
from thriftune.models.reference import resolve
from thriftune.project import Project
from thriftune.session import database_url
from thriftune.store import open_store
from thriftune.tasks.classify import ClassifyTask
from thriftune.train.train import ABOUT_FILE

PROJECT = """
name: films
objective: {task: classify}
data:
  - {file: films.csv, text: text, label: label, licence: MIT}
budget: {total: 1.00, currency: USD}
deadline: 1h
models: [./bert]
"""


@pytest.fixture
def project(tmp_path) -> Project:
    (tmp_path / "films.csv").write_text("text,label\na good film,good\na bad film,bad\n")
    bert_folder(tmp_path / "bert")
    (tmp_path / "thriftune.yaml").write_text(PROJECT)
    return Project.load(tmp_path / "thriftune.yaml")


def train(project: Project) -> None:
    """Leave what a run's training stage leaves."""
    task = ClassifyTask(resolve(str(project.folder / "bert")), ("bad", "good"), max_tokens=32)

    def write(folder: Path) -> None:
        task.save(task.build(), folder)
        (folder / ABOUT_FILE).write_text(json.dumps({"serving_steps": ["repair", "whitespace"], "outcome": {}}))

    project.root.mkdir(exist_ok=True)
    store, clock = open_store(database_url(project)), SystemClock()
    ArtifactStore(project.root, store, clock, "films").build("train", "k", {}, write)
    EventLog(store, clock, "films", 1).emit("stage.finished", stage="train", key="k", seconds=1.0, reused=False)
    store.close()


def test_before_the_first_run_there_is_nothing_to_serve_and_nothing_is_made(project):
    with pytest.raises(BadInput) as refusal:
        open_latest(project)
    assert "no run yet" in str(refusal.value)
    assert not project.root.exists()


def test_a_reachable_host_without_a_token_is_refused_before_anything_is_loaded(project, monkeypatch):
    monkeypatch.delenv("THRIFTUNE_TOKEN", raising=False)
    with pytest.raises(BadInput) as refusal:
        serve(project.path, host="0.0.0.0")
    assert "THRIFTUNE_TOKEN" in str(refusal.value)


def test_serve_answers_with_the_latest_model_until_it_is_stopped(project):
    train(project)
    command = (
        "import sys; from pathlib import Path; from thriftune.cli.serve import serve; serve(Path(sys.argv[1]), port=0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, project.path], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout
    try:
        said = process.stdout.readline()
        address = next(word for word in said.split() if word.startswith("http://127.0.0.1:"))
        assert f"{address}/predict" in process.stdout.readline()
        answer = httpx.post(f"{address}/predict", json={"text": "a good film"}, timeout=20, trust_env=False).json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert answer["label"] in ("bad", "good")
    assert answer["release"] == said.split()[0]
    assert sum(answer["scores"].values()) == pytest.approx(1.0)
