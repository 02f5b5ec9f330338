"""Two processes at one training: the same batches, losses and weights as one process has, by each engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from models_for_tests import bert_folder, llama_folder
from thriftune.errors import BadInput
from thriftune.tasks.batches import micro_batches
from thriftune.train.batches import plan_epoch
from thriftune.train.launch import NOTE, as_stated, check, command, note_for, stated_processes
from thriftune.train.ranks import Group, choose_parallel

sys.path.insert(0, str(Path(__file__).parent))

import ranks_script
from ranks_script import CASES, KINDS

HERE = Path(__file__).parent
PATIENT_SECONDS = 150
NAMES = sorted(CASES)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    bert_folder(folder / "bert")
    llama_folder(folder / "llama")
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(models, scratch):
    """Each kind of work in this one process; its checkpoints stay."""
    found = {}
    threads = torch.get_num_threads()
    for kind in KINDS:
        found[kind] = ranks_script.trained(ranks_script.Case(kind, "ddp"), models, scratch / kind)
        ranks_script.forget_the_end(scratch / kind)
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module")
def together(models, scratch, alone):
    """Every case in two processes."""
    launcher = "torchrun --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0"
    words = command(launcher, [])[: -len(("-m", "thriftune.cli"))]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path]),
    }
    script = [*words, str(HERE / "ranks_script.py"), str(models), str(scratch)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=PATIENT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((scratch / "found.json").read_text())


def far(one, other) -> float:
    """The largest difference between two models' trained weights."""
    assert one.keys() == other.keys()
    return max(float(np.abs(np.subtract(one[name], other[name])).max()) for name in one)


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_weights_are_those_of_one_process(name, alone, together):
    one, two = alone[CASES[name].kind], together[name]["whole"]
    assert [step[0] for step in two["steps"]] == list(range(1, 13))
    assert [step[1] for step in two["steps"]] == pytest.approx([step[1] for step in one["steps"]], abs=1e-5)
    assert [step[2] for step in two["steps"]] == [step[2] for step in one["steps"]]
    assert two["validation"] == pytest.approx(one["validation"], abs=1e-5)
    assert one["validation"] < one["steps"][0][1] - 0.01  # there was something to learn
    assert far(one["weights"], two["weights"]) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_go_on_from_their_own_checkpoint(name, together):
    again = together[name]["again"]
    assert [step[0] for step in again["steps"]] == [11, 12]
    assert far(together[name]["whole"]["weights"], again["weights"]) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_go_on_from_the_checkpoint_of_one(name, alone, together):
    resumed = together[name]["resumed"]
    assert [step[0] for step in resumed["steps"]] == [11, 12]
    assert far(alone[CASES[name].kind]["weights"], resumed["weights"]) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_one_process_goes_on_from_the_checkpoint_of_two(name, models, scratch, together):
    case = CASES[name]
    resumed = ranks_script.trained(case, models, scratch / name)
    assert [step[0] for step in resumed["steps"]] == [11, 12]
    assert far(together[name]["whole"]["weights"], resumed["weights"]) < 1e-4


def test_a_sharded_model_takes_half_the_place(alone, together):
    for name, case in CASES.items():
        share = together[name]["whole"]["held"] / alone[case.kind]["held"]
        if case.parallel == "ddp":
            assert share == 1.0
        else:
            assert 0.5 <= share < 0.55, name


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("budget", [None, 60])
def test_the_ranks_slices_are_the_global_batches_whatever_their_number(size, budget):
    lengths = np.random.default_rng(0).integers(3, 30, 41).astype(np.int64)
    groups = [Group(dist.HashStore(), rank, size) for rank in range(size)]
    for rows in plan_epoch(lengths, 8, 0, 0):
        parts = micro_batches(lengths, rows, groups[0].micro_batch_tokens(budget))
        shares = [group.shares(group.slices(parts)) for group in groups]
        assert len({len(own) for own in shares}) == 1  # all take part in every pass
        counted = [row for own in shares for share in own if share.factor for row in share.rows]
        assert sorted(counted) == sorted(rows)
        assert all(share.factor in (0.0, float(size)) and len(share.rows) for own in shares for share in own)
        assert [own[-1].last for own in shares] == [True] * size


def test_a_model_that_does_not_fit_into_half_of_the_memory_is_divided():
    model = torch.nn.Linear(1000, 1000)
    held = 5 * sum(p.numel() * 4 for p in model.parameters())
    assert choose_parallel("auto", model, 2 * held)[0] == "ddp"
    assert choose_parallel("auto", model, 2 * held - 1)[0] == "fsdp"
    assert choose_parallel("fsdp", model, 1e12) == ("fsdp", "stated in the project file")
    assert choose_parallel("auto", model, 1e12)[0] == "ddp"


def test_a_model_without_a_plan_is_refused_for_tensor_parallelism(models):
    task, _ = ranks_script.work("lora", models)
    with pytest.raises(BadInput, match="cannot be split by tensor parallelism"):
        choose_parallel("tensor", task.build(), 1e12)
    task, _ = ranks_script.work("chat", models)
    assert choose_parallel("tensor", task.build(), 1e12)[0] == "tensor"


@pytest.mark.parametrize("launcher", ["", "no-such-launcher -n 2", "torchrun 'open"])
def test_a_launcher_that_is_not_there_is_refused(launcher):
    with pytest.raises(BadInput, match="no such launcher"):
        command(launcher, ["run"])


def test_the_launcher_s_command_starts_our_module():
    program, *words = command("torchrun --nproc-per-node 2", ["run", "p.yaml"])
    assert Path(program).name == "torchrun"
    assert words == ["--nproc-per-node", "2", "-m", "thriftune.cli", "run", "p.yaml"]


@pytest.mark.parametrize(
    ("launcher", "stated"),
    [
        ("torchrun --nproc-per-node 2", 2),
        ("torchrun --standalone --nproc_per_node=4", 4),
        ("torchrun --nnodes 2 --nproc-per-node 3 --node-rank 0", 6),
        ("torchrun --nproc-per-node gpu", None),
        ("torchrun --nnodes 1:4 --nproc-per-node 2", None),
        ("torchrun", None),
        ("accelerate launch --cpu --num_processes 2", 2),
        ("accelerate launch --num-processes=2 --num_machines 2", 2),
        ("mpirun -np 3", 3),
    ],
)
def test_the_stated_number_of_processes_is_read(launcher, stated):
    assert stated_processes(launcher) == stated


@pytest.mark.parametrize(("started", "found"), [(None, "processes that know of no other"), ("3", "3 processes")])
def test_another_number_of_processes_than_stated_is_refused(started, found, tmp_path, monkeypatch):
    noted = note_for("torchrun --nproc-per-node 2", tmp_path)
    monkeypatch.setenv(NOTE, noted[NOTE])
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert as_stated()
    check("torchrun --nproc-per-node 2", noted)
    monkeypatch.setenv("WORLD_SIZE", started) if started else monkeypatch.delenv("WORLD_SIZE")
    assert not as_stated()
    with pytest.raises(BadInput, match="another number of processes") as refused:
        check("torchrun --nproc-per-node 2", noted)
    assert refused.value.found == found


def test_where_no_number_is_stated_every_number_will_do(tmp_path):
    assert note_for("torchrun", tmp_path) == {}
    check("torchrun", {})
