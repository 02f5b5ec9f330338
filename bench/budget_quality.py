"""The same data, model, machine and limit for each system: which model is better, and who kept the limit?

A cell is a data set, a limit and a seed; each system is a process of its own, one after the other, in an order that
turns with the seed. This process measures from its start to its exit, which is what the limit holds for and what the
price pays; then, outside the limit, each system's model answers the held-out rows in a file, and one scorer reads all
files. The systems: `thriftune run` with everything included; AutoGluon-MultiModal's default recipe with `time_limit`
(scripts/autogluon makes its environment); a Trainer script as a competent person writes it (TRL's for chat), which
times its steps and plans so many as fit; TF-IDF with logistic regression (for chat, the nearest question's answer).
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import harness
from harness import BENCH, Benchmark, Figures, Settings, say
from machine import measured_machine
from made_models import TURNS, WORDS
from outside import watch
from training import packaged_rows, versions

PRICE_PER_SECOND = 0.01
LIMITS = ((60, 5), (180, 5), (600, 2))  # seconds, and how many seeds
DATA = {"movie": "classify", "amazon": "classify", "definitions": "chat"}
HELD_OUT = {"movie": 2000, "amazon": 2000, "definitions": 400}  # definitions are generated, which is slow
PEERS = {"classify": ("autogluon", "trainer", "tfidf"), "chat": ("trl", "tfidf")}
SCRIPTS = {"autogluon": "autogluon", "trainer": "trainer", "trl": "trl_sft", "tfidf": "tfidf"}
METRIC = {"classify": "accuracy", "chat": "rougeL"}
OURS = "thriftune"
COMMAND = [str(BENCH.parent / ".venv" / "bin" / "thriftune")]
AUTOGLUON = BENCH.parent / ".venv-autogluon" / "bin" / "python"
MARGIN = -1.0  # points that the lower bound of ours minus the best peer must lie above
LOWER_95 = 1.645
FURTHER = ("cells", "worst_margin_points", "superior", "overruns")
PROJECT = """name: headline
objective: {{task: {task}}}
data:
  - {{file: train.jsonl, {columns}}}
budget: {{total: {budget:.4f}}}
deadline: {deadline}s
compute: {{price_per_hour: {price}}}
models: {model}
seed: {seed}
"""


def cells(quick: bool) -> list[Settings]:
    """Data × limit × seed; the quick ones on few rows."""
    if quick:
        sizes = {"movie": (1200, 400), "definitions": (200, 20)}
        return [
            {"data": data, "limit_s": 90, "seed": 1, "train": train, "held_out": held_out}
            for data, (train, held_out) in sizes.items()
        ]
    return [
        {"data": data, "limit_s": limit, "seed": seed, "train": None, "held_out": HELD_OUT[data]}
        for limit, seeds in LIMITS
        for seed in range(1, seeds + 1)
        for data in DATA
    ]


def run(settings: Settings) -> Figures:
    """The same data, model, machine and limit for each system: held-out quality, seconds and money really used."""
    task = DATA[settings["data"]]
    train, held_out = rows_of(settings)
    systems = [OURS, *PEERS[task]]
    turn = settings["seed"] % len(systems)
    found = {name: run_system(name, settings, task, train, held_out) for name in systems[turn:] + systems[:turn]}
    return {"systems": found, "rows": {"train": len(train), "held_out": len(held_out)}, "versions": versions()}


def rows_of(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows to learn from, and those that no system sees."""
    rows = packaged_rows(settings["data"], settings["seed"])
    held_out = settings["held_out"]
    rest = rows[held_out:]
    return rest if settings["train"] is None else rest[: settings["train"]], rows[:held_out]


def run_system(
    name: str, settings: Settings, task: str, train: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]]
) -> Figures:
    """One system's turn: its fit, watched from outside, then its answers and their scores."""
    asked, target = ("text", "label") if task == "classify" else ("prompt", "completion")
    limit = settings["limit_s"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write(folder / "train.jsonl", [{key: row[key] for key in (asked, target)} for row in train])
        _write(folder / f"{asked}s.jsonl", [{asked: row[asked]} for row in held_out])
        fit, predict = commands(name, folder, settings, task)
        if not Path(fit[0]).exists():
            say(f"budget_quality: {name} is not here: run scripts/{name}")
            return {"missing": True, "failed": "not installed"}
        environment = {"THRIFTUNE_HOME": str(BENCH / "state" / "budget_quality"), "TOKENIZERS_PARALLELISM": "false"}
        seen = watch(fit, folder, environment)
        answered = watch(predict, folder, environment) if seen.exit == 0 else seen
        scores = None
        if answered.exit == 0:
            answers = [json.loads(line)["answer"] for line in (folder / "answers.jsonl").read_text().splitlines()]
            scores = row_scores(task, answers, [row[target] for row in held_out])
    figures: Figures = {
        "exit": seen.exit,
        "seconds": seen.seconds,
        "money": seen.seconds * PRICE_PER_SECOND,
        "peak_bytes": seen.peak_bytes,
        "over": seen.seconds > limit,
        "quality": 0.0 if scores is None else fmean(scores),
        "scores": [0.0] * len(held_out) if scores is None else scores,
        "failed": "" if scores is not None else answered.said[-400:],
    }
    say(
        f"budget_quality: {settings['data']}, {limit} s, seed {settings['seed']}: {name} {figures['quality']:.4f}"
        f" in {seen.seconds:.1f} s{' (failed)' if figures['failed'] else ''}"
    )
    return figures


def commands(name: str, folder: Path, settings: Settings, task: str) -> tuple[list[str], list[str]]:
    """How a system is made to fit in a folder, and how its model answers; the project file is written for ours."""
    from thriftune.models.reference import resolve

    systems, limit = BENCH / "systems", settings["limit_s"]
    model = WORDS if task == "classify" else TURNS
    if name == OURS:
        columns = {"classify": "text: text, label: label", "chat": "prompt: prompt, completion: completion"}[task]
        text = PROJECT.format(
            task=task,
            columns=columns,
            budget=limit * PRICE_PER_SECOND,
            deadline=limit,
            price=3600 * PRICE_PER_SECOND,
            model=model,
            seed=settings["seed"],
        )
        (folder / "thriftune.yaml").write_text(text)
        return [*COMMAND, "run"], [sys.executable, str(systems / "ours.py"), "predict", str(folder)]
    python = str(AUTOGLUON) if name == "autogluon" else sys.executable
    script = str(systems / f"{SCRIPTS[name]}.py")
    checkpoint = str(resolve(model).path)
    fit = [python, script, "fit", str(folder), str(limit), str(settings["seed"]), checkpoint]
    return fit, [python, script, "predict", str(folder)]


def row_scores(task: str, answers: Sequence[str], targets: Sequence[str]) -> list[float]:
    """A score a row, the same for all systems: whether the label is right, or ROUGE-L's F1.

    Raises:
        ValueError: there is not one answer a row.
    """
    if len(answers) != len(targets):
        raise ValueError(f"{len(answers)} answers to {len(targets)} rows")
    if task == "classify":
        return [float(answer == target) for answer, target in zip(answers, targets, strict=True)]
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(answers, targets, strict=True)
    return [round(scorer.score(target, answer)["rougeL"].fmeasure, 5) for answer, target in pairs]


def margin(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, float]:
    """Ours minus theirs on the same held-out rows, in points, pooled over seeds, with its lower 95 % bound.

    The standard error is the larger of two: that of all rows' differences, and that of the seeds' means.

    Args:
        ours: of each seed, of each row, its score.
        theirs: the same.
    """
    pairs = zip(ours, theirs, strict=True)
    by_seed = [[a - b for a, b in zip(mine, other, strict=True)] for mine, other in pairs]
    rows = [difference for seed in by_seed for difference in seed]
    means = [fmean(seed) for seed in by_seed]
    error = stdev(rows) / math.sqrt(len(rows))
    if len(means) > 1:
        error = max(error, stdev(means) / math.sqrt(len(means)))
    return {"points": 100 * fmean(rows), "error": 100 * error, "lower": 100 * (fmean(rows) - LOWER_95 * error)}


def pooled(found: Sequence[tuple[Settings, Figures]]) -> list[dict[str, Any]]:
    """Of each data set and limit, the mean quality of each system over seeds, and ours against the best peer."""
    groups: dict[tuple[str, int], list[Figures]] = {}
    for settings, figures in found:
        groups.setdefault((settings["data"], settings["limit_s"]), []).append(figures["systems"])
    result = []
    for (data, limit), seeds in groups.items():
        there = [name for name in seeds[0] if not any(systems[name].get("missing") for systems in seeds)]
        quality = {name: fmean(systems[name]["quality"] for systems in seeds) for name in there}
        best = max((name for name in there if name != OURS), key=lambda name: quality[name])
        scores = {name: [systems[name]["scores"] for systems in seeds] for name in (OURS, best)}
        result.append(
            {
                "data": data,
                "limit_s": limit,
                "metric": METRIC[DATA[data]],
                "seeds": len(seeds),
                "quality": quality,
                "seconds": {name: fmean(systems[name]["seconds"] for systems in seeds) for name in there},
                "best_peer": best,
                "margin": margin(scores[OURS], scores[best]),
            }
        )
    return result


def times_our_limit(cells_of_data: Sequence[dict[str, Any]]) -> float:
    """How many times our limit the best peer needs for our quality: by the middle one of the limits.

    A peer that does not reach it at the longest is counted as if it had.
    """
    by_limit = {cell["limit_s"]: cell for cell in cells_of_data}
    limits = sorted(by_limit)
    middle = limits[len(limits) // 2]
    ours = by_limit[middle]["quality"][OURS]
    peers = {limit: cell["quality"][cell["best_peer"]] for limit, cell in by_limit.items()}
    return float(next((limit for limit in limits if peers[limit] >= ours), limits[-1]) / middle)


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    groups = pooled(found)
    by_data = {data: [cell for cell in groups if cell["data"] == data] for data in {cell["data"] for cell in groups}}
    ratios = {data: times_our_limit(cells_of_data) for data, cells_of_data in by_data.items()}
    early = {}
    for data, cells_of_data in by_data.items():
        longest = max(cells_of_data, key=lambda cell: cell["limit_s"])
        within = [cell for cell in cells_of_data if cell["limit_s"] <= 0.3 * longest["limit_s"]]
        wanted = longest["quality"][longest["best_peer"]]
        early[data] = any(cell["quality"][OURS] >= wanted for cell in within)
    names = sorted({name for _, figures in found for name in figures["systems"]})
    missing = sorted({n for _, f in found for n, system in f["systems"].items() if system.get("missing")})
    overruns = {
        name: sum(bool(f["systems"].get(name, {}).get("over")) for _, f in found)
        for name in names
        if name not in missing
    }
    worst = min(cell["margin"]["lower"] for cell in groups)
    superior = fmean(cell["margin"]["points"] > 0 for cell in groups)
    named = found[0][1]["versions"]
    return {
        "claim": "In the same limit of time and money, everything included, `thriftune run` ends with a model that is"
        f" not worse than the best peer's by {-MARGIN:g} point anywhere and better in half of the cells, never over"
        " the limit, and reaches the best peer's ten-minute quality in three.",
        "ours": {"name": OURS, "quality": {_told(cell): cell["quality"][OURS] for cell in groups}},
        "peer": {
            "name": "the best of AutoGluon-MultiModal, a Trainer script, TRL, TF-IDF",
            "version": f"1.6.3, transformers {named['transformers']}, trl {named['trl']}",
            "missing": missing,
            "quality": {_told(cell): cell["quality"][cell["best_peer"]] for cell in groups},
        },
        "ratio": min(ratios.values()),
        "by_data": {data: {"ratio": ratios[data], "longest_reached_in_a_third": early[data]} for data in ratios},
        "cells": [_without_rows(settings, figures) for settings, figures in found],
        "pooled": groups,
        "worst_margin_points": worst,
        "superior": superior,
        "overruns": overruns,
        "price_per_second": PRICE_PER_SECOND,
        "machine": measured_machine(len(os.sched_getaffinity(0))),
        "seeds": sorted({settings["seed"] for settings, _ in found}),
        "runs": harness.spread([cell["margin"]["points"] for cell in groups]),
        "holds": worst > MARGIN and superior >= 0.5 and overruns[OURS] == 0 and all(early.values()) and not missing,
    }


def _told(cell: dict[str, Any]) -> str:
    return f"{cell['data']}, {cell['limit_s']} s"


def _without_rows(settings: Settings, figures: Figures) -> dict[str, Any]:
    systems = {
        name: {key: value for key, value in system.items() if key != "scores"}
        for name, system in figures["systems"].items()
    }
    return settings | {"rows": figures["rows"], "systems": systems}


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def figure(figures: Figures) -> float:
    """Our held-out quality."""
    return float(figures["systems"][OURS]["quality"])


BENCHMARK = Benchmark("budget_quality", cells, run, summarise, figure, FURTHER, tolerance=0.05, any_code=True)

if __name__ == "__main__":
    harness.main(BENCHMARK)
