"""The whole line in two processes: a killed one, going on with another number of them, two launchers as two nodes."""

import shutil
import signal
import socket
import subprocess
import time
from decimal import Decimal

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from line_for_tests import PATIENT_SECONDS, Line, charged, classifier
from models_for_tests import bert_folder

TORCHRUN = "torchrun --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0"
PRICE_A_SECOND = Decimal("0.001")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def start(base) -> Line:
    """A project that no randomness but its seed touches, ready to run."""
    line = classifier(base / "start", bert_folder(base / "bert"), base / "home", epochs=30)
    file = line.folder / "thriftune.yaml"
    file.write_text(file.read_text().replace("train: {", "train: {dropout: 0, parallel: fsdp, "))
    return line


def copied(line: Line, name: str) -> Line:
    folder = line.folder.parent / name
    shutil.copytree(line.folder, folder)
    return Line(folder, line.home)


def weights(line: Line) -> dict[str, np.ndarray]:
    (file,) = (line.folder / ".thriftune" / "artifacts" / "train").glob("**/*.safetensors")
    return load_file(file)


def far(one: Line, other: Line) -> float:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def losses(line: Line) -> dict[int, float]:
    """The loss of each step, of the process that did it last."""
    return {step["step"]: step["loss"] for step in line.events("training.step")}


def process_of_rank(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    for process in psutil.Process(launcher.pid).children(recursive=True):
        if process.environ().get("RANK") == str(rank):
            return process
    raise AssertionError(f"no rank {rank}")


@pytest.fixture(scope="module")
def alone(start) -> Line:
    line = copied(start, "alone")
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    return line


@pytest.fixture(scope="module")
def killed(start) -> tuple[Line, subprocess.CompletedProcess[str]]:
    """Two processes, of which the second is killed after a checkpoint."""
    line = copied(start, "killed")
    process = line.start("train", "--launch", TORCHRUN)
    try:
        line.wait_for("training.checkpoint")
        process_of_rank(process, 1).send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENT_SECONDS)
    finally:
        process.kill()
    return line, subprocess.CompletedProcess([], process.returncode, out, err)


def test_a_killed_process_ends_the_run_with_one_message_and_the_status_to_go_on(killed):
    line, ended = killed
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.count("error: ") == 1, ended.stderr
    assert "another of the processes that train together is gone" in ended.stderr
    assert "goes on from the last checkpoint" in ended.stderr
    assert "thriftune-crash" not in ended.stderr
    assert ended.stdout.splitlines()[0].endswith("-m thriftune.cli run thriftune.yaml")
    assert line.events("attempt.finished")[-1]["outcome"] == "interrupted"
    assert not list((line.folder / ".thriftune").glob("thriftune-crash*"))
    assert line.leftovers() == []


def test_one_process_goes_on_where_two_stopped(killed, alone):
    line = copied(killed[0], "one")
    reached = max(losses(line))
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    assert len(losses(line)) == len(losses(alone)) > reached
    assert far(line, alone) < 1e-5
    assert list(losses(line).values()) == pytest.approx(list(losses(alone).values()), abs=1e-4)


@pytest.fixture(scope="module")
def nodes(killed) -> tuple[Line, float]:
    """The killed run taken up by two launchers, each a node of its own for the other; and how long the first ran."""
    line = copied(killed[0], "nodes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = "torchrun --nnodes 2 --nproc-per-node 1 --master-addr 127.0.0.1"
    began = time.monotonic()
    launchers = [
        line.start("train", "--launch", f"{torchrun} --master-port {port} --node-rank {node}") for node in (0, 1)
    ]
    try:
        for launcher in launchers:
            out, err = launcher.communicate(timeout=PATIENT_SECONDS)
            assert launcher.returncode == 0, (out, err)
    finally:
        for launcher in launchers:
            launcher.kill()
    return line, time.monotonic() - began


def test_two_nodes_go_on_where_two_processes_stopped(nodes, alone):
    line, _ = nodes
    assert far(line, alone) < 1e-5
    assert list(losses(line).values()) == pytest.approx(list(losses(alone).values()), abs=1e-4)


def test_two_processes_are_one_lease_and_one_account(nodes):
    line, seconds = nodes
    assert line.rows("SELECT COUNT(*) FROM leases") == [(1,)]
    attempts = line.events("attempt.started")
    ((before,),) = line.rows(
        "SELECT COUNT(*) FROM events WHERE kind = 'charge' AND seq < "
        "(SELECT MAX(seq) FROM events WHERE kind = 'attempt.started')"
    )
    last = sum((Decimal(charge["amount"]) for charge in line.events("charge")[before:]), Decimal(0))
    assert len(attempts) == 2
    assert Decimal(0) < last <= PRICE_A_SECOND * Decimal(seconds)
    assert float(last / PRICE_A_SECOND) > 0.5 * seconds  # the launchers' own start-up is not in it
    report = line.json("report")
    assert Decimal(report["cost"]["spent"]) == charged(line)
