"""A run whose model is judged has landed, whether or not the limits hold the writing of its report's page."""

from __future__ import annotations

import pytest

from line_for_tests import CLASSIFY, write_films
from thriftune import pipeline
from thriftune.clock import ManualClock
from thriftune.events import latest_attempt
from thriftune.forecasting import expect_all
from thriftune.project import Project
from thriftune.session import database_url, open_session
from thriftune.store import open_store


@pytest.mark.parametrize("left_s", [0.5, 60.0])
def test_a_page_that_does_not_fit_any_more_is_told_of_and_the_run_ends_well(tmp_path, monkeypatch, left_s):
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))
    write_films(tmp_path / "films.csv", rows=20)
    (tmp_path / "thriftune.yaml").write_text(CLASSIFY.format(name="films", budget="100.00", deadline="10m", epochs=1))
    project = Project.load(tmp_path / "thriftune.yaml")
    clock = ManualClock(1.8e9)
    with open_session(project, clock=clock) as session:
        for _ in range(3):
            session.record.add("report", 2.0)
        expect_all(session)
        for part in [name for name in session.outlook.parts if name not in ("report", "exit")]:
            session.outlook.done(part)
        clock.advance(session.limits().seconds - left_s)
        page = pipeline._report(session)
        warnings = [event.data for event in session.context.events.read(kinds=["warning"])]
    store = open_store(database_url(project))
    ended = latest_attempt(store, "films")
    store.close()
    assert ended is not None and (ended.outcome, ended.exit_code) == ("done", 0)
    if left_s > 30:
        assert page is not None and page.exists() and not warnings
    else:
        (warning,) = warnings
        assert page is None and "deadline" in warning["what"] and "thriftune report writes it" in warning["what"]
