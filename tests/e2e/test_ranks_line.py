"""The whole line in two processes: killed ones, going on with another number of them, two launchers as two nodes."""

import shutil
import signal
import socket
import subprocess
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from line_for_tests import PATIENT_SECONDS, Line, charged, classifier
from models_for_tests import bert_folder

TORCHRUN = "torchrun --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0"
PRICE_A_SECOND = Decimal("0.001")
GOES_ON = 130


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def fresh(base) -> Path:
    """A project that no randomness but its seed touches, as it was before its first run; nothing runs here."""
    line = classifier(base / "films", bert_folder(base / "bert"), base / "home", epochs=30)
    file = line.folder / "thriftune.yaml"
    text = file.read_text().replace("validations_per_epoch: 2", "validations_per_epoch: 1")
    text = text.replace("learning_rate: 0.003", "learning_rate: 0.001")
    file.write_text(text.replace("train: {", "train: {dropout: 0, parallel: fsdp, "))
    return put_aside(line, "fresh").folder


def taken_up(state: Path) -> Line:
    """The project as it was put aside, where it always runs: a model's path belongs to what is to be done."""
    folder = state.parent / "films"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(state, folder)
    return Line(folder, state.parent / "home")


def put_aside(line: Line, name: str) -> Line:
    """The project under another name, once nobody is at work on it.

    The last to close a SQLite file deletes its log by name, and by then the name may be the next project's.
    """
    line.wait_until(lambda: not users(line.folder), "the end of all who use the project")
    return Line(Path(shutil.move(line.folder, line.folder.parent / name)), line.home)


def users(folder: Path) -> list[psutil.Process]:
    """The processes that have a file under a folder open."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                found.append(process)
        except psutil.Error:  # it has ended, or is not ours to look into
            continue
    return found


def far(one: Line, other: Line) -> float:
    """The largest difference between two tuned models' weights.

    Keys' biases are left out: attention's softmax does not see them, so that their gradient is nothing but rounding,
    which AdamW makes into whole steps.
    """
    a, b = (
        load_file(*(line.folder / ".thriftune" / "artifacts" / "train").glob("**/*.safetensors"))
        for line in (one, other)
    )
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a if not name.endswith("key.bias"))


def losses(line: Line) -> dict[int, float]:
    """The loss of each step, of the process that did it last."""
    return {step["step"]: step["loss"] for step in line.events("training.step")}


def first_step_of_last_process(line: Line) -> int:
    """The step it began with."""
    (found,) = line.rows(
        "SELECT MIN(json_extract(data, '$.step')) FROM events WHERE kind = 'training.step' AND seq > "
        "(SELECT MAX(seq) FROM events WHERE kind = 'attempt.started')"
    )
    return int(found[0])


def run_killed(line: Line, rank: int, checkpoints: int) -> subprocess.CompletedProcess[str]:
    """Two processes, of which one is killed after so many checkpoints; no process is left."""
    launcher = line.start("train", "--launch", TORCHRUN)
    try:
        line.wait_for("training.checkpoint", checkpoints)
        others = psutil.Process(launcher.pid).children(recursive=True)
        (chosen,) = [process for process in others if process.environ().get("RANK") == str(rank)]
        chosen.send_signal(signal.SIGKILL)
        out, err = launcher.communicate(timeout=PATIENT_SECONDS)
    finally:
        launcher.kill()
    assert psutil.wait_procs(others, timeout=10)[1] == []
    return subprocess.CompletedProcess([], launcher.returncode, out, err)


@pytest.fixture(scope="module")
def alone(fresh) -> Line:
    line = taken_up(fresh)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    return put_aside(line, "alone")


@pytest.fixture(scope="module")
def first_killed(fresh, alone) -> tuple[Line, subprocess.CompletedProcess[str]]:
    """Two processes; the one that decides is killed."""
    line = taken_up(fresh)
    ended = run_killed(line, 0, 1)
    return put_aside(line, "first-killed"), ended


@pytest.fixture(scope="module")
def second_killed(first_killed) -> tuple[Line, subprocess.CompletedProcess[str]]:
    """Two processes go on, and then the other one is killed."""
    line = taken_up(first_killed[0].folder)
    ended = run_killed(line, 1, len(line.events("training.checkpoint")) + 1)
    return put_aside(line, "second-killed"), ended


@pytest.fixture(scope="module")
def finished_by_one(second_killed) -> Line:
    line = taken_up(second_killed[0].folder)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    return put_aside(line, "by-one")


@pytest.fixture(scope="module")
def finished_by_nodes(second_killed, finished_by_one) -> tuple[Line, float]:
    """Two launchers of one process each, which meet as two machines do; and how long they took."""
    line = taken_up(second_killed[0].folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = f"torchrun --nnodes 2 --nproc-per-node 1 --master-addr 127.0.0.1 --master-port {port}"
    began = time.monotonic()
    launchers = [line.start("train", "--launch", f"{torchrun} --node-rank {node}") for node in (0, 1)]
    try:
        for launcher in launchers:
            out, err = launcher.communicate(timeout=PATIENT_SECONDS)
            assert launcher.returncode == 0, (out, err)
    finally:
        for launcher in launchers:
            launcher.kill()
    return put_aside(line, "by-nodes"), time.monotonic() - began


def test_without_the_process_that_decides_the_others_end_too(first_killed):
    line, ended = first_killed
    assert ended.returncode == GOES_ON, ended.stderr
    assert "thriftune-crash" not in ended.stderr
    assert line.events("attempt.finished") == []
    assert ended.stdout.splitlines()[0].endswith("-m thriftune.cli run thriftune.yaml")


def test_a_killed_process_ends_the_run_with_one_message_and_the_status_to_go_on(second_killed):
    line, ended = second_killed
    assert ended.returncode == GOES_ON, ended.stderr
    assert ended.stderr.count("error: ") == 1, ended.stderr
    assert "another of the processes that train together is gone" in ended.stderr
    assert "goes on from the last checkpoint" in ended.stderr
    assert "thriftune-crash" not in ended.stderr
    assert first_step_of_last_process(line) > 1
    assert [event["outcome"] for event in line.events("attempt.finished")] == ["interrupted"]
    assert line.leftovers() == []


def test_one_process_goes_on_where_two_stopped(finished_by_one, alone):
    assert first_step_of_last_process(finished_by_one) > 1
    assert far(finished_by_one, alone) < 1e-5
    assert losses(finished_by_one) == pytest.approx(losses(alone), abs=1e-4)


def test_two_nodes_go_on_where_two_processes_stopped(finished_by_nodes, alone):
    line, _ = finished_by_nodes
    assert first_step_of_last_process(line) > 1
    assert far(line, alone) < 1e-5
    assert losses(line) == pytest.approx(losses(alone), abs=1e-4)
    assert {"where": "compute.count", "what": "2 machines train, 1 are paid for"} in line.events("warning")


def test_two_processes_are_one_lease_and_one_account(second_killed, finished_by_nodes):
    line, seconds = finished_by_nodes
    assert line.rows("SELECT COUNT(*) FROM leases") == [(1,)]
    spent = charged(line) - charged(second_killed[0])
    # What the killed processes had reserved is posted too; the launchers' own start-up is in nobody's account.
    assert float(spent / PRICE_A_SECOND) == pytest.approx(seconds, rel=0.4)
    assert Decimal(line.json("report")["cost"]["spent"]) == charged(line)


def test_accelerate_starts_two_processes_that_train_as_one_does(fresh, alone):
    line = taken_up(fresh)
    launcher = line.start(
        "train", "--launch", "accelerate launch --multi_gpu --num_processes 2 --main_process_port 0 --quiet"
    )
    try:
        line.wait_for("training.step")
        sizes = {
            process.environ().get("WORLD_SIZE")
            for process in psutil.Process(launcher.pid).children(recursive=True)
            if process.environ().get("RANK")
        }
        out, err = launcher.communicate(timeout=PATIENT_SECONDS)
    finally:
        launcher.kill()
    assert launcher.returncode == 0, (out, err)
    assert sizes == {"2"}
    assert losses(line) == pytest.approx(losses(alone), abs=1e-4)
    assert line.rows("SELECT COUNT(*) FROM leases") == [(1,)]


def test_a_launcher_that_starts_too_few_is_refused_before_anything_is_paid(fresh):
    line = taken_up(fresh)
    ended = line.do("train", "--launch", "accelerate launch --cpu --num_processes 2 --quiet")
    assert ended.returncode == 2, ended.stderr
    assert "processes that know of no other" in ended.stderr
    assert "--multi_gpu" in ended.stderr
    assert not (line.folder / ".thriftune").exists()
