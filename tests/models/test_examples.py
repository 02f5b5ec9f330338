"""The examples' project files hold together with the data that their pages say how to fetch."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from thriftune.collect.packaged import write_packaged
from thriftune.project.project import Project

EXAMPLES = Path(__file__).parents[2] / "examples"


TASKS = {
    "sentiment": "classify",
    "domains": "classify",
    "facets": "multilabel",
    "supersenses": "tag",
    "support-bot": "chat",
    "definitions": "chat",
    "ukrainian": "chat",
    "translation": "chat",
    "trivia": "chat",
    "editorials": "pretrain",
    "tone": "prefer",
}


@pytest.mark.parametrize(("example", "task"), TASKS.items())
def test_the_project_file_loads_with_its_data(example: str, task: str, tmp_path: Path) -> None:
    page = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"thriftune\.collect\.packaged (\S+) (\S+)", page)
    for name, out in commands:
        assert f"{write_packaged(name, tmp_path / out).kept:,}" in page
    shutil.copy(EXAMPLES / example / "thriftune.yaml", tmp_path)
    project = Project.load(tmp_path / "thriftune.yaml")
    assert project.file.objective.task == task
    assert [project.source_path(source) for source in project.file.data] == [tmp_path / out for _, out in commands]
