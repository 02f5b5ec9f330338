"""Hub models are fetched without code or pickles; each failure is one message that shows no token."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, serving

SCRIPT = """
import sys
from pathlib import Path
from thriftune.errors import BadInput
from thriftune.models.reference import resolve
for reference in sys.argv[2:]:
    try:
        folder = resolve(reference, Path(sys.argv[1]))
        print("found", folder.path, folder.kind)
    except BadInput as error:
        print(error)
    print("---")
"""
TOKEN = "hf_not_to_be_shown"


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


def _resolve(address: str, home: Path, *references: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": TOKEN}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        environment.pop(name, None)
        environment.pop(name.lower(), None)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home / "cache"), *references],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert TOKEN not in ended.stdout + ended.stderr
    return ended.stdout.split("---\n")[:-1]


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
