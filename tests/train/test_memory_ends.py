"""Where memory ends in the middle of training, the run goes on in smaller micro-batches with the same updates."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from loops import COSTS, ONLY_AT_THE_END, Record, classifier, loop_of, weights

from models_for_tests import bert_folder
from thriftune.errors import BadInput
from thriftune.memory import ran_out_of_memory
from thriftune.train.mishaps import half_of
from thriftune.train.recipe import Recipe

RECIPE = Recipe(epochs=3, rows_per_update=64, rate=1e-3)
STEPS = 9

ROOM = 220 * 2**20  # bytes: an update of short rows and its kernels fit, one of long rows does not

CHILD = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
from test_memory_ends import ROOM, loop_for
from loops import COSTS, ONLY_AT_THE_END, weights

torch.set_num_threads(1)
model, folder, seed, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), getattr(resource, sys.argv[4])
loop, record = loop_for(model, folder, seed)
shortest = loop.train.lengths.argsort()[:4]
loop.task.loss(loop.model, loop.task.batch(loop.train, shortest)).backward()  # threads and their stacks are there now
loop.model.zero_grad()
place = {resource.RLIMIT_AS: 0, resource.RLIMIT_RSS: 1}[limit]  # all of the address space, and what is resident
taken = int(Path("/proc/self/statm").read_text().split()[place]) * resource.getpagesize()
resource.setrlimit(limit, (taken + ROOM, resource.RLIM_INFINITY))
loop.run(ONLY_AT_THE_END, COSTS)
resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
torch.save(weights(loop), folder / "weights.pt")
taken = [d for d in record.of("decision") if d["what"] == "micro_batch_tokens"]
print(json.dumps({"decisions": taken, "steps": loop.step, "micro": loop.micro_batch_tokens}))
"""


def mixed_rows(rows: int = 192) -> pl.DataFrame:
    """Short rows, and a third of long ones, which the plan of a seed puts into some update."""
    drawn = np.random.default_rng(1)
    lengths = [drawn.integers(180, 250) if row % 3 == 0 else drawn.integers(5, 20) for row in range(rows)]
    texts = [" ".join(drawn.choice(["good", "bad", "film"], length)) for length in lengths]
    return pl.DataFrame({"text": texts, "target": ["yes", "no"] * (rows // 2)})


def loop_for(model: Path, folder: Path, seed: int = 0):
    task = classifier(model, max_tokens=256)
    record = Record(folder)
    return loop_of(task, replace(RECIPE, seed=seed), record, encoded=task.encode(mixed_rows())), record


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert", positions=512)


LIMITS = {  # the kernel refuses memory past the first; to the second our own watch holds the process
    "RLIMIT_AS": "the memory does not hold one of this size",
    "RLIMIT_RSS": "GiB were held, close to the limit",
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_run_whose_memory_ends_goes_on_in_smaller_micro_batches_with_the_same_updates(model, tmp_path, limit):
    seed = random.randrange(1000)  # which steps have the long rows is drawn with it
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",  # else glibc reserves 64 MiB of addresses for a new arena where memory ends
    }
    command = [sys.executable, "-c", CHILD, str(model), str(tmp_path / "limited"), str(seed), limit]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, (seed, ended.stderr)
    found = json.loads(ended.stdout)
    assert found["steps"] == STEPS
    assert found["decisions"], f"memory did not end with seed {seed}"
    assert LIMITS[limit] in found["decisions"][0]["because"]

    # The reference is told of the micro-batches from the same steps on, and has all the memory it wants.
    torch.set_num_threads(1)
    reference, _ = loop_for(model, tmp_path / "reference", seed)
    update = reference.update
    smaller = {decision["at_step"]: decision["chosen"] for decision in found["decisions"]}

    def told(step):
        reference.micro_batch_tokens = smaller.get(step, reference.micro_batch_tokens)
        return update(step)

    reference.update = told
    reference.run(ONLY_AT_THE_END, COSTS)
    assert reference.micro_batch_tokens == found["micro"]
    assert torch.equal(torch.load(tmp_path / "limited" / "weights.pt", weights_only=True), weights(reference))


def test_a_resumed_run_takes_the_recorded_micro_batches_and_not_the_memory_s_word(model, tmp_path):
    loop, record = loop_for(model, tmp_path / "first")
    part, left = loop._part, [2]

    def failing(rows, weight):
        if loop.step == 4 and left[0]:
            left[0] -= 1
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return part(rows, weight)

    loop._part = failing
    loop.run(ONLY_AT_THE_END, COSTS)
    decisions = [d for d in record.of("decision") if d["what"] == "micro_batch_tokens"]
    assert [d["at_step"] for d in decisions] == [4, 4]
    assert decisions[1]["chosen"] <= decisions[0]["chosen"] / 2 + 1

    assert not (tmp_path / "first" / "checkpoints").exists()  # the second run begins at the first step
    again = loop_of(loop.task, RECIPE, record, encoded=loop.train)
    again.run(ONLY_AT_THE_END, COSTS)
    assert again.micro_batch_tokens == decisions[1]["chosen"]
    assert torch.equal(weights(again), weights(loop))


def test_other_errors_are_not_taken_for_a_lack_of_memory(model, tmp_path):
    loop, _ = loop_for(model, tmp_path)

    def failing(rows, weight):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    loop._part = failing
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        loop.run(ONLY_AT_THE_END, COSTS)
    assert not ran_out_of_memory(ValueError("too long"))
    assert not ran_out_of_memory(RuntimeError("could not create a primitive descriptor for a matmul primitive"))
    assert ran_out_of_memory(RuntimeError("could not create a primitive"))
    assert ran_out_of_memory(MemoryError())
    assert ran_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))


def test_a_row_that_does_not_fit_alone_is_told():
    lengths = np.array([10, 300, 20])
    assert half_of(lengths, [np.array([0, 2]), np.array([1])]) == 20
    with pytest.raises(BadInput, match="one row") as refused:
        half_of(lengths, [np.array([0]), np.array([1]), np.array([2])])
    assert "a row of 300 tokens" in str(refused.value)
