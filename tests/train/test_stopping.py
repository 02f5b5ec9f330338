"""Ending early where the rest costs more than it can bring: the weighing, and a loop that does it."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from loops import COSTS, Record, classifier, frame, loop_of, weights

from models_for_tests import bert_folder
from thriftune.budget.governor import Governor, Overheads
from thriftune.errors import Interrupted
from thriftune.train.curve import MIN_VALIDATIONS
from thriftune.train.recipe import Phase, Recipe
from thriftune.train.schedule import rate_factor
from thriftune.train.stopping import Stopping, end_after, height

RECIPE = Recipe(epochs=1, rows_per_update=16, rate=1e-3, watch="f1_macro", higher_is_better=True)
DOLLAR_A_SECOND = Stopping(Decimal("0.10"), Decimal(3600), "USD")
STEPS = [10 * n for n in range(1, 11)]
FLAT = [(step, 0.8 + 0.002 * (-1) ** n) for n, step in enumerate(STEPS)]
RISING = [(step, 0.9 - 4 / step) for step in STEPS]


def weigh(curve, planned=1000, worth="0.10", recipe=RECIPE, step_seconds=0.01, rows=500, began_at=-9.0):
    rule = replace(DOLLAR_A_SECOND, worth_per_point=Decimal(worth))
    return rule.weigh(curve, began_at, planned, 10, step_seconds, recipe, rows)


def test_too_short_a_curve_is_not_weighed():
    assert weigh(FLAT[: MIN_VALIDATIONS - 1]) is None
    assert weigh(FLAT[:MIN_VALIDATIONS]) is not None


def test_a_curve_that_has_not_risen_is_not_weighed():
    """Nothing to learn, or not begun: that cannot be told."""
    assert weigh(FLAT, began_at=0.9) is None
    assert weigh(FLAT, began_at=0.5) is not None


def test_a_flat_curve_is_not_worth_going_on_and_a_rising_one_is():
    assert not weigh(FLAT).pays
    rising = weigh(RISING, worth="1")
    assert rising.pays
    assert rising.points == pytest.approx(400 / 100 - 400 / rising.until, rel=0.05)


def test_what_a_point_is_worth_decides():
    decisions = [weigh(RISING, worth=worth).pays for worth in ("0", "0.001", "0.01", "0.1", "1")]
    assert decisions == sorted(decisions)
    assert decisions[0] is False
    assert decisions[-1] is True


def test_the_best_end_is_found_where_the_whole_plan_would_not_pay():
    """4 points are left, most of them in the next 100 steps, for 1.00; the whole plan costs a hundred times that."""
    found = weigh(RISING, planned=10_000, worth="0.60")
    assert found.pays
    assert 110 < found.until < 500
    assert found.saved > 90


def test_costs_are_between_the_two_ends_and_the_decay_is_one_of_them():
    found = weigh(FLAT, worth="0")
    assert found.cost == Decimal("0.11")  # 10 steps more and a decay that is a step longer, a cent each
    assert found.saved == Decimal("8.9")  # of 1,000 steps, 100 are done and the decay takes 10
    assert weigh(FLAT, worth="0", step_seconds=0.02).cost == 2 * found.cost


@pytest.mark.parametrize(("watch", "higher", "best"), [("accuracy", True, 1.0), ("loss", False, 0.0)])
def test_what_is_perfect_cannot_gain(watch, higher, best):
    recipe = replace(RECIPE, watch=watch, higher_is_better=higher)
    wild = [0.5, 0.1, 0.9]
    figures = [{"loss": value if watch == "loss" else 1 - value, "accuracy": value} for value in [*wild, best]]
    found = weigh([(10 * n + 10, height(each, recipe)) for n, each in enumerate(figures)], recipe=recipe, worth="100")
    assert found.most_points == 0.0
    assert not found.pays


def test_the_reason_has_the_figures():
    found = weigh(FLAT)
    said = DOLLAR_A_SECOND.reason(found, "f1_macro")
    for figure in (f"step {found.until}", f"{found.most_points:.2f} points of f1_macro", "0.10 USD a point"):
        assert figure in said
    assert "hundredths of a nat of loss" in DOLLAR_A_SECOND.reason(found, "loss")


def test_perplexity_is_weighed_in_nats():
    recipe = replace(RECIPE, watch="perplexity", higher_is_better=False)
    assert height({"loss": 2.0, "perplexity": math.exp(2.0)}, recipe) == -2.0


# in the loop

FULL_STEPS, EVERY = 300, 10
LEARNT = Recipe(
    epochs=100, rows_per_update=16, rate=3e-3, patience=1000, watch="accuracy", higher_is_better=True, seed=1
)
OVERHEADS = Overheads(validation=0.01, validate_every=EVERY, checkpoint=0.01, checkpoint_every=30.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


def governed(model, record, recipe=LEARNT, worth="0", **watch):
    """A loop with a governor whom nothing binds; a second costs a dollar."""
    loop = loop_of(classifier(model, dropout=0.0), recipe, record, **watch)
    governor = Governor(lambda: 1e6, tail_seconds=0.0, full_steps=loop.full_steps, overheads=OVERHEADS)
    stopping = None if worth is None else replace(DOLLAR_A_SECOND, worth_per_point=Decimal(worth))
    loop.watch = replace(loop.watch, governor=governor, stopping=stopping)
    return loop


def ending(record):
    return [data for data in record.of("decision") if data["what"] == "ending"]


def test_training_ends_by_a_short_decay_and_says_why(model, tmp_path):
    record = Record(tmp_path)
    loop = governed(model, record)
    outcome = loop.run(EVERY, COSTS)
    assert outcome.stopped == "gain"
    (decision,) = ending(record)
    stopped_at, warm = decision["at_step"], LEARNT.warmup * FULL_STEPS
    assert stopped_at == warm + (MIN_VALIDATIONS - 1) * EVERY  # the first that can be weighed
    assert decision["chosen"] == outcome.steps == end_after(stopped_at, FULL_STEPS, LEARNT) < FULL_STEPS
    assert "worth 0.00 USD" in decision["because"]
    (weighed,) = record.of("training.weighed")
    assert (weighed["step"], weighed["pays"]) == (stopped_at, False)
    rates = [step["rate"] for step in record.of("training.step")]
    drops = -np.diff(rates)[stopped_at - 1 :]
    assert rates[-1] < 0.2 * rates[stopped_at - 1]  # to the end of the schedule
    assert drops.max() < 0.25 * rates[stopped_at - 1]  # and no jump on the way
    assert rates[stopped_at - 1] == pytest.approx(
        LEARNT.rate * rate_factor((stopped_at - 0.5) / FULL_STEPS, LEARNT.warmup, LEARNT.decay)
    )
    assert record.of("training.validation")[-1]["step"] == outcome.steps


def test_what_is_worth_enough_is_trained_to_the_end(model, tmp_path):
    """A loss goes on falling a little for ever, at a worth of 1,000 a point."""
    record = Record(tmp_path)
    recipe = replace(LEARNT, watch="loss", higher_is_better=False, rate=1e-4)
    outcome = governed(model, record, recipe, worth="1000").run(EVERY, COSTS)
    assert (outcome.stopped, outcome.steps) == ("planned", FULL_STEPS)
    assert all(data["pays"] for data in record.of("training.weighed"))
    assert len(record.of("training.weighed")) > 10


def test_without_a_stated_worth_nothing_is_weighed(model, tmp_path):
    record = Record(tmp_path)
    assert governed(model, record, worth=None).run(EVERY, COSTS).stopped == "planned"
    assert record.of("training.weighed") == []


def test_the_last_phase_alone_is_weighed_by_its_own_curve(model, tmp_path):
    record = Record(tmp_path)
    phases = (Phase(0.0, 1), Phase(0.5, 0))
    outcome = governed(model, record, replace(LEARNT, phases=phases)).run(EVERY, COSTS)
    (decision,) = ending(record)
    assert decision["at_step"] == FULL_STEPS // 2 + MIN_VALIDATIONS * EVERY
    assert outcome.stopped == "gain"


def interrupted_at(loop, step):
    loop.watch = replace(loop.watch, interrupted=lambda: loop.step >= step)
    with pytest.raises(Interrupted):
        loop.run(EVERY, COSTS)


@pytest.mark.parametrize("after", [-12, 0, 2])
def test_a_resumed_run_ends_where_and_as_the_undisturbed_one_did(model, tmp_path, after):
    """Interrupted in the middle of the curve, at the very decision, and in the decay."""
    whole = governed(model, Record(tmp_path / "whole"))
    outcome = whole.run(EVERY, COSTS)
    record = Record(tmp_path / "stopped")
    stopped_at = ending(Record(tmp_path / "whole"))[0]["at_step"]
    interrupted_at(governed(model, record), stopped_at + after)
    resumed = governed(model, record, reached=stopped_at + after)
    assert resumed.run(EVERY, COSTS) == outcome
    assert weights(resumed).equal(weights(whole))


KILLED = """
import sys
from pathlib import Path
from loops import COSTS, Record
from test_stopping import EVERY, governed

governed(Path(sys.argv[1]), Record(Path(sys.argv[2])), checkpoint_seconds=0.0).run(EVERY, COSTS)
"""


def test_a_run_killed_at_the_decision_ends_as_the_undisturbed_one_did(model, tmp_path):
    """The decision is in the record, and the process is gone before it took effect."""
    whole = governed(model, Record(tmp_path / "whole"))
    outcome = whole.run(EVERY, COSTS)
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "THRIFTUNE_CRASH_AT": "decision.recorded"}
    script = [sys.executable, "-c", KILLED, str(model), str(tmp_path / "killed")]
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    record = Record(tmp_path / "killed")
    (decision,) = ending(record)
    reached = max(step["step"] for step in record.of("training.step"))
    assert reached == decision["at_step"] < outcome.steps
    resumed = governed(model, record, reached=reached)
    resumed.watch = replace(resumed.watch, stopping=None)  # what is recorded is enough
    assert resumed.run(EVERY, COSTS) == outcome
    assert weights(resumed).equal(weights(whole))
    assert len(ending(record)) == 1


def test_what_was_recorded_is_not_weighed_again(model, tmp_path):
    """A process that would have gone on ends where an earlier one decided to; one that would end, does not before."""
    record = Record(tmp_path / "ends")
    whole = governed(model, record)
    outcome = whole.run(EVERY, COSTS)
    for file in sorted((tmp_path / "ends" / "checkpoints").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    replayed = governed(model, record, worth=None)
    assert replayed.run(EVERY, COSTS) == outcome
    assert weights(replayed).equal(weights(whole))
    later = Record(tmp_path / "goes-on")
    assert governed(model, later, reached=200).run(EVERY, COSTS).stopped == "gain"
    assert ending(later)[0]["at_step"] == 200


def test_rows_are_as_the_loops_tests_have_them():
    assert LEARNT.epochs * math.ceil(len(frame()) / LEARNT.rows_per_update) == FULL_STEPS
