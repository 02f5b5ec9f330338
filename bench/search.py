"""Search under one cap against a full grid with cross-validation, replayed on a grid that was really run.

`--table FILE` replays on any table of the form that bench/search-table/README.md gives. A replay draws the folds anew
(with replacement, for grid and policies alike) and seeds each policy's own randomness; a policy pays for each epoch
that it looks at, and its winner is judged by the mean test quality of all folds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np

import harness
from harness import BENCH, Benchmark, Figures, Settings, say
from machine import measured_machine
from thriftune.search.curves import Look
from thriftune.search.policies import Policy
from thriftune.search.sampled import policy_of
from thriftune.search.space import Space, make_space

TABLE = BENCH / "search-table" / "movie-minilm.jsonl"
REPLAYS, FEW_REPLAYS, QUICK_REPLAYS = 2000, 100, 6
SHARES = [1 / 40, 1 / 20, 1 / 10, 1 / 5]
SHARE = 1 / 20
TARGET_GAP = 0.5  # points
# What Thriftune takes for MiniLM and a few hundred rows.
DEFAULT = {"learning_rate": 1e-4, "batch_rows": 32, "epochs": 10}
POLICIES = {
    "ours": ("curves", "none"),
    "random": ("random", "none"),
    "tpe_hyperband": ("tpe", "hyperband"),
    "tpe_halving": ("tpe", "halving"),
}
SYNE_TUNE = ("asha", "mobster", "dyhpo")
SLOW = ("mobster", "dyhpo", "tpe_hyperband", "tpe_halving")  # fit a model of theirs at every step
OTHERS = ("random", "tpe_hyperband", "tpe_halving", *SYNE_TUNE, "default")
NAMES = ("ours", *OTHERS)
SYNE_TUNE_PYTHON = BENCH.parent / ".venv-syne-tune" / "bin" / "python"
AT_ONCE = 5  # replays that a process of theirs makes
ONE_FOLD = ("random", "tpe_hyperband", "tpe_halving")  # on all folds they would see two configurations; this is better
FURTHER = ("compute_ratio", "quality_gap_points", "curve", "others")


@dataclass(frozen=True)
class Table:
    """A grid that was run.

    Args:
        configurations: (rate, batch, epochs) of each.
        curves: by (rate, batch, epochs, fold): (epochs,) validation accuracy.
        test: (configurations,) test accuracy, the mean of all folds' models.
        folds: the folds' numbers.
        space: the configurations as a space, an epoch a look.
    """

    configurations: list[tuple[float, int, int]]
    curves: dict[tuple[Any, ...], list[float]]
    test: np.ndarray
    folds: list[int]
    space: Space

    @property
    def cost(self) -> float:
        """Epochs of the whole grid on all folds."""
        return len(self.folds) * math.fsum(one.cost for one in self.space.configurations)


@cache
def read_table(path: Path) -> Table:
    """A table from its file."""
    return table_of([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])


def table_of(fits: list[dict[str, Any]]) -> Table:
    """A table from its fits, in the form of its file."""
    curves = {tuple(fit["key"]): [look[0] for look in fit["curve"]] for fit in fits}
    tests = {tuple(fit["key"]): fit["test"][0] for fit in fits}
    configurations = sorted({key[:3] for key in curves})
    folds = sorted({key[3] for key in curves})
    test = np.array([fmean(tests[(*one, fold)] for fold in folds) for one in configurations])
    values = [dict(zip(DEFAULT, one, strict=True)) for one in configurations]
    space = make_space(values, [one[2] for one in configurations], DEFAULT, [one[2] for one in configurations])
    return Table(configurations, curves, test, folds, space)


def replay(path: Path, name: str, share: float, seed: int) -> tuple[float, float]:
    """One replay: the winner's test accuracy less that of the grid's winner, in points; and the share really used."""
    table = read_table(path)
    drawn = drawn_folds(table, seed)
    if name == "default":
        return margin_of(table, drawn, table.space.start), 0.0
    policy = policy_of(*POLICIES[name], table.space, 1 if name in ONE_FOLD else len(drawn), seed)
    winner, spent = searched(table, drawn, policy, share)
    return margin_of(table, drawn, winner), spent / table.cost


def drawn_folds(table: Table, seed: int) -> list[int]:
    """A replay's folds, drawn with replacement, for grid and policies alike."""
    return [int(fold) for fold in np.random.default_rng(seed).choice(table.folds, len(table.folds))]


def margin_of(table: Table, drawn: list[int], winner: int) -> float:
    """A configuration's test accuracy less that of the grid's winner on these folds, in points."""
    ends = [fmean(table.curves[(*one, fold)][-1] for fold in drawn) for one in table.configurations]
    return 100 * float(table.test[winner] - table.test[int(np.argmax(ends))])


def searched(table: Table, drawn: list[int], policy: Policy, share: float) -> tuple[int, float]:
    """A policy's winner on these folds within a share of the grid's computing, and the epochs that it took."""
    looks: list[Look] = []
    spent, most = 0.0, share * table.cost
    while (proposal := policy.propose(looks, most - spent)) is not None:
        one = table.configurations[proposal.configuration]
        cost = table.space.configurations[proposal.configuration].rung_cost
        if spent + cost > most:
            break
        score = table.curves[(*one, drawn[proposal.fold])][proposal.rung - 1]
        looks.append(Look(proposal.configuration, proposal.fold, proposal.rung, score, cost))
        spent += cost
    return policy.standing(looks).winner, spent


def cells(table: Path, quick: bool) -> list[Settings]:
    """One cell a policy, at every share; without Syne Tune's where it is not here and cannot be had."""
    names = [name for name in NAMES if name not in SYNE_TUNE or syne_tune_here()]
    replays = {name: FEW_REPLAYS if name in SLOW else REPLAYS for name in names}
    at = {"table": _told(table), "content": hash_of(table), "shares": SHARES[:2] if quick else SHARES}
    return [at | {"policy": name, "replays": QUICK_REPLAYS if quick else replays[name]} for name in names]


@cache
def syne_tune_here() -> bool:
    """Whether its environment is here, or could be made now."""
    if not SYNE_TUNE_PYTHON.exists():
        say("search: making the environment of Syne Tune's schedulers")
        subprocess.run(["bash", str(BENCH.parent / "scripts" / "syne-tune"), sys.executable], check=False)
    command = [str(SYNE_TUNE_PYTHON), "-c", "import syne_tune"]
    return SYNE_TUNE_PYTHON.exists() and subprocess.run(command, check=False).returncode == 0


def run(settings: Settings) -> Figures:
    """Search under one cap against a full grid with cross-validation, on a table of a grid that was really run."""
    table, name, replays = BENCH / settings["table"], settings["policy"], settings["replays"]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        if name in SYNE_TUNE:
            cut = [range(at, min(at + AT_ONCE, replays)) for at in range(0, replays, AT_ONCE)]
            whole = ([value] * len(cut) for value in (table, name, settings["shares"]))
            found = [each for some in pool.map(syne_tune_replays, *whole, cut) for each in some]
        else:
            whole = ([value] * replays for value in (table, name, settings["shares"]))
            found = list(pool.map(replays_at, *whole, range(replays), chunksize=5))
    curve = []
    for place, share in enumerate(settings["shares"]):
        gaps = [-each[place][0] for each in found]
        used = fmean(each[place][1] for each in found)
        curve.append({"share": share, "gaps": gaps, "used": used})
        say(f"{name} at 1/{1 / share:.0f}: {fmean(gaps):.2f} points below the grid's winner")
    return {"curve": curve, "machine": measured_machine(1)}


def replays_at(path: Path, name: str, shares: list[float], seed: int) -> list[tuple[float, float]]:
    """One replay at each share."""
    return [replay(path, name, share, seed) for share in shares]


def syne_tune_replays(path: Path, name: str, shares: list[float], seeds: range) -> list[list[tuple[float, float]]]:
    """Replays by a scheduler of Syne Tune's, in its own environment; it goes on from share to share.

    Raises:
        SystemExit: they failed.
    """
    table = read_table(path)
    drawn = {seed: drawn_folds(table, seed) for seed in seeds}
    asked = {
        "scheduler": name,
        "fits": [{"key": key, "curve": [[score] for score in curve]} for key, curve in table.curves.items()],
        "replays": [{"seed": seed, "fold": drawn[seed][0]} for seed in seeds],
        "checkpoints": [share * table.cost for share in shares],
    }
    command = [str(SYNE_TUNE_PYTHON), str(BENCH / "peers" / "syne_tune_replays.py")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=False, env=environment
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    winners = json.loads(ended.stdout.splitlines()[-1])
    numbers = {one: number for number, one in enumerate(table.configurations)}
    return [
        [
            (margin_of(table, drawn[seed], numbers[tuple(winner)]), share)
            for winner, share in zip(each, shares, strict=True)
        ]
        for seed, each in zip(seeds, winners, strict=True)
    ]


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    by_name = {settings["policy"]: figures["curve"] for settings, figures in found}
    place = found[0][0]["shares"].index(SHARE)
    own = by_name["ours"]
    curves = {name: [_point(*points) for points in zip(curve, own, strict=True)] for name, curve in by_name.items()}
    ours, others = curves["ours"][place], {name: curves[name][place] for name in OTHERS if name in curves}
    missing = [name for name in OTHERS if name not in curves]
    theirs = "" if missing else "Syne Tune's ASHA, MOBSTER and DyHPO "
    table = read_table(BENCH / found[0][0]["table"])
    gap, error = ours["gap_points"], ours["standard_error"]
    better = all(other["margin_points"] > 2 * other["margin_error"] for other in others.values())
    gaps = own[place]["gaps"]
    return {
        "claim": f"On a replayed grid of {len(table.configurations)} configurations × {len(table.folds)} folds, search "
        f"at 1/20 of its computing ends within {TARGET_GAP} points of the grid's winner, and above random search, "
        f"Optuna's TPE with Hyperband, {theirs}and the default recipe at equal computing.",
        "ours": ours,
        "peer": {"name": "grid × folds", "version": f"{table.cost:.0f} epochs"},
        "ratio": 1 / ours["used"],
        "compute_ratio": 1 / ours["used"],
        "quality_gap_points": gap,
        "curve": curves,
        "others": others,
        "missing": missing,
        "machine": found[0][1]["machine"],
        "seeds": list(range(len(gaps))),
        "runs": {"gap_points": {"median": median(gaps), "min": min(gaps), "max": max(gaps)}},
        "holds": gap + 2 * error <= TARGET_GAP and better and not missing,
    }


def _point(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """A policy at a share: how far below the grid's winner, and how far below ours on the same replays."""
    gaps = theirs["gaps"]
    margins = [gap - own for gap, own in zip(gaps, ours["gaps"], strict=False)]  # a slow peer has fewer replays
    return {
        "share": theirs["share"],
        "gap_points": fmean(gaps),
        "standard_error": _error(gaps),
        "margin_points": fmean(margins),
        "margin_error": _error(margins),
        "used": theirs["used"],
        "replays": len(gaps),
    }


def _error(values: list[float]) -> float:
    return stdev(values) / math.sqrt(len(values))


def _told(table: Path) -> str:
    """A table's path from here if it lies here, else as a whole."""
    whole = table.resolve()
    return str(whole.relative_to(BENCH)) if whole.is_relative_to(BENCH) else str(whole)


def hash_of(table: Path) -> str:
    """Of a file, by which its cells are known again."""
    return hashlib.blake2b(table.read_bytes(), digest_size=8).hexdigest()


def main() -> None:
    """Replay, and print the JSON."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help="the grid to replay on")
    chosen, rest = own.parse_known_args()
    benchmark = Benchmark(
        "search",
        partial(cells, chosen.table),
        run,
        summarise,
        lambda figures: fmean(figures["curve"][SHARES.index(SHARE)]["gaps"]),
        FURTHER,
    )
    harness.main(benchmark, rest, [own])


if __name__ == "__main__":
    main()
