"""`thriftune inspect`: what it shows and says as JSON; a bad reference is one message and exit 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models_for_tests import bert_folder, llama_folder
from thriftune.cli.inspect import inspect
from thriftune.errors import BadInput


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = bert_folder(tmp_path / "bert", layers=4)
    (folder / "README.md").write_text('---\nlicense: "[b]mit[/b]"\n---\n')
    return folder


def told(capsys: pytest.CaptureFixture[str], model: Path | str, **options: object) -> dict:
    inspect(str(model), as_json=True, **{"task": None, "project": None, "rows": None, "tokens": None} | options)
    return json.loads(capsys.readouterr().out)


def test_a_program_is_told_all_of_it(encoder, capsys):
    facts = told(capsys, encoder, rows=8, tokens=16)
    assert (facts["kind"], facts["layers"], facts["task"], facts["freezable"]) == ("encoder", 4, "classify", 3)
    assert list(facts["blocks"]) == ["embeddings", "layer.0", "layer.1", "layer.2", "layer.3", "head"]
    assert list(facts["memory"]["methods"]) == ["full", "head", "lora", "freeze 2", "freeze 3"]
    full = facts["memory"]["methods"]["full"]
    assert full["trained"] == sum(facts["blocks"].values())
    assert full["peak"] == full["weights"] + full["gradients"] + full["moments"] + full["activations"]
    assert full["moments"] == 2 * full["gradients"] == 8 * full["trained"]
    assert facts["disk_bytes"] == sum(f.stat().st_size for f in encoder.iterdir() if f.name != "README.md")
    assert facts["warnings"] == []


def test_a_person_is_shown_tables_without_markup(encoder, capsys):
    inspect(str(encoder))
    shown = capsys.readouterr().out
    for part in ("layer.0 … layer.3", "freeze 3", "64 tokens", "the embeddings and layers 0 to 2"):
        assert part in shown
    assert "[b]mit[/b]" in shown


def test_the_task_s_wants_are_warned_of(tmp_path, capsys):
    folder = llama_folder(tmp_path / "llama")
    assert "a plain one is used" in told(capsys, folder)["warnings"][0]
    assert "needs another kind of model" in told(capsys, folder, task="classify")["warnings"][0]
    with pytest.raises(BadInput, match="no such task"):
        told(capsys, folder, task="paint")


def test_a_project_s_rows_are_held_against_the_context(encoder, tmp_path, capsys):
    rows = [f"{'good film ' * words},{'yes' if words % 2 else 'no'}" for words in range(1, 61)]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    project = tmp_path / "thriftune.yaml"
    project.write_text(
        "name: films\nobjective: {task: classify}\nbudget: {total: 1}\ndeadline: 5m\nmodels: ./bert\n"
        "data: [{file: films.csv, text: text, label: label}]\ntrain: {batch_rows: 7}\n"
    )
    facts = told(capsys, "./bert", project=project)
    assert (facts["memory"]["rows"], facts["memory"]["tokens"]) == (7, 64)
    assert facts["warnings"] == [
        "29 of 60 rows are longer than the 64 tokens that are read of a row: 870 tokens would be cut"
    ]


@pytest.mark.parametrize("reference", ["nothing-there", "./nowhere", "package:foo", "gemini:x", "hub:a/b/c"])
def test_a_bad_reference_is_one_message(reference, tmp_path):
    command = [sys.executable, "-c", "from thriftune.cli.main import main; main()", "inspect", reference]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("error: ") == 1
    assert "way out:" in ended.stderr and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())
