"""Where answers are generated, so many test rows are asked as the limits hold; everyone is asked the same."""

import json
from pathlib import Path

import polars as pl

from line_for_tests import Line, chat
from models_for_tests import llama_folder


def test_tight_limits_ask_fewer_rows_and_say_so(tmp_path) -> None:
    line = many_rooms(tmp_path)
    file = line.folder / "thriftune.yaml"
    wide = file.read_text()
    file.write_text(wide.replace("{generate_rows: 40}", "{generate_rows: 40, generate_share: 1.0e-6}"))
    foretold = line.json("plan")["test_rows"]
    assert line.do("run").returncode == 0
    assert asked(line) == (10, {10})
    rows_to_ask = len(pl.read_parquet(next(line.folder.rglob("test.parquet"))))
    (cut,) = [event for event in line.events("decision") if event["what"] == "test rows asked"]
    assert cut["because"].startswith(f"{rows_to_ask} rows' answers do not fit")
    assert foretold == {"full": rows_to_ask, "planned": 10}
    # The model is found again, and with more room both are asked more.
    file.write_text(wide)
    assert line.do("run").returncode == 0
    assert asked(line) == (rows_to_ask, {10, rows_to_ask})
    assert line.json("report")["tuned"]["model"]


def test_a_question_under_tighter_limits_asks_fewer_rows_and_says_so(tmp_path) -> None:
    line = many_rooms(tmp_path)
    told = line.json("plan", "--deadline", "1s")
    every = told["test_rows"]["full"]
    assert every > 10
    assert told["test_rows"]["planned"] == every
    assert told["what_if"]["test_rows"] == {"full": every, "planned": 10}
    assert f"asked 10 of {every} test rows instead of {every} of {every}" in " ".join(told["what_if"]["said"])
    half = line.json("plan", "--rows", "100")["what_if"]["test_rows"]
    assert half["full"] == half["planned"] < every


def test_a_refusal_names_limits_under_which_fewer_rows_are_asked(tmp_path) -> None:
    line = chat(tmp_path / "tickets", llama_folder(tmp_path / "llama"), tmp_path / "home")
    file = line.folder / "thriftune.yaml"
    file.write_text(file.read_text().replace("deadline: 20m", "deadline: 1s"))
    assert line.do("run").returncode == 3
    file.write_text(file.read_text().replace("deadline: 1s", "deadline: 20m"))
    assert line.json("plan")["left"]["deadline_s"] > 1000  # a changed deadline holds for a plan at once


def many_rooms(folder: Path) -> Line:
    """A project of two hundred pairs, of which up to 40 are asked."""
    line = chat(folder / "tickets", llama_folder(folder / "llama"), folder / "home")
    with (line.folder / "tickets.jsonl").open("a") as tickets:
        for number in range(120):
            tickets.write(json.dumps({"prompt": f"where is room {number}?", "completion": f"floor {number}"}) + "\n")
    file = line.folder / "thriftune.yaml"
    wide = file.read_text().replace("epochs: 20", "epochs: 1").replace("{generate_rows: 10}", "{generate_rows: 40}")
    file.write_text(wide)
    return line


def asked(line) -> tuple[int, set[int]]:
    """How many rows the last decision allows, and how many each predictor was asked, in all attempts."""
    decided = [event["chosen"] for event in line.events("decision") if event["what"] == "test rows asked"]
    return decided[-1], {event["rows"] for event in line.events("evaluation.scores") if event["split"] == "test"}
