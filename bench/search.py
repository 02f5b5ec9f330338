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
from thriftune.search.sampled import policy_of
from thriftune.search.space import Space, make_space

TABLE = BENCH / "search-table" / "movie-minilm.jsonl"
REPLAYS, QUICK_REPLAYS = 500, 20
SHARES = (1 / 40, 1 / 20, 1 / 10)
SHARE = 1 / 20
TARGET_GAP = 0.5  # points
DEFAULT = {"rate": 1e-4, "batch": 32, "epochs": 10}  # what Thriftune takes for MiniLM and a few hundred rows
POLICIES = {
    "ours": ("curves", "none"),
    "random": ("random", "none"),
    "tpe_hyperband": ("tpe", "hyperband"),
    "tpe_halving": ("tpe", "halving"),
}
OTHERS = ("random", "tpe_hyperband", "tpe_halving", "default")
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
    fits = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
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
    drawn = list(np.random.default_rng(seed).choice(table.folds, len(table.folds)))
    ends = [fmean(table.curves[(*one, fold)][-1] for fold in drawn) for one in table.configurations]
    grid = table.test[int(np.argmax(ends))]
    if name == "default":
        return 100 * float(table.test[table.space.start] - grid), 0.0
    policy = policy_of(*POLICIES[name], table.space, 1 if name in ONE_FOLD else len(drawn), seed)
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
    return 100 * float(table.test[policy.standing(looks).winner] - grid), spent / table.cost


def cells(table: Path, quick: bool) -> list[Settings]:
    """One cell a policy and cap."""
    replays = QUICK_REPLAYS if quick else REPLAYS
    at = {"table": _told(table), "content": hash_of(table), "replays": replays}
    ours = [at | {"policy": "ours", "share": share} for share in SHARES]
    return ours + [at | {"policy": name, "share": SHARE} for name in OTHERS]


def run(settings: Settings) -> Figures:
    """Search under one cap against a full grid with cross-validation, on a table of a grid that was really run."""
    table, replays = BENCH / settings["table"], settings["replays"]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        whole = ([value] * replays for value in (table, settings["policy"], settings["share"]))
        found = list(pool.map(replay, *whole, range(replays), chunksize=5))
    gaps = [-margin for margin, _ in found]
    say(f"{settings['policy']} at 1/{1 / settings['share']:.0f}: {fmean(gaps):.2f} points below the grid's winner")
    return {"gaps": gaps, "used": fmean(used for _, used in found), "machine": measured_machine(1)}


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    replays = found[0][0]["replays"]
    by_name = {(settings["policy"], settings["share"]): figures for settings, figures in found}
    own = by_name["ours", SHARE]
    ours = _of_policy(SHARE, own)
    others = {}
    for name in OTHERS:
        margins = [theirs - gap for theirs, gap in zip(by_name[name, SHARE]["gaps"], own["gaps"], strict=True)]
        error = stdev(margins) / math.sqrt(replays)
        others[name] = {"margin_points": fmean(margins), "standard_error": error} | _of_policy(
            SHARE, by_name[name, SHARE]
        )
    table = read_table(BENCH / found[0][0]["table"])
    gap, error = ours["gap_points"], ours["standard_error"]
    better = all(other["margin_points"] > 2 * other["standard_error"] for other in others.values())
    return {
        "claim": f"On a replayed grid of {len(table.configurations)} configurations × {len(table.folds)} folds, search "
        f"at 1/20 of its computing ends within {TARGET_GAP} points of the grid's winner, and above random search, "
        f"Optuna's TPE with Hyperband and the default recipe at equal computing.",
        "ours": ours,
        "peer": {"name": "grid × folds", "version": f"{table.cost:.0f} epochs"},
        "ratio": 1 / ours["used"],
        "compute_ratio": 1 / ours["used"],
        "quality_gap_points": gap,
        "curve": [_of_policy(share, by_name["ours", share]) for share in SHARES],
        "others": others,
        "machine": own["machine"],
        "seeds": [0, replays - 1],
        "runs": {"gap_points": {"median": median(own["gaps"]), "min": min(own["gaps"]), "max": max(own["gaps"])}},
        "holds": gap + 2 * error <= TARGET_GAP and better,
    }


def _of_policy(share: float, figures: Figures) -> dict[str, Any]:
    gaps = figures["gaps"]
    error = stdev(gaps) / math.sqrt(len(gaps))
    return {"share": share, "gap_points": fmean(gaps), "standard_error": error, "used": figures["used"]}


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
        "search", partial(cells, chosen.table), run, summarise, lambda figures: fmean(figures["gaps"]), FURTHER
    )
    harness.main(benchmark, rest, [own])


if __name__ == "__main__":
    main()
