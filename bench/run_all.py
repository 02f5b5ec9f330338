"""Runs every benchmark and keeps each one's JSON object in `bench/results/NAME.json`: `make bench`.

`python bench/run_all.py [NAME ...] [--quick] [--fresh]`. With `--quick` nothing is kept: it shows that all of them run.
The exit status is 1 when a benchmark failed, or printed something else than its object.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import BENCH, RESULTS, check_form, say

RUNNABLE = re.compile(r"^if __name__ == .__main__.:", re.MULTILINE)


def benchmarks() -> list[str]:
    """The names of all files under bench/ that are benchmarks, in alphabetical order."""
    files = sorted(path for path in BENCH.glob("*.py") if path.name != Path(__file__).name)
    return [path.stem for path in files if RUNNABLE.search(path.read_text(encoding="utf-8"))]


def run_one(name: str, options: Sequence[str]) -> dict[str, Any]:
    """A benchmark's result.

    Raises:
        ValueError: it failed, or its last line is not an object of the right form.
    """
    command = [sys.executable, str(BENCH / f"{name}.py"), *options]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        raise ValueError(f"it ended with status {ended.returncode}")
    lines = ended.stdout.strip().splitlines()
    try:
        result = json.loads(lines[-1] if lines else "")
    except json.JSONDecodeError as failure:
        raise ValueError(f"its last line is not JSON: {failure}") from None
    check_form(result)
    return dict(result)


def keep(name: str, result: dict[str, Any]) -> Path:
    """Write a result where the README and the docs read it."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run those that are named, or all; the exit status."""
    every = benchmarks()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(every)}")
    parser.add_argument("--quick", action="store_true", help="smaller runs; nothing is kept")
    parser.add_argument("--fresh", action="store_true", help="measure everything anew")
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.names) - set(every)):
        parser.error(f"no benchmark {unknown[0]}; there are {', '.join(every)}")
    options = [f"--{name}" for name in ("quick", "fresh") if getattr(chosen, name)]
    failed = [name for name in chosen.names or every if not _measured(name, options, chosen.quick)]
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _measured(name: str, options: list[str], quick: bool) -> bool:
    say(f"=== {name}")
    try:
        result = run_one(name, options)
    except ValueError as failure:
        say(f"{name}: {failure}")
        return False
    where = "not kept" if quick else f"kept in {keep(name, result).relative_to(BENCH.parent)}"
    say(f"{name}: ratio {result['ratio']:.2f}, {'holds' if result['holds'] else 'does not hold'}; {where}")
    return True


if __name__ == "__main__":
    sys.exit(main())
