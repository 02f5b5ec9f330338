"""Where the test rows cannot tell, training rows are held out in turn: paid for, resumable, and not without room."""

import random
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from line_for_tests import CLASSIFY, FILLING, Line, charged, classifier, write_films
from thriftune.evaluate.types import Comparison
from thriftune.evidence_line import _Parts

# No baseline that reads; and of so few rows the test split is one by which even a model that is always right is not
# told from a guess.
FEW_TESTED = CLASSIFY + "select: {{baselines: [majority, untuned]}}\nevaluate: {{held_out_in_turn: {parts}}}\n"
ROWS = 90


def project(folder: Path, model: Path, home: Path, **values: object) -> Line:
    line = classifier(folder, model, home, FEW_TESTED, **{"epochs": 40, "parts": 4} | values)
    write_films(line.folder / "films.csv", ROWS)
    return line


def decided(line: Line, what: str) -> list[dict]:
    return [event for event in line.events("decision") if event["what"] == what]


def test_training_rows_that_are_held_out_in_turn_tell_where_a_few_test_rows_cannot(tmp_path, model, home):
    line = project(tmp_path / "project", model, home)
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    first, last = line.events("verdict")
    assert (first["decision"], last["decision"]) == ("cannot tell", "ship")
    (decision,) = decided(line, "parts held out in turn")
    parts = line.events("evidence.part")
    held, of = decision["chosen"]
    assert 0 < len(parts) == held <= of == 4
    tested = line.events("evaluation.scores")[-1]["rows"]
    rows = tested + sum(part["rows"] for part in parts)
    assert tested < ROWS / 5
    assert f"{rows} rows would with a chance of" in decision["because"]
    assert f"evidence: part 1 of {len(parts)}" in ended.stdout
    report = line.json("report")
    assert report["verdict"]["decision"] == "ship"
    assert (
        f"{rows - tested} of these {rows} rows are training rows, held out in turn" in report["verdict"]["reasons"][-1]
    )
    assert all(f"{rows} rows" in reason for reason in report["verdict"]["reasons"])
    assert all(comparison["rows"] == rows for comparison in report["verdict"]["comparisons"])
    said = f"gains are by {rows} rows, {rows - tested} of them training rows that were held out in turn"
    assert said in ended.stdout
    assert said in (line.folder / ".thriftune" / "reports" / "attempt-1.html").read_text()
    looks = [look["looks"] for look in line.events("evaluation.look") if look["candidate"]]
    assert looks == [1, 1]  # more than half of the rows are fresh: the second look has the whole of the first's share
    assert Decimal(report["cost"]["spent"]) == charged(line)
    assert not list((line.folder / ".thriftune" / "evidence").rglob("*.safetensors"))

    trained = line.events("trial.training.validation")
    again = line.do("run")
    assert again.returncode == 0, again.stderr
    assert line.json("report")["verdict"] == report["verdict"]
    assert line.events("trial.training.validation") == trained


def test_a_run_that_is_killed_between_two_parts_goes_on_with_the_next(tmp_path, model, home):
    line = project(tmp_path / "project", model, home)
    process = line.start("run")
    line.wait_for("evidence.part", 1)
    process.kill()
    process.communicate()
    validated = [event for event in line.events("trial.training.validation") if event["trial"] == "evidence.0-0"]
    ended = line.do("run")
    assert ended.returncode == 0, ended.stderr
    assert line.events("verdict")[-1]["decision"] == "ship"
    assert len(decided(line, "parts held out in turn")) == 1
    assert [e for e in line.events("trial.training.validation") if e["trial"] == "evidence.0-0"] == validated
    report = line.json("report")
    assert Decimal(report["cost"]["spent"]) == charged(line)
    assert not line.leftovers()


def test_nothing_is_held_out_where_no_number_of_rows_would_tell_or_the_project_says_so(tmp_path, model, home):
    silent = project(tmp_path / "silent", model, home, parts=0)
    assert silent.do("run").returncode == 0
    assert not decided(silent, "parts held out in turn")
    assert silent.json("report")["verdict"]["decision"] == "cannot tell"

    lost = project(tmp_path / "lost", model, home, epochs=3)
    drawn = random.Random(2)
    lines = [
        f"{' '.join(drawn.choice(FILLING) for _ in range(12))},{drawn.choice(['pos', 'neg'])}" for _ in range(ROWS)
    ]
    (lost.folder / "films.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    assert lost.do("run").returncode == 0
    report = lost.json("report")
    assert report["verdict"]["decision"] != "ship"
    for decision in decided(lost, "parts held out in turn"):
        assert "test rows cannot tell" in decision["because"]
        assert bool(decision["chosen"][0]) == bool(lost.events("evidence.part"))


UNDECIDED = Comparison("tfidf", "f1_macro", 0.1, -0.05, 0.25, 0.1, 0.975, "cannot tell", 40, 9)


@pytest.mark.parametrize(
    ("difference", "room", "taken", "says"),
    [
        (0.12, 1000.0, (3, 5), r"40 test rows cannot tell; 220 rows would with a chance of 8\d%: 3 of 5 parts of the"),
        # Three parts of five do not fit: larger ones of fewer trainings tell as surely.
        (0.12, 25.0, (2, 4), r"40 test rows cannot tell; 190 rows would with a chance of 8\d%: 2 of 4 parts of the"),
        (0.12, 20.0, (1, 3), r"what is left holds 1 of 2 trainings of 10 s; 140 rows would with .*: 1 of 3 parts"),
        (
            0.03,
            15.0,
            (0, 3),
            r"holds 1 of 3 trainings of 10 s; 140 rows would with a chance of \d+%, which is too little",
        ),
        (0.12, -1.0, (0, 5), r"holds 0 of 3 trainings of 10 s; 40 rows would with a chance of 0%, which is too little"),
    ],
)
def test_as_many_parts_are_held_out_as_tell_and_budget_and_deadline_hold(monkeypatch, difference, room, taken, says):
    file = SimpleNamespace(evaluate=SimpleNamespace(held_out_in_turn=5))
    parts = _Parts(SimpleNamespace(project=SimpleNamespace(file=file)), *[None] * 5)
    monkeypatch.setattr(parts, "sizes", lambda of: [300 // of] * of)
    monkeypatch.setattr(parts, "_there", lambda part, of: None)
    monkeypatch.setattr(parts, "_part_seconds", lambda of: (10.0, 12.0))
    monkeypatch.setattr(parts, "_room", lambda: room)
    half = 0.15
    one = replace(UNDECIDED, difference=difference, low=difference - half, high=difference + half)
    chosen, because = parts.wanted([one])
    assert (chosen, bool(re.search(says, because))) == (taken, True), because


def test_no_real_steps_are_probed_where_what_is_left_does_not_hold_that(monkeypatch):
    file = SimpleNamespace(evaluate=SimpleNamespace(held_out_in_turn=5), model_references=["package:tiny"])
    record = SimpleNamespace(forecast=lambda key: {"probe/package:tiny": SimpleNamespace(p95=3.0)}[key])
    # Without any rows: whatever would be trained or probed cannot even be made.
    parts = _Parts(SimpleNamespace(project=SimpleNamespace(file=file), record=record), *[None] * 5)
    monkeypatch.setattr(parts, "sizes", lambda of: [300 // of] * of)
    monkeypatch.setattr(parts, "_there", lambda part, of: None)
    monkeypatch.setattr(parts, "_room", lambda: 2.9)
    chosen, because = parts.wanted([UNDECIDED])
    assert chosen[0] == 0
    assert "what is left does not hold 3 s in which real steps are probed" in because


def test_one_part_is_refused_with_what_to_write(tmp_path, model, home):
    line = project(tmp_path / "project", model, home, parts=1)
    ended = line.do("run")
    assert ended.returncode == 2
    assert "evaluate.held_out_in_turn" in ended.stderr and "0, or 2 or more parts" in ended.stderr
