import pytest
from recorded_run import record

from thriftune.report.load import load_report


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """(store, story) of a run that went well; to be read from only."""
    return record(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def report(recorded):
    """The report of that run."""
    store, story = recorded
    return load_report(store, story.summary())
