"""A thousand simulated projects: the real ledger, meter, leases and governor against a world that they do not know.

A cell is fifty projects. Each is done twice in the same world (`simulated_world.py`): by Thriftune's own parts with the
clock injected and a database file of its own, and by a plain plan that fixes its number of updates beforehand
(`simulated_runs.py`). What is judged is the world's account, not the ledger's. Further cells ask the timeline for the
chance of a deadline, of many more simulated projects (`simulated_deadlines.py`). The last twenty are real runs on movie
reviews, watched by this process as `governor.py` does it; they come last, and `--quick` leaves them out.

A process pays the price that it was told when it began. Where the list changes meanwhile, the bill at the list's price
of each instant is told apart: no tool can keep to a price that it is not told of before the machine is given back.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from statistics import fmean, median
from typing import Any

import governor
import harness
import simulated_deadlines
import simulated_runs
from harness import Benchmark, Figures, Settings, spread
from machine import measured_machine
from simulated_world import SEED, World

PROJECTS, CELL, REAL = 1000, 50, 20
REAL_ROWS = (300, 600, 1000, 1500)
SHORTEST, LONGEST = 25.0, 180.0  # seconds that the binding limit of a real one is drawn from, log-uniformly
ROUNDING = 1e-6  # of a limit: floats against the ledger's whole nano-units
IN_MEMORY = Path("/dev/shm")  # a file there takes no disk's time for its commits
NEAR, TOLD = 0.05, 0.8
FURTHER = (
    "projects",
    "overruns",
    "unused_share",
    "targets_met",
    "fixed_plan",
    "deadline_calibration",
    "real",
)


def cells(quick: bool) -> list[Settings]:
    """Fifty simulated projects a cell, a world a cell of the timeline's chances, and a real project a cell."""
    projects = 10 if quick else PROJECTS
    size = min(CELL, projects)
    found: list[Settings] = [{"kind": "projects", "first": first, "count": size} for first in range(0, projects, size)]
    found += simulated_deadlines.cells(quick)
    draw = random.Random(SEED)
    found += [
        {
            "kind": "real",
            "number": n,
            "bound_by": "money" if n % 2 == 0 else "time",
            "limit_s": round(SHORTEST * (LONGEST / SHORTEST) ** draw.random(), 2),
            "rows": draw.choice(REAL_ROWS),
        }
        for n in range(0 if quick else REAL)
    ]
    return found


def run(settings: Settings) -> Figures:
    """Simulated projects, governed and by a fixed plan, in worlds that neither knows."""
    if settings["kind"] == "deadlines":
        return simulated_deadlines.run(settings)
    if settings["kind"] == "real":
        governor.calibrate(settings["rows"])
        return governor.observe(settings["bound_by"], settings["limit_s"], settings["rows"])
    first = settings["first"]
    return {"runs": [project(number) for number in range(first, first + settings["count"])]}


def project(number: int) -> Figures:
    """One project in its two copies of the same world."""
    world = World(number)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        governed = simulated_runs.Governed(world, Path(folder)).run()
    fixed = simulated_runs.FixedPlan(World(number)).run()
    return {
        "number": number,
        "bound_by": world.binding,
        "budget": world.budget,
        "deadline_s": world.deadline_seconds,
        "target": world.target,
        "full_steps": world.full_steps,
        "spot": world.spot,
        "past_runs": world.past_runs,
        "governed": governed,
        "fixed": fixed,
    }


def overran(run: Figures, who: str) -> bool:
    """Whether a system spent more than the budget at the prices it was told, or worked on beyond the deadline."""
    seen = run[who]
    return bool(seen["money"] > run["budget"] * (1 + ROUNDING) or seen["late_s"] > run["deadline_s"] * ROUNDING)


def used(run: Figures, who: str) -> float:
    """The share of the binding limit that was used."""
    seen = run[who]
    by_time = seen["ended_s"] / run["deadline_s"]
    return float(max(seen["money"] / run["budget"], by_time))


def judged(runs: list[Figures], who: str) -> dict[str, Any]:
    """One system's figures over all projects."""
    over = [run for run in runs if overran(run, who)]
    done = [run for run in runs if run[who]["outcome"] == "done"]
    met = [run for run in done if run[who]["quality"] >= run["target"] and not overran(run, who)]
    short = [run for run in runs if run["governed"]["cut"] and run[who]["outcome"] == "done"]
    beyond = [run for run in runs if run[who]["bill"] > run["budget"] * (1 + ROUNDING) and run not in over]
    return {
        "overruns": len(over),
        "worst_money": max((run[who]["money"] / run["budget"] for run in runs), default=0.0),
        "worst_late_share": max((run[who]["late_s"] / run["deadline_s"] for run in runs), default=0.0),
        "unused_share": fmean(max(0.0, 1 - used(run, who)) for run in short) if short else None,
        "unused_share_of": len(short),
        "targets_met": len(met) / len(runs),
        "done": len(done),
        "started": sum(run[who]["started"] for run in runs),
        "started_without_end": sum(run[who]["started"] and run[who]["outcome"] != "done" for run in runs),
        "quality": fmean(run[who]["quality"] for run in done) if done else None,
        "bills_over_budget_after_a_price_change": len(beyond),
    }


def real_ones(runs: list[Figures]) -> dict[str, Any]:
    """What became of the real projects, by the account of the process that watched them."""
    over = [run for run in runs if run["outer_money"] > run["budget"] or run["outer_s"] > run["deadline_s"]]
    return {
        "projects": len(runs),
        "overruns": len(over),
        "done": sum(run["exit"] == 0 for run in runs),
        "refused": sum(run["exit"] == 3 for run in runs),
        "runs": runs,
    }


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    runs = [each for settings, figures in found if settings["kind"] == "projects" for each in figures["runs"]]
    governed, fixed = judged(runs, "governed"), judged(runs, "fixed")
    calibration = {
        settings["world"]: simulated_deadlines.judged(figures)
        for settings, figures in found
        if settings["kind"] == "deadlines"
    }
    errors = [abs(run["governed"]["ledger_money"] - run["governed"]["money"]) / run["budget"] for run in runs]
    real = real_ones([settings | figures for settings, figures in found if settings["kind"] == "real"])
    overruns = governed["overruns"] + real["overruns"]
    holds = overruns == 0 and governed["targets_met"] >= fixed["targets_met"]
    holds = holds and all(
        calibration[world]["as_said"] for world in simulated_deadlines.PROMISED if world in calibration
    )
    return {
        "claim": "In worlds that the planner does not know (correlated, heavy-tailed delays, lost machines, neighbours)"
        " projects with Thriftune's ledger and governor overrun neither budget nor deadline by an account of their own,"
        f" and of those that the timeline calls {TOLD:.0%} likely in time, {TOLD:.0%} ± {NEAR:.0%} are.",
        "ours": {"name": "thriftune's ledger, meter and governor"} | governed,
        "peer": {"name": "a fixed number of epochs from the same point forecast", "version": "1"} | fixed,
        "ratio": governed["targets_met"] / max(fixed["targets_met"], 1e-9),
        "projects": len(runs) + real["projects"],
        "overruns": overruns,
        "unused_share": governed["unused_share"],
        "targets_met": governed["targets_met"],
        "fixed_plan": fixed,
        "ledger_error": {"median": median(errors), "max": max(errors)},
        "deadline_calibration": calibration,
        "real": real,
        "machine": measured_machine(len(os.sched_getaffinity(0))),
        "seeds": [SEED],
        "runs": spread([run["governed"]["money"] / run["budget"] for run in runs]),
        "holds": bool(holds),
    }


def figure(figures: Figures) -> float:
    """Of projects the mean share that was spent of their budgets; of deadlines the share that was in time; of a real
    project its seconds."""
    if "outer_s" in figures:
        return float(figures["outer_s"])
    if "runs" in figures:
        spent = [run["governed"]["money"] / run["budget"] for run in figures["runs"]]
        return fmean(spent)
    return fmean(each["made"] for each in figures["bins"] if each["count"])


BENCHMARK = Benchmark("budget", cells, run, summarise, figure, FURTHER, tolerance=0.25)

if __name__ == "__main__":
    harness.main(BENCHMARK)
