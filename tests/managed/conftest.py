from collections.abc import Iterator
from pathlib import Path

import pytest
import vertex


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[vertex.Vertex]:
    """The server, found by this process and its children through the environment."""
    with vertex.serving() as running:
        key, _ = vertex.key_file(tmp_path, running.url)
        for name, value in vertex.environment(running.url, key).items():
            monkeypatch.setenv(name, value)
        yield running
