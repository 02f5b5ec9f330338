import pytest
from recorded_run import STARTED, Recorder, Story

from thriftune.report.state import read_state
from thriftune.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path}/thriftune.db")


def test_a_project_that_was_never_run(store):
    assert read_state(store, "movie-sentiment", STARTED).state == "not started"


def test_a_run_at_work_tells_stage_step_money_and_time(store):
    recorder = Recorder(store, Story())
    recorder.collect()
    recorder.train(to_step=24)
    recorder.events.flush()
    state = read_state(store, recorder.story.name, recorder.clock.now() + 2)
    assert (state.state, state.stage, state.step, state.planned) == ("running", "train", 24, 180)
    assert state.pid is not None
    assert 0 < state.spent < state.budget
    assert state.seconds_left == pytest.approx(STARTED + 1200 - recorder.clock.now() - 2)
    assert state.last_event_age_s == pytest.approx(2)
    recorder.finish("interrupted", 130, "the user stopped it")
    ended = read_state(store, recorder.story.name, recorder.clock.now())
    assert (ended.state, ended.pid, ended.message) == ("interrupted", None, "the user stopped it")


def test_a_finished_run(store):
    recorder = Recorder(store, Story(steps=20))
    recorder.collect()
    recorder.finish()
    assert read_state(store, recorder.story.name, recorder.clock.now()).state == "finished"
