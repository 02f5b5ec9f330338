from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from real_context import open_context
from thriftune.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A run with a budget of 1,000 for evaluation, on a machine that costs 1 a second."""
    with open_context(tmp_path / "state", "evaluation") as opened:
        yield opened
