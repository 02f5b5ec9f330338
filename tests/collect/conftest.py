"""A project's folder with real surroundings, and a short way to read one source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from real_context import open_context
from thriftune.collect.collect import Collected, read_source
from thriftune.collect.options import CollectOptions, Source
from thriftune.context import Context

Read = Callable[..., tuple[list[dict[str, Any]], Collected]]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    (tmp_path / ".thriftune").mkdir()
    with open_context(tmp_path / ".thriftune", "collection") as context:
        yield context


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write `content` to a file and read it as a source: (rows, account)."""

    def read_file(name: str, content: str | bytes, limit: float = 0.01, **columns: Any) -> Any:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        if not columns:
            columns = {"text": "text", "label": "label"}
        frame, collected = read_source(
            Source(file=name, **columns), CollectOptions(bad_row_limit=limit, no_value_limit=0.9), tmp_path
        )
        return frame.to_dicts(), collected

    return read_file
