"""The loop under a governor and on a machine that misbehaves; the probe's forecast of memory."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from models_for_tests import bert_folder
from thriftune.budget.decisions import Decisions
from thriftune.budget.governor import Governor, Overheads
from thriftune.clock import SystemClock
from thriftune.errors import BadInput
from thriftune.events import EventLog, open_attempt
from thriftune.models.reference import resolve
from thriftune.store import open_store
from thriftune.tasks.batches import balanced, padded_tokens
from thriftune.tasks.classify import ClassifyTask
from thriftune.train.batchplan import BatchPlan
from thriftune.train.costs import Costs
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.probe import largest_update, probe_costs
from thriftune.train.recipe import Recipe
from thriftune.train.supervision import Supervision

STALL = 1.0  # seconds
FULL_STEPS = 600
COSTS = Costs(seconds_per_token=1e-5, validation=0.05, checkpoint=0.1, peak_bytes=0.0)
OVERHEADS = Overheads(validation=0.0, validate_every=1000, checkpoint=0.0, checkpoint_every=30.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert", positions=512)


@pytest.fixture
def events(tmp_path):
    store, clock = open_store(f"sqlite:///{tmp_path}/events.db"), SystemClock()
    log = EventLog(store, clock, "test", open_attempt(store, clock, "test", "recipe").attempt)
    yield log
    log.close()
    store.close()


def loop_of(
    model, events: EventLog, folder, remaining: Callable[[], float], words: int = 12, rows: int = 96, batch: int = 16
) -> Loop:
    texts = [("good" if row % 2 else "bad") + " film" * (1 + row * words // rows) for row in range(rows)]
    task = ClassifyTask(resolve(str(model)), ("bad", "good"), dropout=0.0, max_tokens=512)
    encoded = task.encode(pl.DataFrame({"text": texts, "target": ["bad", "good"] * (rows // 2)}))
    recipe = Recipe(epochs=FULL_STEPS * batch // rows, rows_per_update=batch, rate=1e-3, patience=1000)
    governor = Governor(remaining, tail_seconds=0.0, full_steps=FULL_STEPS, overheads=OVERHEADS)
    watch = Supervision(Decisions(events), events, None, governor, folder / "checkpoints")
    return Loop(task, task.build(), encoded, encoded, recipe, Machine(), watch)


def stalled_at(loop: Loop, stalled: int) -> None:
    """Let the machine stand still during one update."""
    update = loop.update

    def slow(step: int):
        if step == stalled:
            time.sleep(STALL)
        return update(step)

    loop.update = slow


def test_a_stall_that_the_limits_can_bear_does_not_end_the_training(model, events, tmp_path):
    loop = loop_of(model, events, tmp_path, lambda: 100 * STALL)
    stalled_at(loop, 20)
    outcome = loop.run(1000, COSTS)
    assert (outcome.steps, outcome.stopped) == (FULL_STEPS, "planned")


def test_a_stall_ends_the_training_when_another_one_could_not_be_paid_for(model, events, tmp_path):
    loop = loop_of(model, events, tmp_path, lambda: 100 * STALL if loop.step <= 20 else 0.9 * STALL)
    stalled_at(loop, 20)
    outcome = loop.run(1000, COSTS)
    assert outcome.stopped == "breach"
    assert 20 < outcome.steps < FULL_STEPS
    assert outcome.best_step == outcome.steps  # it was validated, and is a finished model
    (stop,) = [event.data for event in events.read(kinds=["decision"]) if event.data["what"] == "stop"]
    assert stop["chosen"] == "breach"
    assert "at most was expected" in stop["because"]


def test_a_loss_that_is_no_number_names_the_rows(model, events, tmp_path):
    loop = loop_of(model, events, tmp_path, lambda: math.inf)
    update = loop.update
    loop.update = lambda step: update(step) * (math.nan if step == 3 else 1.0)
    with pytest.raises(BadInput, match="no longer a number") as refused:
        loop.run(1000, COSTS)
    assert "update 4, training rows " in str(refused.value)


def test_the_probe_leaves_the_model_as_it_was(model, events, tmp_path):
    loop = loop_of(model, events, tmp_path, lambda: math.inf, words=500, rows=192)
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    costs = probe_costs(loop, 0.0, tmp_path)
    assert all(value.equal(before[name]) for name, value in loop.model.state_dict().items())
    assert costs.seconds_per_token > 0


def test_where_each_epoch_draws_its_updates_anew_the_largest_of_all_is_probed(model, events, tmp_path):
    loop = loop_of(model, events, tmp_path, lambda: math.inf, words=500, rows=192)
    loop.train = replace(loop.train, packed=True)
    loop.plan = BatchPlan(loop.train, replace(loop.recipe, epochs=20))
    loop.full_steps = loop.plan.full_steps

    def tokens(step: int) -> int:
        return padded_tokens(loop.train.lengths, [balanced(loop.train.lengths, loop.rows_of(step))], packed=True)

    of_all, of_first = (max(map(tokens, steps)) for steps in (range(loop.full_steps), loop.plan.first_epochs()))
    assert tokens(largest_update(loop)) == of_all > of_first


PEAK = """
import sys
from pathlib import Path
from thriftune.clock import SystemClock
from thriftune.events import EventLog, open_attempt
from thriftune.memory import peak, resident_bytes
from thriftune.store import open_store
from thriftune.train.probe import probe_costs
from test_loop import loop_of

model, folder = Path(sys.argv[1]), Path(sys.argv[2])
store, clock = open_store(f"sqlite:///{folder}/peak.db"), SystemClock()
events = EventLog(store, clock, "test", open_attempt(store, clock, "test", "recipe").attempt)
loop = loop_of(model, events, folder, lambda: 1e9, words=500, rows=768, batch=128)
at_first = resident_bytes()
foretold = probe_costs(loop, 0.0, folder).peak_bytes
with peak() as seen:
    for step in loop.plan.first_epochs():
        loop.update(step)
print(at_first, foretold, seen.bytes)
"""


def test_the_probe_foretells_the_peak_of_an_epoch(model, tmp_path):
    """Rows of up to 500 tokens, of which the probe sees few, but the longest among them; in a fresh process."""
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, "-c", PEAK, str(model), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    at_first, foretold, seen = map(float, ended.stdout.split())
    assert seen - at_first > 100 * 2**20
    assert foretold - at_first == pytest.approx(seen - at_first, rel=0.4)
