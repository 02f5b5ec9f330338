"""Corpora as collecting makes them, and real surroundings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from real_context import open_context
from thriftune.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    (tmp_path / ".thriftune").mkdir()
    with open_context(tmp_path / ".thriftune", "collection") as context:
        yield context
