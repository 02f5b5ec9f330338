"""Kill −9 anywhere: what comes out in the end is what would have come out, and nothing is paid for twice.

The runs are real ones of the real command line, on a BERT of two narrow layers. One project is killed at every crash
point in turn, so that each start goes on from the last kill, as a user's would.
"""

import random
import time
from decimal import Decimal

import polars as pl
import pytest

from line_for_tests import Line, charged, chat, classifier, hash_of
from models_for_tests import bert_folder, llama_folder
from thriftune.clock import SystemClock
from thriftune.errors import LeaseHeld
from thriftune.events import EventLog
from thriftune.faults import CRASH_POINTS
from thriftune.money.leases import HEARTBEAT_SECONDS
from thriftune.project import Project
from thriftune.session import database_url
from thriftune.store import open_store
from thriftune.train.replay import replay
from thriftune.train.setup import work_of

# In the order of a run, the n-th time where the first is elsewhere. A run's artifacts: collect, prepare, select and
# the baselines' scores, the untuned model's, the tuned model, its scores, the conclusion.
KILLS = (
    "ledger.reserved",
    "artifact.started",
    "artifact.written",
    "artifact.synced",
    "artifact.renamed",
    "artifact.recorded",  # of the second artifact: the first is there
    "ledger.posted:5",
    "decision.recorded:2",
    "decision.recorded:3",
    "step.done:7",
    "checkpoint.started",
    "checkpoint.written",
    "checkpoint.synced",
    "checkpoint.renamed",
    "ledger.posted:12",
)
RANDOM_KILLS = 10
CHAT_KILLS = ("artifact.renamed", "step.done:3", "checkpoint.renamed", "ledger.posted:12")
SERVER_KILLS = ("ledger.reserved", "artifact.renamed", "step.done:7", "checkpoint.renamed", "ledger.posted:12")
AT_THE_END = ("artifact.written", "artifact.synced", "artifact.renamed")  # of the tuned model
PRICE_PER_SECOND = Decimal("0.001")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, model, home) -> Line:
    """A run that nobody disturbs."""
    line = classifier(tmp_path_factory.mktemp("reference") / "films", model, home)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    return line


def finish(line: Line) -> None:
    ended = line.do("run")
    assert ended.returncode == 0, (ended.stdout, ended.stderr)


def assert_the_books_are_right(line: Line, wall_seconds: float, starts: int) -> None:
    """The ledger is the sum of the events, nothing is open, and no second was charged twice."""
    ((spent, reserved),) = line.rows("SELECT spent_nano, reserved_nano FROM budgets")
    assert Decimal(spent).scaleb(-9) == charged(line)
    assert reserved == 0
    assert line.rows("SELECT count(*) FROM transfers WHERE state = 'pending'") == [(0,)]
    assert line.rows("SELECT sum(posted_nano) FROM transfers") == [(spent,)]
    transfers = [event["transfer"] for event in line.events("charge")]
    assert len(set(transfers)) == len(transfers)
    assert line.rows("SELECT count(*) FROM leases WHERE held") == [(0,)]
    seconds = sum(event["seconds"] for event in line.events("charge"))
    assert seconds <= wall_seconds + starts * HEARTBEAT_SECONDS
    # A unit is posted in whole nano-units, and what is left of one is carried on.
    assert abs(charged(line) - Decimal(seconds) * PRICE_PER_SECOND) < Decimal("1e-6")


def assert_little_was_done_twice(line: Line, kills: int) -> None:
    """Each kill costs at most what was done since the last checkpoint, an interval's worth."""
    steps = line.events("training.step")
    done: dict[int, list[float]] = {}
    for event in steps:
        done.setdefault(event["step"], []).append(event["seconds"])
    assert sorted(done) == list(range(1, steps[-1]["planned"] + 1))
    again = sum(sum(seconds[1:]) for seconds in done.values())
    assert again <= kills * (1.0 + 2.0)  # train.checkpoint_seconds, and the block and validation that end after it


def assert_kills_leave_the_weights_of(undisturbed: Line, line: Line, kills: tuple[str, ...]) -> None:
    """A run killed at these points in turn, and then let go on to its end."""
    began = time.monotonic()
    for kill in kills:
        line.run_killed_at(kill)
    finish(line)
    assert line.weights() == undisturbed.weights()
    assert_the_books_are_right(line, time.monotonic() - began, len(kills) + 1)
    assert_little_was_done_twice(line, len(kills))


def test_every_crash_point_is_among_the_kills():
    assert {kill.partition(":")[0] for kill in KILLS} == set(CRASH_POINTS)


@pytest.mark.slow
def test_a_run_killed_at_every_crash_point_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path, model, home, reference
):
    line = classifier(tmp_path / "films", model, home)
    began = time.monotonic()
    for kill in KILLS:
        line.run_killed_at(kill)
    for kill in AT_THE_END:
        line.run_killed_at(kill)
    finish(line)
    assert line.weights() == reference.weights()
    starts = len(KILLS) + len(AT_THE_END) + 1
    assert_the_books_are_right(line, time.monotonic() - began, starts)
    assert_little_was_done_twice(line, starts)
    assert line.rows("SELECT max(attempt) FROM attempts") == [(1,)]
    assert line.leftovers() == []
    assert line.events("evaluation.comparison")
    # A predictor may be looked at again when it was killed before its scores were kept; it stays one look.
    assert {event["looks"] for event in line.events("evaluation.look") if event["predictor"] == "tuned"} == {1}


@pytest.mark.slow
def test_runs_killed_at_ten_random_moments_end_with_the_weights_of_an_undisturbed_one(tmp_path, model, home, reference):
    """A start that outlives its moment has ended the run; the kills that are left fall on another one."""
    whole = sum(event["seconds"] for event in reference.events("charge"))
    moments = random.Random(20240)
    kills, runs = 0, 0
    while kills < RANDOM_KILLS:
        line = classifier(tmp_path / f"films-{runs}", model, home)
        began, before = time.monotonic(), kills
        while kills < RANDOM_KILLS and line.run_killed_after(moments.uniform(0.2, whole)):
            kills += 1
        finish(line)
        runs += 1
        assert line.weights() == reference.weights()
        assert_the_books_are_right(line, time.monotonic() - began, kills - before + 1)
        assert_little_was_done_twice(line, kills - before)
        assert line.leftovers() == []


@pytest.mark.slow
def test_a_chat_model_that_was_killed_ends_with_the_weights_of_an_undisturbed_one(tmp_path, home):
    model = llama_folder(tmp_path / "model")
    undisturbed = chat(tmp_path / "undisturbed", model, home)
    finish(undisturbed)
    line = chat(tmp_path / "killed", model, home)
    assert_kills_leave_the_weights_of(undisturbed, line, CHAT_KILLS)


@pytest.mark.slow
def test_a_run_on_a_database_server_that_was_killed_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path, model, home, reference, fresh_postgres_url
):
    line = classifier(tmp_path / "films", model, home, database=fresh_postgres_url)
    assert_kills_leave_the_weights_of(reference, line, SERVER_KILLS)
    assert not (line.folder / ".thriftune" / "thriftune.db").exists()


def replayed_weights(line: Line, folder) -> str:
    """The hash of the weights that the recorded decisions alone lead to."""
    project = Project.load(line.folder / "thriftune.yaml")
    (splits,) = (line.folder / ".thriftune" / "artifacts" / "prepare").iterdir()
    rows = [pl.read_parquet(splits / f"{side}.parquet") for side in ("train", "validation")]
    options = project.file.train
    work = work_of("classify", "./model", line.folder, options, project.file.seed, "", *rows)
    store = open_store(database_url(project))
    recorded = EventLog(store, SystemClock(), "films", 1).read(attempt=1)
    apart = open_store(f"sqlite:///{folder}/replay.db")
    model = work.task.build()
    replay(work, model, options, recorded, EventLog(apart, SystemClock(), "replay", 1), folder / "checkpoints")
    (folder / "tuned").mkdir()
    work.task.save(model, folder / "tuned")
    return hash_of(folder / "tuned" / "model.safetensors")


@pytest.mark.slow
def test_a_run_that_was_cut_to_its_deadline_and_killed_is_what_its_recorded_decisions_say(
    tmp_path, model, home, reference
):
    line = classifier(tmp_path / "films", model, home, epochs=900, deadline="10m")
    started = time.monotonic()
    process = line.start("run")
    line.wait_for("training.checkpoint")
    process.kill()
    process.communicate()
    before_training = time.monotonic() - started
    # Room for one more start and a few seconds of training, on however busy a machine. That the reference has run
    # matters: what nobody has measured on a machine is expected to take long, and would be refused.
    end = time.monotonic() - started + 2.5 * before_training
    path = line.folder / "thriftune.yaml"
    path.write_text(path.read_text().replace("deadline: 10m", f"deadline: {end:.0f}s"))
    finish(line)
    assert time.monotonic() - started <= end + 1.0
    refits = [event for event in line.events("decision") if event["what"] == "planned_steps" and event["at_step"]]
    assert refits
    assert line.events("training.step")[-1]["step"] < line.events("training.step")[0]["planned"]
    assert line.events("evaluation.comparison")
    assert replayed_weights(line, tmp_path) == line.weights()


@pytest.mark.slow
def test_a_run_with_frozen_layers_that_was_killed_is_what_its_recorded_decisions_say(tmp_path, model, home):
    line = classifier(tmp_path / "films", model, home)
    path = line.folder / "thriftune.yaml"
    path.write_text(path.read_text().replace("train: {", "train: {freeze_layers: 1, "))
    for kill in ("step.done:7", "checkpoint.renamed"):
        line.run_killed_at(kill)
    finish(line)
    (kept,) = [event for event in line.events("decision") if event["what"] == "prefix_cache"]
    assert "computing the first 1 layers' states takes" in kept["because"]
    assert (line.folder / ".thriftune" / "prefix").is_dir() == bool(kept["chosen"])
    assert replayed_weights(line, tmp_path) == line.weights()


UNFREEZING = "unfreeze: gradual, freeze_layers: 1, phases: [{at: 0.5, frozen: 0, rate: 0.5}], ema: 0.9"


@pytest.mark.slow
def test_a_run_that_frees_layers_on_the_way_and_was_killed_is_what_its_recorded_decisions_say(tmp_path, model, home):
    line = classifier(tmp_path / "films", model, home, epochs=80)
    path = line.folder / "thriftune.yaml"
    path.write_text(path.read_text().replace("train: {", f"train: {{{UNFREEZING}, "))
    for kill in ("step.done:7", "step.done:400", "checkpoint.renamed"):  # the second phase begins at step 320
        line.run_killed_at(kill)
    finish(line)
    begun = [event for event in line.events("decision") if event["what"] == "phase"]
    assert [event["chosen"] for event in begun] == [1]
    planned = line.events("training.step")[-1]["planned"]
    assert begun[0]["at_step"] == planned / 2
    assert_little_was_done_twice(line, 3)
    assert replayed_weights(line, tmp_path) == line.weights()


@pytest.mark.slow
def test_a_second_run_watches_the_one_at_work_and_ends_as_it_does(tmp_path, model, home):
    line = classifier(tmp_path / "films", model, home)
    first = line.start("run")
    line.wait_for("attempt.started")
    second = line.do("run")
    _, complaint = first.communicate()
    assert first.returncode == 0, complaint
    assert second.returncode == 0, second.stderr
    assert f"process {first.pid} is at work on this project" in second.stderr
    assert "verdict" in second.stdout
    assert len(line.events("attempt.started")) == 1
    assert line.rows("SELECT count(*) FROM attempts") == [(1,)]


def test_two_runs_that_start_at_once_make_one_attempt(tmp_path, model, home):
    line = classifier(tmp_path / "films", model, home)
    both = [line.start("run"), line.start("run")]
    line.wait_for("stage.finished", 2)
    for process in both:
        process.kill()
    ended = [process.communicate() for process in both]
    assert len(line.events("attempt.started")) == 1, ended
    assert line.rows("SELECT count(*) FROM attempts") == [(1,)]


def test_two_projects_with_a_database_each_do_not_both_pay_for_one_machine(tmp_path, model, home):
    first, second = (classifier(tmp_path / name, model, home, name=name) for name in ("films", "plays"))
    at_work = first.start("run")
    first.wait_for("attempt.started")
    refused = second.do("run", "--no-queue")
    assert refused.returncode == LeaseHeld.exit_code
    assert f"project films is at work on this machine already\n  found:    process {at_work.pid}" in refused.stderr
    assert f"kill -INT {at_work.pid}" in refused.stderr
    at_work.kill()
    at_work.communicate()
    again = second.start("run")
    second.wait_for("attempt.started")  # the lock ended with its process, however that ended
    again.kill()
    again.communicate()
