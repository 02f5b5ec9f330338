"""A search in the line: it finds what the project leaves open, inside its allowance, and survives being killed."""

import json
import os
import signal
from decimal import Decimal

import pytest

from line_for_tests import CLASSIFY, Line, charged, classifier

SEARCHED = CLASSIFY.replace(", learning_rate: 0.003", "") + (
    "search: {{space: {{learning_rate: [0.0000001, 0.003], freeze_layers: [0, 1]}}, folds: 2, share: 0.6, runs: 50, "
    "sampler: {sampler}}}\n"
)
NESTED = SEARCHED.replace("folds: 2,", "folds: 2, repeats: 2, nested: 2,")
CROWDED = SEARCHED.replace("folds: 2,", "folds: 2, workers: 2, least_gain: 0,")
STEERED = SEARCHED.replace("runs: 50,", "runs: 5000, least_gain: 0, share: 0.9,").replace("share: 0.6, ", "")


def looks_of(line: Line) -> list[dict]:
    return line.events("search.look")


@pytest.mark.parametrize("sampler", ["curves", "random"])
def test_a_search_leaves_a_rate_that_learns_and_charges_what_it_took(tmp_path, model, home, sampler):
    line = classifier(tmp_path / "project", model, home, SEARCHED, sampler=sampler, epochs=15)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    (found,) = line.events("search.finished")
    assert found["values"]["learning_rate"] == 0.003
    (allowed,) = (e["chosen"] for e in line.events("decision") if e["what"] == "search_allowance")
    assert sum(look["seconds"] for look in looks_of(line)) == pytest.approx(found["seconds"])
    assert 0 < found["seconds"] <= 1.5 * allowed
    report = line.json("report")
    assert report["search"]["winner"] == found["values"]
    assert {row["values"]["learning_rate"] for row in report["search"]["configurations"]} == {0.0000001, 0.003}
    assert report["tuned"]["metrics"]["f1_macro"]["value"] > 0.8


def test_a_killed_search_goes_on_with_the_looks_it_has_paid_for(tmp_path, model, home):
    line = classifier(tmp_path / "project", model, home, SEARCHED, sampler="curves", epochs=4)
    process = line.start("run")
    line.wait_for("search.look", 3)
    process.kill()
    process.communicate()
    before = looks_of(line)
    assert not line.events("search.finished")
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    after = looks_of(line)
    assert after[: len(before)] == before
    paid = [(look["configuration"], look["fold"], look["rung"]) for look in after]
    assert len(set(paid)) == len(paid)
    spent = Decimal(line.json("report")["cost"]["spent"])
    assert spent == charged(line)


def test_the_second_trial_of_equal_freeze_depth_reads_the_states_that_the_first_wrote(tmp_path, model, home):
    frozen = SEARCHED.replace("freeze_layers: [0, 1]", "freeze_layers: [1]")
    line = classifier(tmp_path / "project", model, home, frozen, sampler="random", epochs=4)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    told = line.events("search.states")
    trials = {(look["configuration"], look["fold"]) for look in looks_of(line)}
    assert len(told) >= len(trials) >= 4  # two rates on two folds, and one frozen model
    assert [each["reused"] for each in told] == [False, *[True] * (len(told) - 1)]
    assert len({each["rows"] for each in told}) == 1
    assert sum("prefix states" in charge["unit"] for charge in line.events("charge")) == 1


def test_a_nested_search_says_what_searching_gives_on_rows_that_it_has_not_seen(tmp_path, model, home):
    line = classifier(tmp_path / "project", model, home, NESTED, sampler="curves", epochs=15)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    outer = line.events("search.nested")
    assert [each["outer"] for each in outer] == [0, 1]
    assert {look["study"] for look in looks_of(line)} == {"", "outer0.", "outer1."}
    search = line.json("report")["search"]
    assert search["nested"] == [each["score"] for each in outer]
    assert 0.5 < min(search["nested"]) <= 1.0
    assert len(search["best_spent"]) == len(search["best"])
    assert Decimal(search["best_spent"][-1]) == pytest.approx(
        Decimal(search["seconds"]) * Decimal("0.001"), abs=Decimal("1e-8")
    )
    assert "by 2 outer folds" in line.do("report").stdout.replace("\n", " ")


def test_a_search_is_steered_by_hand_while_it_runs_and_goes_on_as_it_was_told_after_a_kill(tmp_path, model, home):
    line = classifier(tmp_path / "project", model, home, STEERED, sampler="curves", epochs=160)
    assert line.do("search", "stop").returncode == 2
    process = line.start("run")
    line.wait_for("search.look", 2)
    first = looks_of(line)[0]["configuration"]
    assert line.do("search", "stop", str(first)).returncode == 0
    refused = line.do("search", "clone", str(first), "--set", "rate=1")
    assert refused.returncode == 2
    assert "learning_rate" in refused.stderr
    assert line.do("search", "stop", "77").returncode == 2
    cloned = line.do("search", "clone", str(first), "--set", "learning_rate=0.002", "--set", "freeze_layers=0")
    assert cloned.returncode == 0, cloned.stderr
    line.wait_until(lambda: any(look["values"]["learning_rate"] == 0.002 for look in looks_of(line)))
    process.kill()
    process.communicate()
    process = line.start("run")
    line.wait_until(
        lambda: any(
            look["values"]["learning_rate"] == 0.002 and look["rung"] == look["rungs"] for look in looks_of(line)
        )
    )
    shown = json.loads(line.do("search", "list", "--json").stdout)
    assert {row["trial"]: row["by_hand"] for row in shown}[first] == "stopped"
    assert line.do("search", "stop").returncode == 0
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (found,) = line.events("search.finished")
    assert found["because"] == "it was stopped by hand"
    by_hand = [e for e in line.events("decision") if e["what"].startswith("search_by_hand")]
    assert [e["chosen"]["wish"] for e in by_hand] == ["stop", "clone", "stop"]
    seqs = [
        (seq, json.loads(data))
        for seq, data in line.rows("SELECT seq, data FROM events WHERE kind = 'search.look' ORDER BY seq")
    ]
    (stopped_at,) = [
        seq
        for seq, data in line.rows("SELECT seq, data FROM events WHERE kind = 'decision'")
        if json.loads(data)["what"] == "search_by_hand 1"
    ]
    assert not [look for seq, look in seqs if seq > stopped_at and look["configuration"] == first]


def test_two_workers_search_side_by_side_and_a_killed_one_s_look_is_made_again_and_paid_for(tmp_path, model, home):
    line = classifier(tmp_path / "project", model, home, CROWDED, sampler="curves", epochs=15)
    process = line.start("run")
    line.wait_for("search.look", 2)
    for worker in line.events("search.worker"):
        os.kill(worker["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    pids = {worker["pid"] for worker in line.events("search.worker")}
    looks = looks_of(line)
    paid = [(look["configuration"], look["fold"], look["rung"]) for look in looks]
    assert len(set(paid)) == len(paid)
    assert 1 <= len(line.events("search.worker_lost")) <= 2  # one that had just answered had no look to lose
    assert {(lost["status"], lost["closed"]) for lost in line.events("search.worker_lost")} == {
        (-signal.SIGKILL, False)
    }
    assert len(pids) >= 3
    (found,) = line.events("search.finished")
    assert found["values"]["learning_rate"] == 0.003
    charges = [e for e in line.events("charge") if e["unit"] == "search: workers at work"]
    assert sum(charge["seconds"] for charge in charges) >= 0.9 * found["seconds"]
    report = line.json("report")
    assert Decimal(report["cost"]["spent"]) == charged(line) <= Decimal("5.00")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
