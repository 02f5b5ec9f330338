"""A small model and a record of durations, each shared by the tests of a file."""

from pathlib import Path

import pytest

from models_for_tests import bert_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")
