"""What all benchmarks share: the command line, the kept cells, the form of the one JSON object.

A benchmark is a `Benchmark`: its cells (plain JSON settings), how one cell is run, and how cells become the result.
`python bench/NAME.py` runs what is not kept yet; `--quick` runs a small version and keeps nothing; `--cells N` runs
N kept cells again, drawn at random, and compares; `--fresh` forgets what was kept. The last line of stdout is the
result, and everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

BENCH = Path(__file__).resolve().parent
SOURCE = BENCH.parent / "src" / "thriftune"
RESULTS = BENCH / "results"
CELLS = RESULTS / "cells"

COMMON_KEYS = {
    "claim": str,
    "ours": dict,
    "peer": dict,
    "ratio": (int, float),
    "machine": dict,
    "seeds": list,
    "runs": (dict, list),  # median, min and max; or, where BENCHMARKS.md says so, a list of the runs
    "holds": bool,
}
MACHINE_KEYS = ("cores", "memory_gb", "peak_gflops")

Settings = dict[str, Any]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """One claim.

    Args:
        name: of the file under bench/.
        cells: the settings of each cell, given whether the run is quick.
        run: runs one cell.
        summarise: the result's keys from all (settings, figures), in the cells' order.
        figure: a cell's most important number, by which `--cells` compares a repetition with what was kept.
        further_keys: what the result has besides the common keys.
        tolerance: the relative difference in `figure` that `--cells` still calls the same.
        any_code: whether kept cells that earlier code measured count too, for a benchmark of many hours: its result
            then says in `codes` how many cells each code measured, by its hash, and `--fresh` begins anew.
    """

    name: str
    cells: Callable[[bool], list[Settings]]
    run: Callable[[Settings], Figures]
    summarise: Callable[[list[tuple[Settings, Figures]]], dict[str, Any]]
    figure: Callable[[Figures], float]
    further_keys: tuple[str, ...] = ()
    tolerance: float = 0.15
    any_code: bool = False


def main(
    benchmark: Benchmark,
    arguments: Sequence[str] | None = None,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Run a benchmark as its command line asks, and print its JSON; `parents` hold options of its own."""
    parser = argparse.ArgumentParser(
        prog=f"bench/{benchmark.name}.py", description=benchmark.run.__doc__, parents=list(parents)
    )
    parser.add_argument("--quick", action="store_true", help="a smaller run of the same thing; nothing is kept")
    parser.add_argument("--cells", type=int, metavar="N", help="run N kept cells again and compare")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are kept")
    chosen = parser.parse_args(arguments)
    kept = KeptCells(benchmark.name)
    if chosen.cells is not None:
        result = repeat_cells(benchmark, kept, chosen.cells)
    else:
        result = run_cells(benchmark, None if chosen.quick else kept, chosen.quick, chosen.fresh)
        check_form(result, benchmark.further_keys)
    print(json.dumps(result, ensure_ascii=False), flush=True)


def run_cells(benchmark: Benchmark, kept: KeptCells | None, quick: bool, fresh: bool = False) -> dict[str, Any]:
    """All cells, those that are kept from this very code taken as they are; the result."""
    code = code_hash(benchmark.name)
    outcomes = []
    codes: Counter[str] = Counter()
    cells = benchmark.cells(quick)
    if kept is not None and fresh:
        kept.forget()
    for number, settings in enumerate(cells, 1):
        record = kept.find(settings, None if benchmark.any_code else code) if kept else None
        figures = record["figures"] if record else None
        codes[record["code"] if record else code] += 1
        if figures is None:
            say(f"{benchmark.name}: cell {number} of {len(cells)}: {brief(settings)}")
            figures = benchmark.run(settings)
            if kept:
                kept.keep(settings, code, figures)
        else:
            say(f"{benchmark.name}: cell {number} of {len(cells)} is kept")
        outcomes.append((settings, figures))
    told = {"codes": dict(codes)} if benchmark.any_code else {}
    return benchmark.summarise(outcomes) | told | {"quick": quick}


def repeat_cells(benchmark: Benchmark, kept: KeptCells, count: int) -> dict[str, Any]:
    """Run `count` kept cells again, drawn at random, and compare their figures with what was kept."""
    there = kept.all()
    if not there:
        raise SystemExit(f"no cells of {benchmark.name} are kept yet: run bench/{benchmark.name}.py first")
    repeated = []
    for record in random.SystemRandom().sample(there, min(count, len(there))):
        say(f"{benchmark.name}: again: {brief(record['settings'])}")
        before, after = benchmark.figure(record["figures"]), benchmark.figure(benchmark.run(record["settings"]))
        difference = abs(after - before) / abs(before) if before else abs(after)
        same = difference <= benchmark.tolerance
        repeated.append({"settings": record["settings"], "kept": before, "again": after, "same": same})
    return {"benchmark": benchmark.name, "repeated": repeated, "agree": all(entry["same"] for entry in repeated)}


class KeptCells:
    """Cells on disk, a line each, written as each ends."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self._path = (folder or CELLS) / f"{name}.jsonl"

    def find(self, settings: Settings, code: str | None) -> dict[str, Any] | None:
        """The latest record of the cell with these settings, by this code or by any; None where there is none."""
        found = [r for r in self.all() if r["settings"] == settings and code in (None, r["code"])]
        return found[-1] if found else None

    def all(self) -> list[dict[str, Any]]:
        """Every kept record: settings, code, at, figures."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]  # what follows the last line end was cut off by a kill

    def keep(self, settings: Settings, code: str, figures: Figures) -> None:
        """Write one cell, to the disk."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_cut_line()
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._path.open("a", encoding="utf-8") as file:
            record = {"settings": settings, "code": code, "at": at, "figures": figures}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def forget(self) -> None:
        """Delete all."""
        self._path.unlink(missing_ok=True)

    def _drop_cut_line(self) -> None:
        if self._path.exists():
            text = self._path.read_bytes()
            if not text.endswith(b"\n"):
                self._path.write_bytes(text[: text.rfind(b"\n") + 1])


def code_hash(name: str) -> str:
    """A hash of Thriftune's source and of the benchmark's: figures of other code are not reused."""
    digest = hashlib.blake2b(digest_size=8)
    for path in [*sorted(SOURCE.rglob("*.py")), BENCH / f"{name}.py"]:
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def check_form(result: dict[str, Any], further_keys: Iterable[str] = ()) -> None:
    """Raise unless the result has the form that BENCHMARKS.md fixes.

    Raises:
        ValueError: naming what is missing or of the wrong type.
    """
    for key, kind in COMMON_KEYS.items():
        if not isinstance(result.get(key), kind):
            raise ValueError(f"the result's {key} must be {kind}, not {result.get(key)!r}")
    missing = [key for key in further_keys if key not in result]
    missing += [f"machine.{key}" for key in MACHINE_KEYS if key not in result["machine"]]
    missing += [f"peer.{key}" for key in ("name", "version") if key not in result["peer"]]
    if missing:
        raise ValueError(f"the result lacks {', '.join(missing)}")
    json.dumps(result, allow_nan=False)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and largest, and all of them."""
    return {"median": median(values), "min": min(values), "max": max(values), "all": list(values)}


def no_worse(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Whether our losses equal theirs or are smaller, within two standard errors of the paired difference.

    Args:
        ours: one loss a seed.
        theirs: for the same seeds.

    Returns:
        difference (ours minus theirs, mean), standard_error (null for one seed) and no_worse; with one seed, where
        there is no error to speak of, no_worse allows 5 % of their loss.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = fmean(differences)
    if len(differences) < 2:
        return {"difference": mean, "standard_error": None, "no_worse": mean <= 0.05 * fmean(theirs)}
    error = stdev(differences) / math.sqrt(len(differences))
    return {"difference": mean, "standard_error": error, "no_worse": mean <= 2 * error}


def brief(settings: Settings) -> str:
    """Settings in a line."""
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def say(message: str) -> None:
    """A line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)
