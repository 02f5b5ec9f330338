"""Several projects on one machine: they queue, make room for who is more urgent, and nobody pays for another's time.

Real runs of the real command line, each project with a database of its own, as users have them.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from line_for_tests import PATIENT_SECONDS, Line, charged, classifier
from models_for_tests import bert_folder
from thriftune.clock import SystemClock
from thriftune.errors import EXIT_CANNOT_LAND, EXIT_INTERRUPTED, LeaseHeld
from thriftune.money.queue import QUEUE_FILE, joined, queue_url
from thriftune.store import open_store

PRICE_PER_SECOND = 0.001
LEAVING_SECONDS = 0.5  # between a process's last event and its last charge, at most
LONG_EPOCHS = 100  # some seconds: longer than a run at work takes to look for somebody more urgent


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("THRIFTUNE_DATABASE_URL", raising=False)
    return tmp_path / "home"


def project(folder: Path, model: Path, home: Path, priority: int = 5, **values: object) -> Line:
    line = classifier(folder, model, home, name=folder.name, **values)
    path = line.folder / "thriftune.yaml"
    path.write_text(path.read_text().replace("compute: {", f"compute: {{priority: {priority}, "))
    return line


def held(line: Line) -> list[tuple[float, float]]:
    """From when to when each process of a project had the machine, by the project's own account."""
    starts = [event["started_at"] for event in line.events("attempt.started")]
    rows = line.rows("SELECT at FROM events WHERE kind = 'attempt.finished' ORDER BY seq")
    assert len(starts) == len(rows)
    return list(zip(starts, (at for (at,) in rows), strict=True))


@contextmanager
def standing_still(process: subprocess.Popen[str], home: Path) -> Iterator[None]:
    """A process that stands still, from a moment at which it keeps nobody from writing into the queue."""
    ends = time.monotonic() + PATIENT_SECONDS
    try:
        while not _stopped_without_lock(process, home / QUEUE_FILE):
            process.send_signal(signal.SIGCONT)
            assert time.monotonic() < ends, "the queue was never free"
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _stopped_without_lock(process: subprocess.Popen[str], queue: Path) -> bool:
    process.send_signal(signal.SIGSTOP)
    with closing(sqlite3.connect(queue, timeout=0.1, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # it was in the middle of a transaction
            return False
        connection.execute("ROLLBACK")
    return True


@pytest.mark.slow
def test_a_more_urgent_run_gets_the_machine_at_a_checkpoint_and_both_end_as_if_undisturbed(tmp_path, model, home):
    low = project(tmp_path / "films", model, home, epochs=LONG_EPOCHS)
    high = project(tmp_path / "plays", model, home, priority=7, epochs=LONG_EPOCHS)
    first = low.start("run")
    low.wait_for("training.step", 20)
    with standing_still(first, home):  # or on a busy machine it would end before the second has begun
        began = time.monotonic()
        second = high.start("run")
        high.wait_for("queue.waiting")
    complaint = second.communicate(timeout=PATIENT_SECONDS)
    out, err = first.communicate(timeout=PATIENT_SECONDS)
    assert second.returncode == 0, complaint
    assert first.returncode == 0, (out, err)

    # They did wait, and said so; the first made room and went on from its checkpoint by itself.
    assert [event["before"] for event in high.events("queue.waiting")] == [["films (at work)"]]
    (waited,) = high.events("queue.taken")
    assert 0 < waited["waited_s"] < time.monotonic() - began
    assert "interrupted: made room for project plays" in out and "after plays (at work)" in out
    assert [event["before"] for event in low.events("queue.waiting")] == [["plays (at work)"]]
    assert len(low.events("attempt.started")) == 2 and low.rows("SELECT count(*) FROM attempts") == [(1,)]
    steps = [event["step"] for event in low.events("training.step")]
    assert steps == list(range(1, steps[-1] + 1))  # no step was done twice

    # The machine was one's at each moment, and each paid for its own moments: together for all that it was held.
    (first_part, last_part), (between,) = held(low), held(high)
    assert first_part[1] <= between[0] and between[1] <= last_part[0]
    whole = sum(end - start for start, end in (first_part, between, last_part))
    charges = [event for line in (low, high) for event in line.events("charge")]
    metered = sum(event["seconds"] for event in charges if not event["estimated"])  # exits are charged by an estimate
    assert metered == pytest.approx(whole, abs=LEAVING_SECONDS)
    paid = sum(event["seconds"] for event in charges)
    assert float(charged(low) + charged(high)) == pytest.approx(paid * PRICE_PER_SECOND, abs=1e-5)
    for line in (low, high):
        spent = line.json("report")
        assert Decimal(spent["cost"]["spent"]) == charged(line)
        assert spent["time"]["waited_s"] == pytest.approx(sum(e["waited_s"] for e in line.events("queue.taken")))

    # The same recipe undisturbed, which the urgent one was too once it had the machine.
    alone = project(tmp_path / "alone", model, home, epochs=LONG_EPOCHS)
    assert alone.do("run").returncode == 0
    assert low.weights() == high.weights() == alone.weights()


@pytest.mark.slow
def test_a_killed_runner_leaves_the_machine_to_the_waiting(tmp_path, model, home):
    first, second = (project(tmp_path / name, model, home) for name in ("films", "plays"))
    killed = first.start("run")
    first.wait_for("attempt.started")
    waiting = second.start("run")
    second.wait_for("queue.waiting")
    assert second.events("attempt.started") == [] and second.events("charge") == []
    killed.kill()
    killed.communicate()
    second.wait_for("attempt.started")
    waiting.kill()
    waiting.communicate()
    (taken,) = second.events("queue.taken")
    (started,) = second.events("attempt.started")
    (deadline,) = second.rows("SELECT deadline_at, first_run_at FROM budgets")
    assert deadline[0] - deadline[1] == 20 * 60
    assert 0 < started["started_at"] - deadline[1] <= taken["waited_s"]  # waiting counts, though nothing is charged


def test_while_another_has_the_machine_a_run_waits_and_tells_what_it_is_waiting_for(tmp_path, model, home):
    line, late = project(tmp_path / "plays", model, home, priority=3), project(tmp_path / "late", model, home)
    store = open_store(queue_url(None))
    with joined(store, SystemClock(), "films", tmp_path / "films", 5) as holder:
        assert holder.take()
        holder.expect(90.0, SystemClock().now() + 3600)
        refused = line.do("run", "--no-queue")
        assert refused.returncode == LeaseHeld.exit_code
        assert "project films is at work on this machine already" in refused.stderr
        assert str(os.getpid()) in refused.stderr

        waiting = line.start("run")
        line.wait_for("queue.waiting")
        at_work, next_one = json.loads(line.do("queue", "--json").stdout)
        assert (at_work["project"], at_work["state"], at_work["priority"]) == ("films", "working", 5)
        assert 80 < at_work["remaining_s"] <= 90 and 3500 < at_work["slack_s"] + at_work["remaining_s"] <= 3600
        assert (next_one["project"], next_one["pid"], next_one["priority"]) == ("plays", waiting.pid, 3)
        assert next_one["slack_s"] == pytest.approx(
            next_one["deadline_at"] - time.time() - next_one["remaining_s"], abs=30
        )
        assert "at work" in (shown := line.do("queue").stdout) and "plays" in shown
        assert line.json("status")["state"] == "waiting"
        again = line.do("run")
        assert again.returncode == LeaseHeld.exit_code and f"process {waiting.pid}" in again.stderr

        # One whose deadline comes too near while it waits is told so, with what would have worked.
        text = (late.folder / "thriftune.yaml").read_text()
        (late.folder / "thriftune.yaml").write_text(text.replace("deadline: 20m", "deadline: 8s"))
        gone = late.do("run")
        assert gone.returncode == EXIT_CANNOT_LAND, (gone.stdout, gone.stderr)
        assert "place 1 of 2" in gone.stdout and "a deadline of" in gone.stderr
        assert late.events("charge") == []

        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(30) == EXIT_INTERRUPTED
        waiting.communicate()
        assert line.json("status")["state"] == "interrupted"
        assert [ticket["project"] for ticket in json.loads(line.do("queue", "--json").stdout)] == ["films"]
        assert line.events("charge") == []

        # A process that has the machine without a place in the queue is waited for too: `plan` is one.
        shutil.rmtree(line.folder / ".thriftune")
    planning = line.start("plan")
    line.wait_for("attempt.started")
    other = late.start("run", "--no-queue")
    _, complaint = other.communicate(timeout=PATIENT_SECONDS)
    assert other.returncode == LeaseHeld.exit_code and f"process {planning.pid}" in complaint
    planning.kill()
    planning.communicate()
    store.close()
    assert "nobody is at work" in line.do("queue").stdout


def test_a_search_waits_for_the_cluster_that_a_project_on_another_machine_has(tmp_path, model, home):
    line, address = project(tmp_path / "plays", model, home), "10.0.0.1:6379"
    path = line.folder / "thriftune.yaml"
    cluster = f"compute: {{cluster: {{address: '{address}', price_per_hour: 7.2}}, "
    text = path.read_text().replace("compute: {", cluster).replace(", learning_rate: 0.003", "")
    path.write_text(text + "search: {space: {learning_rate: [0.0000001, 0.003]}}\n")
    store = open_store(queue_url(None))
    with joined(store, SystemClock(), "films", tmp_path / "films", 5, "another machine", address) as holder:
        assert holder.take()
        waiting = line.start("run")
        line.wait_for("queue.waiting")
        (told,) = line.events("queue.waiting")
        assert (told["cluster"], told["before"]) == (address, ["films (at work)"])
        assert f"1 of 1 for the machine and the cluster {address}" in line.do("status").stdout
        waiting.send_signal(signal.SIGINT)
        out, _ = waiting.communicate(timeout=PATIENT_SECONDS)
        assert waiting.returncode == EXIT_INTERRUPTED
        assert f"waiting for the machine and the cluster {address}: place 1 of 1" in out
    store.close()
