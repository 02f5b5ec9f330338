"""`thriftune report`, `runs`, `status` and the progress of a run, through the commands that a user types."""

import io
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from recorded_run import Recorder, Story

from thriftune.cli import progress
from thriftune.cli.report import report
from thriftune.cli.runs import runs
from thriftune.cli.status import status
from thriftune.errors import BadInput
from thriftune.events import Event
from thriftune.report.load import read_events
from thriftune.store import open_store

PROJECT_FILE = """\
name: movie-sentiment
objective:
  task: classify
  target: {metric: f1_macro, at_least: 0.82}
  worth: {per_point: 300, per: month, horizon: 12 months}
data:
  - {file: reviews.jsonl, text: body, label: stars, licence: MIT}
budget: {total: 0.50, currency: USD}
deadline: 2020-01-31
"""

app = typer.Typer()
for command in (report, runs, status):
    app.command()(command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project's folder; its deadline has long passed, which must not hinder a look at what was done."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "thriftune.yaml").write_text(PROJECT_FILE)
    (folder / "reviews.jsonl").write_text('{"body": "fine", "stars": "good"}\n')
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """The folder with one attempt in its record, and that attempt's events."""
    (folder / ".thriftune").mkdir()
    store = open_store(f"sqlite:///{folder}/.thriftune/thriftune.db")
    Recorder(store, Story()).all()
    return folder, read_events(store, "movie-sentiment")


def typed(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def fresh(tmp_path):
    (tmp_path / "thriftune.yaml").write_text(PROJECT_FILE)
    (tmp_path / "reviews.jsonl").write_text("{}\n")
    return tmp_path / "thriftune.yaml"


def test_before_the_first_run_each_command_says_so_and_makes_nothing(fresh):
    assert "not started" in typed("status", fresh)
    assert json.loads(typed("status", fresh, "--json"))["state"] == "not started"
    assert "no attempt yet" in typed("runs", fresh)
    assert json.loads(typed("runs", fresh, "--json")) == {"attempts": []}
    with pytest.raises(BadInput) as error:
        typed("report", fresh)
    assert "thriftune run" in error.value.way_out
    assert sorted(path.name for path in fresh.parent.iterdir()) == ["reviews.jsonl", "thriftune.yaml"]


def test_report_prints_the_verdict_and_writes_the_page(run):
    folder, _ = run
    text = typed("report", folder / "thriftune.yaml")
    assert "Ship it." in text
    page = folder / ".thriftune" / "reports" / "attempt-1.html"
    assert page.name in text
    assert "Ship it." in page.read_text(encoding="utf-8")


def test_report_as_json_is_one_object_and_writes_no_page_unless_asked(run, tmp_path):
    folder, _ = run
    told = json.loads(typed("report", folder / "thriftune.yaml", "--json"))
    assert told["return"]["points_gained"] == pytest.approx(5.2)
    typed("report", folder / "thriftune.yaml", "--json", "--html", tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size > 1_000_000


def test_a_page_that_cannot_be_written_is_one_message_after_the_report(run, tmp_path):
    folder, _ = run
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["report", f"{folder}/thriftune.yaml", "--html", f"{tmp_path}/file/r.html"])
    assert "Ship it." in result.stdout
    assert isinstance(result.exception, BadInput)
    assert "r.html" in result.exception.where


def test_runs_lists_the_attempts(run):
    folder, _ = run
    (line,) = json.loads(typed("runs", folder / "thriftune.yaml", "--json"))["attempts"]
    assert (line["attempt"], line["verdict"], line["outcome"], line["changed"]) == (1, "ship", "done", [])
    assert Decimal(line["cost"]) > 0
    assert line["gain"]["baseline"] == "tfidf"
    assert "ship" in typed("runs", folder / "thriftune.yaml")


def test_status_of_a_finished_run(run):
    folder, _ = run
    text = typed("status", folder / "thriftune.yaml")
    assert "attempt 1: finished" in text
    assert "step 160 of 160" in text
    told = json.loads(typed("status", folder / "thriftune.yaml", "--json"))
    assert (told["state"], told["budget"], told["pid"]) == ("finished", "0.50", None)


def test_status_writes_nothing_and_imports_nothing_heavy(run):
    folder, _ = run
    database = folder / ".thriftune" / "thriftune.db"

    def content():
        with closing(sqlite3.connect(database)) as connection:
            return list(connection.iterdump())

    before = content()
    code = f"""
        import sys
        from pathlib import Path
        from thriftune.cli.status import status
        status(Path({str(folder / "thriftune.yaml")!r}))
        heavy = {{"torch", "transformers", "sklearn", "polars", "plotly", "jinja2", "scipy"}} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True)
    assert content() == before


WORKER = """
import sys, time
from decimal import Decimal
from thriftune.clock import SystemClock
from thriftune.events import EventLog, open_attempt
from thriftune.money.ledger import Ledger
from thriftune.money.meter import Meter
from thriftune.store import open_store

store, clock = open_store(sys.argv[1]), SystemClock()
attempt = open_attempt(store, clock, "movie-sentiment", "{}").attempt
events = EventLog(store, clock, "movie-sentiment", attempt)
ledger = Ledger(store, clock, "movie-sentiment", events)
ledger.open_budget(Decimal("5"), "USD", {"training": Decimal("5")})
meter = Meter.start(store, clock, ledger, Decimal("3.60"), None, machine=sys.argv[2])
events.emit("attempt.started", recipe="{}", seed=1, project_file="thriftune.yaml", machine="m", versions={},
    started_at=clock.now(), deadline_at=None, budget="5", currency="USD", price_per_hour="3.60")
events.emit("stage.started", stage="train", key="k")
print("ready", flush=True)
for step in range(1, 10_000):
    with meter.unit("training", "steps", 5.0):
        time.sleep(0.05)
        events.buffer("training.step", step=step, planned=10_000, epoch=0.1, loss=0.5, rate=1e-4, tokens=10,
            padded_tokens=12, seconds=0.05)
    if step == int(sys.argv[3]):
        events.emit("attempt.finished", outcome="done", exit_code=0, message="")
        meter.close("training")
        break
"""


def worker(fresh, machine, steps):
    """A real process at work on the project, once it has begun."""
    url = f"sqlite:///{fresh.parent}/.thriftune/thriftune.db"
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, machine, str(steps)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_status_sees_a_live_process_and_that_it_died(fresh):
    process = worker(fresh, "a", 10_000)
    try:
        told = json.loads(typed("status", fresh, "--json"))
        assert (told["state"], told["pid"], told["stage"]) == ("running", process.pid, "train")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert json.loads(typed("status", fresh, "--json"))["state"] == "died"
    assert "goes on from the last checkpoint" in typed("status", fresh)


def test_follow_hands_on_every_event_of_another_process_until_it_ends(fresh):
    process = worker(fresh, "b", 20)
    try:
        events = [json.loads(line) for line in typed("status", fresh, "--follow", "--json").splitlines()]
    finally:
        process.wait(timeout=30)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [e["data"]["step"] for e in events if e["kind"] == "training.step"] == list(range(1, 21))
    assert "attempt.finished" in {event["kind"] for event in events}


def on_a_terminal(command):
    """What a command writes where it is given a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        parts.append(part)
    process.wait()
    os.close(ours)
    return b"".join(parts).decode()


def shown(mode, events, **more):
    stream = io.StringIO()
    with progress.subscriber(mode, stream, **more) as watch:
        for event in events:
            watch(event)
    return stream.getvalue()


def test_json_progress_is_every_event_on_a_line_of_its_own(run):
    _, events = run
    lines = shown("json", events).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [event.seq for event in events]


def test_plain_lines_tell_training_at_most_every_two_seconds_and_all_that_matters(run):
    _, events = run
    lines = shown("lines", events, now=lambda: events[0].at).splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert 10 < len(steps) < 110  # 160 steps of about a second
    assert steps[-1].startswith("step 160/160  loss ")
    assert "of $0.50" in steps[-1]
    assert "20 min left" in steps[-1]
    text = "\n".join(lines)
    for told in (
        "attempt 1 of movie-sentiment",
        "decided: precision = bf16, because a probed step",
        "duplicates: 3,146 rows kept, dropped: 58 exact duplicate, 4 same text, two labels",
        "validation at step 20: loss",
        "tuned model on test: F1 (macro) 0.838",
        "verdict: ship",
        "done",
    ):
        assert told in text
    assert "\x1b" not in text


def test_spent_adds_up_to_the_ledger(run):
    _, events = run
    standing = progress.Standing()
    for event in events:
        standing.take(event)
    assert standing.spent == sum(Decimal(event.data["amount"]) for event in events if event.kind == "charge")
    assert standing.stage == ""


@pytest.mark.parametrize("width", [30, 80, 200])
def test_bars_show_steps_money_and_time_in_the_width_there_is(run, width):
    from rich.console import Console

    _, events = run
    standing = progress.Standing(now=lambda: events[0].at + 60)
    for event in events[: len(events) // 2]:
        standing.take(event)
    stream = io.StringIO()
    Console(file=stream, width=width).print(progress.bars(standing, width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        text = stream.getvalue()
        assert "steps" in text
        assert "of $0.50" in text
        assert "19 min left" in text


def test_bars_leave_the_terminal_in_order(run):
    folder, _ = run
    code = """
        import sys
        from thriftune.cli import progress
        from thriftune.report.load import read_events
        from thriftune.store import open_store
        events = read_events(open_store(sys.argv[1]), "movie-sentiment")
        with progress.subscriber("bars") as watch:
            for event in events:
                watch(event)
        print("after")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), f"sqlite:///{folder}/.thriftune/thriftune.db"]
    text = on_a_terminal(command)
    assert "verdict: ship" in text
    assert "of $0.50" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor, hidden once and shown again
    assert text.rstrip().endswith("after")


def test_text_from_the_outside_cannot_drive_the_terminal():
    evil = {"at_step": 0, "what": "\x1b[2J", "chosen": "\x07", "because": "\r"}
    assert "\x1b" not in shown("lines", [Event(1, "p", 1, 0.0, "decision", evil)])


def test_a_run_goes_on_when_nobody_reads_its_progress_any_more(run):
    _, events = run
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream, progress.subscriber("json", stream) as watch:
        for event in events[:50]:
            watch(event)


def test_follow_waits_for_what_comes_later(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    recorder = Recorder(store, Story(steps=20))
    ended = threading.Event()
    seen = []

    def work():
        time.sleep(0.1)
        recorder.train()
        recorder.finish()
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    last = progress.follow(store, "movie-sentiment", 1, seen.append, lambda: not ended.is_set(), poll_seconds=0.01)
    thread.join()
    assert last.data["outcome"] == "done"
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
