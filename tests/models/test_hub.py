"""Hub models are fetched without code or pickles; each failure is one message that shows no token."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, move_main, serving

from line_for_tests import Line, write_films
from models_for_tests import bert_folder

SCRIPT = """
import sys
from pathlib import Path
from thriftune.errors import BadInput
from thriftune.models.reference import resolve
for reference in sys.argv[2:]:
    try:
        folder = resolve(reference, Path(sys.argv[1]))
        print("found", folder.path, folder.lasting_reference, folder.content_hash, folder.licence, folder.kind)
    except BadInput as error:
        print(error)
    print("---")
"""
TOKEN = "hf_not_to_be_shown"
OTHER = "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def hub(small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    models = tmp_path_factory.mktemp("hub")
    shutil.copytree(small_models / "electra", models / "electra")
    (models / "electra" / "pytorch_model.bin").write_bytes(b"pickled")
    (models / "electra" / "modeling_own.py").write_text("raise SystemExit")
    (models / "electra" / "onnx").mkdir()
    (models / "electra" / "onnx" / "model.json").write_text("{}")
    with serving(models) as served:
        yield served


def _environment(address: str, home: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": TOKEN}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        environment.pop(name, None)
        environment.pop(name.lower(), None)
    return environment


def _resolve(address: str, home: Path, *references: str, script: str = SCRIPT) -> list[str]:
    environment = _environment(address, home)
    ended = subprocess.run(
        [sys.executable, "-c", script, str(home / "cache"), *references],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert TOKEN not in ended.stdout + ended.stderr
    return ended.stdout.split("---\n")[: -1 if script == SCRIPT else None]


def test_a_model_is_fetched_and_found_again_without_a_connection(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    first, missing, revision, gated, closed, broken = _resolve(
        address,
        tmp_path,
        "hub:org/electra",
        "hub:org/nothing",
        "hub:org/electra@v9",
        "hub:org/gated",
        "hub:org/closed",
        "hub:org/broken",
    )
    assert first.startswith("found ") and first.endswith("encoder\n") and COMMIT in first
    assert not [path for path in asked if path.endswith((".bin", ".py")) or "onnx" in path]
    assert "the hub shows no such model" in missing
    assert "the model has no such revision" in revision and "v9" in revision
    assert "terms" in gated and "HF_TOKEN" in gated
    assert "HF_TOKEN" in closed
    assert "HTTP status 500" in broken
    again, absent = _resolve("http://127.0.0.1:9", tmp_path, "hub:org/electra", "hub:org/other")
    assert again == first
    assert "cannot be reached" in absent


COUNTING = """
import sys
from pathlib import Path
from thriftune import traffic
from thriftune.errors import BadInput
from thriftune.models.reference import resolve
asked = []
with traffic.watched(lambda most, what: asked.append((most, what))) as seen:
    for reference in sys.argv[2:]:
        try:
            resolve(reference, Path(sys.argv[1]))
        except BadInput:
            asked.append("refused")
        print(seen.bytes, *asked, sep="|")
        asked.clear()
        seen.bytes = 0
"""


def test_the_bytes_of_a_fetch_are_foretold_and_counted_once(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, _ = hub
    told = _resolve(address, tmp_path, "hub:org/electra", "hub:org/electra", "hub:org/nothing", script=COUNTING)
    fetched = sum(file.stat().st_size for file in (tmp_path / "hub").rglob("blobs/*"))
    assert fetched > 100_000
    assert told[0].splitlines() == [
        f"{fetched}|({fetched}, 'fetching hub:org/electra')",
        f"0|({fetched}, 'fetching hub:org/electra')",
        "0|(0, 'fetching hub:org/nothing')|refused",
    ]


def test_a_pinned_commit_stays_what_it_was_when_the_branch_moves(small_models: Path, tmp_path: Path) -> None:
    models = tmp_path / "hub"
    shutil.copytree(small_models / "electra", models / "electra")
    (models / "electra" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Small\n")
    with serving(models) as (address, _):
        home = tmp_path / "home"
        (before,) = _resolve(address, home, "hub:org/electra")
        assert f" hub:org/electra@{COMMIT} " in before
        changed = move_main(models, "electra", OTHER)
        (changed / "tokenizer_config.json").write_text((changed / "tokenizer_config.json").read_text() + " ")
        after, pinned = _resolve(address, home, "hub:org/electra", f"hub:org/electra@{COMMIT}")
        assert f" hub:org/electra@{OTHER} " in after
        assert pinned == before
        assert after.split()[3] != before.split()[3]
    # Without a connection both are there, each as it was.
    again, old = _resolve("http://127.0.0.1:9", home, "hub:org/electra", f"hub:org/electra@{COMMIT}")
    assert (again, old) == (after, before)


PROJECT = """name: films
objective: {task: classify}
data: [{file: films.csv, text: text, label: label}]
budget: {total: 5.00}
deadline: 20m
models: hub:org/bert
plan: {probe_seconds: 0.2}
train: {epochs: 8, batch_rows: 32, learning_rate: 0.003, precision: fp32, threads: 1}
"""


def test_a_run_goes_on_with_the_commit_that_it_began_with(tmp_path: Path) -> None:
    models, folder = tmp_path / "hub", tmp_path / "films"
    bert_folder(models / "bert")
    folder.mkdir()
    write_films(folder / "films.csv", 120)
    (folder / "thriftune.yaml").write_text(PROJECT)
    line = Line(folder, tmp_path / "home")
    with serving(models) as (address, _):
        hub = _environment(address, tmp_path / "hub-home")
        hub = {name: hub[name] for name in ("HF_ENDPOINT", "HF_HOME", "HF_TOKEN")} | {"NO_PROXY": "127.0.0.1"}
        killed = line.do("run", THRIFTUNE_CRASH_AT="step.done", **hub)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        changed = move_main(models, "bert", OTHER)
        settings = json.loads((changed / "tokenizer_config.json").read_text())
        (changed / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 99}))
        ended = line.do("run", **hub)
        assert ended.returncode == 0, ended.stderr
        chosen = [event["chosen"] for event in line.events("decision") if event["what"] == "model"]
        assert chosen == [f"hub:org/bert@{COMMIT}"]
        (about,) = (folder / ".thriftune" / "artifacts" / "train").glob("**/thriftune-task.json")
        assert json.loads(about.read_text())["reference"] == f"hub:org/bert@{COMMIT}"
        assert COMMIT in line.do("report", **hub).stdout
        looked = json.loads(line.do("inspect", "hub:org/bert", "--json", **hub).stdout)
        assert (looked["commit"], looked["model_type"]) == (OTHER, "bert")
