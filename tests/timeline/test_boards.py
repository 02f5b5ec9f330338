"""A timeline kept in step with Asana and Trello, through the command, against servers that speak their protocols."""

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from board_servers import (
    ASANA_TOKEN,
    BOARD,
    PROJECT,
    SHORT_BOARD,
    TRELLO_KEY,
    TRELLO_TOKEN,
    AsanaService,
    Fault,
    TrelloService,
    serving,
)

from thriftune.cli.commands import app
from thriftune.clock import ManualClock
from thriftune.errors import BadInput
from thriftune.events import EventLog, open_attempt
from thriftune.report.load import load_report
from thriftune.report.model import ProjectSummary
from thriftune.store import open_store
from thriftune.timeline.boards import trello as trello_module
from thriftune.timeline.boards.api import MOST_WAITING, Api, OutOfReach, Refused
from thriftune.timeline.boards.items import items_of
from thriftune.timeline.boards.sync import pull, push
from thriftune.timeline.boards.trello import Trello
from thriftune.timeline.options import TimelineOptions
from thriftune.timeline.timeline import timeline_of
from timeline_for_tests import LATER, PARTS, START, planned

FILE = """name: films
objective: {task: classify}
data: [{file: films.csv, text: text, label: label}]
budget: {total: 0.50}
deadline: 20h
timeline:
  tasks:
    - {name: label, who: ana, hours: 12, before: data}
    - {name: review, who: bo, hours: 3, after: evaluation}
  rollout: {shares: [50, 100], each: 1d}
"""
TASKS = [{"name": "label", "who": "ana", "hours": 12}, {"name": "review", "who": "bo", "hours": 3}]
TITLES = {"label (ana)", "data", "baselines", "set-up", "training", "evaluation", "review (bo)"}
TITLES |= {"rollout 50 %", "rollout 100 %"}
SECRETS = (ASANA_TOKEN, TRELLO_KEY, TRELLO_TOKEN)
TOMORROW = (datetime.now(UTC) + timedelta(days=40)).replace(microsecond=0)


class Bench:
    """A project that was planned, and the command that keeps a service in step with it."""

    def __init__(self, folder, service, monkeypatch, caplog):
        self.folder, self.service, self.caplog = folder, service, caplog
        self.asana = isinstance(service, AsanaService)
        (folder / "thriftune.yaml").write_text(FILE)
        (folder / "films.csv").write_text("text,label\na,b\n")
        root = folder / ".thriftune"
        root.mkdir()
        self.url = f"sqlite:///{root}/thriftune.db"
        store = open_store(self.url)
        clock = ManualClock(datetime.now(UTC).timestamp())
        attempt = open_attempt(store, clock, "films", "recipe").attempt
        log = EventLog(store, clock, "films", attempt)
        plan = planned(0.0, **PARTS, **LATER)
        log.emit("plan.made", **plan.data)
        log.emit("attempt.finished", outcome="planned")
        store.close()
        monkeypatch.chdir(folder)
        name = "ASANA" if self.asana else "TRELLO"
        monkeypatch.setenv(f"THRIFTUNE_{name}_URL", service.address)
        monkeypatch.setenv("ASANA_ACCESS_TOKEN", ASANA_TOKEN)
        monkeypatch.setenv("TRELLO_API_KEY", TRELLO_KEY)
        monkeypatch.setenv("TRELLO_API_TOKEN", TRELLO_TOKEN)
        self.caplog.set_level(logging.DEBUG)

    def sync(self, *more):
        """The output, or the error it ended with; secrets stand in neither, nor in a log, nor in the record."""
        where = ("asana", "--project", PROJECT) if self.asana else ("trello", "--board", SHORT_BOARD)
        result = CliRunner().invoke(app, ["timeline", "sync", *where, *more])
        said = result.output + str(result.exception or "") + self.caplog.text
        said += "".join(path.read_bytes().decode("latin-1") for path in (self.folder / ".thriftune").iterdir())
        said += "".join(str(asked[:3]) for asked in self.service.asked)
        assert not [secret for secret in SECRETS if secret in said]
        if result.exception is not None and not isinstance(result.exception, BadInput):
            raise result.exception
        return result.exception or result.output

    def events(self, kind):
        store = open_store(self.url)
        found = EventLog(store, ManualClock(), "films", 0).read(kinds=[kind])
        store.close()
        return [event.data for event in found]

    def report(self):
        store = open_store(self.url)
        options = TimelineOptions.model_validate({"tasks": TASKS})
        found = load_report(store, ProjectSummary("films", "classify", "model", timeline=options))
        store.close()
        return found

    def move(self, title, instant):
        entry = self.service.titled(title)
        entry["due_at" if self.asana else "due"] = f"{instant:%Y-%m-%dT%H:%M:%S}.000Z"

    def tick(self, title, done=True):
        entry = self.service.titled(title)
        entry["completed" if self.asana else "dueComplete"] = done
        entry["completed_at"] = "2026-11-20T12:00:00.000Z" if done else None

    def due(self, title):
        return datetime.fromisoformat(self.service.titled(title)["due_at" if self.asana else "due"])

    def is_ticked(self, title):
        return self.service.titled(title)["completed" if self.asana else "dueComplete"]


@pytest.fixture(params=[AsanaService, TrelloService], ids=["asana", "trello"])
def bench(request, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trello_module.Trello.__init__, "__defaults__", (2,))  # two cards a page
    with serving(request.param()) as service:
        yield Bench(tmp_path, service, monkeypatch, caplog)


def test_a_board_gets_every_phase_and_task_and_a_second_sync_writes_nothing(bench):
    assert "9 changes, 9 entries" in str(bench.sync())
    assert {one["name"] for one in bench.service.entries.values()} == TITLES
    assert sorted(bench.service.groups.values()) == ["Machine", "People", "Rollout"]
    bench.service.forget()
    assert "0 changes, 9 entries" in str(bench.sync())
    assert bench.service.written == []
    pages = [query for _, path, query, _ in bench.service.asked if path.endswith(("/tasks", "/cards/all"))]
    assert len(pages) == 5  # nine entries, two a page
    assert len(bench.events("timeline.board")) == 9


def test_a_dry_run_says_what_would_be_done_and_does_nothing(bench):
    assert "9 changes to make" in str(bench.sync("--dry-run"))
    assert bench.service.written == []
    assert bench.events("timeline.board") == []


def test_a_moved_date_and_a_tick_of_people_become_decisions_once(bench):
    bench.sync()
    bench.move("review (bo)", TOMORROW)
    bench.tick("label (ana)")
    bench.service.forget()
    said = bench.sync()
    assert "taken over: review (bo) (its due date was moved in" in said
    assert "taken over: label (ana) (ticked off in" in said
    decisions = bench.events("decision")
    assert [(one["chosen"]["task"], one["chosen"]["field"]) for one in decisions] == [
        ("label", "done"),
        ("review", "due"),
    ]
    assert datetime.fromisoformat(decisions[1]["chosen"]["value"]) == TOMORROW
    assert bench.due("review (bo)") == TOMORROW
    shown = CliRunner().invoke(app, ["timeline", "--json"]).output
    assert f'"p50": {TOMORROW.timestamp():.1f}' in shown
    assert shown.count('"state": "done"') == 1
    bench.sync()  # what follows from the promise has moved once
    bench.service.forget()
    assert "0 changes" in str(bench.sync())
    assert len(bench.events("decision")) == 2


def test_what_people_said_is_in_the_report_and_makes_no_attempt_longer(bench):
    before = bench.report()
    bench.sync()
    bench.tick("label (ana)")
    bench.sync()
    after = bench.report()
    assert (after.attempt, after.as_of, after.time) == (before.attempt, before.as_of, before.time)
    assert [decision.what for decision in after.decisions] == ["timeline.task"]
    assert after.timeline.schedule.slot("label").phase.finished is not None
    runs = CliRunner().invoke(app, ["runs", "--json"])
    assert runs.output.count('"attempt"') == 1, runs.output


def test_a_task_that_is_opened_again_is_open_again(bench):
    bench.sync()
    bench.tick("label (ana)")
    bench.sync()
    bench.tick("label (ana)", done=False)
    assert "opened again" in str(bench.sync())
    assert not bench.is_ticked("label (ana)")
    assert [one["chosen"]["value"] is None for one in bench.events("decision")] == [False, True]


def test_the_project_file_goes_before_what_was_told_once_it_is_changed(bench):
    bench.sync()
    bench.move("review (bo)", TOMORROW)
    bench.sync()
    later = TOMORROW + timedelta(days=3)
    stated = FILE.replace("hours: 3,", f'hours: 3, due: "{later.isoformat()}",')
    (bench.folder / "thriftune.yaml").write_text(stated)
    bench.sync()
    assert bench.due("review (bo)") == later
    assert len(bench.events("decision")) == 1


def test_what_is_ours_is_changed_back_and_what_people_wrote_below_stays(bench):
    bench.sync()
    right = bench.due("training")
    bench.move("training", TOMORROW)
    bench.tick("training")
    notes = "notes" if bench.asana else "desc"
    bench.service.titled("training")[notes] += "\nask Ana about the third epoch"
    bench.sync()
    assert bench.due("training") - right < timedelta(seconds=60)
    assert not bench.is_ticked("training")
    assert bench.events("decision") == []
    assert bench.service.titled("training")[notes].endswith("\nask Ana about the third epoch")


def test_a_deleted_entry_is_made_again_and_said(bench):
    bench.sync()
    for title in ("data", "review (bo)"):
        bench.service.entries.pop(bench.service.titled(title)["gid" if bench.asana else "id"])
    said = bench.sync()
    assert "created again: data (it was deleted)" in said
    assert "created again: review (bo) (it was deleted)" in said
    assert len(bench.service.entries) == 9
    assert "0 changes" in str(bench.sync())


def test_too_many_requests_are_waited_for(bench):
    for number in (1, 2, 5):
        bench.service.faults["POST", number] = Fault(429)
    bench.service.faults["GET", 2] = Fault(500)
    assert "9 changes" in str(bench.sync())
    assert len(bench.service.entries) == 9


@pytest.mark.parametrize("late", [False, True], ids=["not done", "done but not told"])
def test_an_error_in_the_middle_leaves_what_was_done_and_nothing_is_made_twice(bench, late):
    bench.service.faults["POST", 8] = Fault(500, late=late)
    error = bench.sync()
    assert isinstance(error, OutOfReach)
    done = len(bench.events("timeline.board"))
    assert 0 < done < 9
    bench.service.forget()
    assert isinstance(bench.sync(), str)
    assert {one["name"] for one in bench.service.entries.values()} == TITLES
    assert len(bench.service.entries) == 9
    bench.service.forget()
    assert "0 changes" in str(bench.sync())


def test_a_refused_entry_does_not_keep_the_others_away(bench):
    bench.service.faults["POST", 4] = Fault(400)
    error = bench.sync()
    assert "did not take everything" in str(error)
    assert len(bench.service.entries) == 8
    assert "1 change," in str(bench.sync())
    assert {one["name"] for one in bench.service.entries.values()} == TITLES


def test_one_synchronisation_at_a_time(bench):
    with FileLock(bench.folder / ".thriftune" / "timeline-sync.lock"):
        assert "another synchronisation is at work" in str(bench.sync())
    assert bench.service.written == []
    assert "9 changes" in str(bench.sync())


def test_a_wrong_token_or_place_is_told(bench, monkeypatch):
    for name in ("ASANA_ACCESS_TOKEN", "TRELLO_API_TOKEN"):
        monkeypatch.setenv(name, "another-s3cret")
    error = str(bench.sync())
    assert "does not take the token" in error
    assert "another-s3cret" not in error
    for name in ("ASANA_ACCESS_TOKEN", "TRELLO_API_TOKEN"):
        monkeypatch.delenv(name)
    assert "nothing in the environment" in str(bench.sync())
    for place in ("../1", "", "films"):
        assert isinstance(
            CliRunner().invoke(app, ["timeline", "sync", "asana", "--project", place]).exception, BadInput
        )


def test_workspaces_that_do_not_pay_get_no_start_dates(tmp_path, monkeypatch, caplog):
    with serving(AsanaService(paying=False)) as service:
        bench = Bench(tmp_path, service, monkeypatch, caplog)
        assert "9 changes" in str(bench.sync())
        assert not [one for one in service.entries.values() if "start_at" in one]
        assert len([path for method, path in service.written if path == "/tasks"]) == 10


def test_a_day_that_a_person_sets_in_asana_is_its_end(tmp_path, monkeypatch, caplog):
    with serving(AsanaService()) as service:
        bench = Bench(tmp_path, service, monkeypatch, caplog)
        bench.sync()
        service.titled("review (bo)").update(due_at=None, due_on=f"{TOMORROW:%Y-%m-%d}")
        bench.sync()
        value = datetime.fromisoformat(bench.events("decision")[0]["chosen"]["value"])
        assert value == TOMORROW.replace(hour=0, minute=0, second=0) + timedelta(days=1)


def test_dates_that_move_with_the_clock_alone_are_not_written_again_and_again(tmp_path):
    """A run that has not begun begins now, whenever that is: a twentieth of the time until a date is not worth it."""
    options = TimelineOptions.model_validate({"tasks": [TASKS[0] | {"before": "data"}]})
    store = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    log = EventLog(store, ManualClock(), "films", 0)
    kept = {}
    with serving(TrelloService()) as service, trello(service, []) as api:
        board = Trello(api, BOARD)

        def written(now):
            items = items_of(timeline_of("films", options, None, [planned(START, **PARTS, **LATER)], now))
            seen = pull(board, items, kept, options, now, log)
            return [change.detail for change in push(board, items, seen.entries, kept, now, log)]

        assert len(written(START)) == 6
        assert written(START + 900) == []
        assert set(written(START + 86_400)) == {"date"}
    store.close()


def trello(service, waits):
    header = {"Authorization": trello_module.authorization(TRELLO_KEY, TRELLO_TOKEN)}
    return Api("trello", service.address, header, [TRELLO_TOKEN, TRELLO_KEY], waits.append)


def test_waiting_follows_the_service_and_has_an_end():
    waits: list[float] = []
    with serving(TrelloService()) as service, trello(service, waits) as api:
        service.faults = {
            ("GET", 1): Fault(429, {"Retry-After": "7"}),
            ("GET", 2): Fault(429, {}),
            ("GET", 3): Fault(503, {}),
        }
        assert Trello(api, BOARD).name() == "Films"
        assert waits == [7.0, 2.0, 4.0]
        service.faults = {("GET", 5): Fault(429, {"Retry-After": f"{MOST_WAITING:.0f}"})}
        with pytest.raises(OutOfReach, match="more patience"):
            Trello(api, BOARD).name()
        assert len(waits) == 3
        service.faults = {("GET", number): Fault(503, {"Retry-After": "1"}) for number in range(6, 20)}
        with pytest.raises(OutOfReach) as told:
            Trello(api, BOARD).name()
        assert len(service.asked) == 11  # six attempts
        assert TRELLO_TOKEN not in str(told.value)
        service.faults = {}
        with pytest.raises(Refused):
            Trello(api, "aaaaaaaaa").name()


def test_a_token_does_not_go_over_the_network_in_clear():
    with pytest.raises(BadInput, match="https://"):
        Api("trello", "http://example.org/1", {}, [])
