"""What `classify` and `chat` share: ours beside a trainer at its defaults and at its best, on the same rows.

A cell is one seed. Its systems work by turns; each has a process of its own. The clock runs over the loop only:
loading, tokenising and the evaluation afterwards are outside it, on both sides.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from alternation import Baton, Side, Work, alternate
from harness import Figures, Settings, no_worse, say, spread
from machine import better_peaks, measured_machine

Systems = dict[str, tuple[Side, Settings]]
SLOW = 1.0  # seconds a token: a first guess that makes the loop come back to the baton after each of its first updates


def run_systems(settings: Settings, systems: Callable[[bool], Systems]) -> Figures:
    """One cell.

    Args:
        settings: have at least `updates_per_block` and `threads`.
        systems: the sides by name (`peer`, then `peer_best_…` and `ours_…` by precision), given whether bfloat16
            products are faster than fp32 ones here.
    """
    say("measuring the machine")
    machine = measured_machine(settings["threads"])
    bf16 = machine["peak_gflops"]["bf16"] > machine["peak_gflops"]["fp32"]
    found = alternate(systems(bf16), settings["updates_per_block"], settings["threads"], say)
    machine = better_peaks(machine, measured_machine(settings["threads"]))
    return {"machine": machine, "systems": {name: _figures(*pair) for name, pair in found.items()}}


def _figures(work: Work, outcome: dict[str, Any]) -> Figures:
    real = work.real_tokens / work.padded_tokens if work.padded_tokens else None
    return asdict(work) | {"tokens_per_second": work.tokens_per_second, "real_share": real} | outcome


def ratio_of(figures: Figures, theirs: str = "peer") -> float:
    """Our fastest precision's tokens a second over the peer's (`peer`, or the fastest of `peer_best_`)."""
    speeds = {name: system["tokens_per_second"] for name, system in figures["systems"].items()}
    ours = max(speed for name, speed in speeds.items() if name.startswith("ours_"))
    return ours / max(speed for name, speed in speeds.items() if _is(name, theirs))


def _is(name: str, system: str) -> bool:
    """Whether a system's name is this one; a trailing underscore stands for any precision."""
    return name.startswith(system) if system.endswith("_") else name == system


def summary(
    cells: list[tuple[Settings, Figures]],
    claim: str,
    peer: dict[str, str],
    target: float,
    target_best: float,
    roofline_seconds: Callable[[Figures, str], float],
) -> dict[str, Any]:
    """The result of all cells, in the form of BENCHMARKS.md.

    Args:
        peer: its name, version and settings.
        target: the ratio to the peer's defaults that makes the claim hold.
        target_best: the ratio to its best settings.
        roofline_seconds: the least seconds of our epoch in a cell at a precision.
    """
    every = [figures for _, figures in cells]
    fastest = _fastest(every, "ours_")
    best = _fastest(every, "peer_best_")
    ratios = [ratio_of(figures) for figures in every]
    ratios_best = [ratio_of(figures, theirs="peer_best_") for figures in every]
    losses = {name: [f["systems"][name]["loss"] for f in every] for name in ("peer", best, fastest)}
    against = {"peer": no_worse(losses[fastest], losses["peer"]), "peer_best": no_worse(losses[fastest], losses[best])}
    precision = fastest.removeprefix("ours_")
    equal = all(test["no_worse"] for test in against.values())
    return {
        "claim": claim,
        "ours": _of_system(every, fastest) | {"precision": precision},
        "peer": peer | _of_system(every, "peer"),
        "peer_best": _of_system(every, best) | {"precision": best.removeprefix("peer_best_")},
        "ratio": median(ratios),
        "ratio_best": median(ratios_best),
        "fraction_of_roofline": median(
            roofline_seconds(f, precision) / f["systems"][fastest]["seconds"] for f in every
        ),
        "by_precision": _by_precision(every, roofline_seconds),
        "losses": {"peer": losses["peer"], "peer_best": losses[best], "ours": losses[fastest], "ours_minus": against},
        "peak_bytes": {
            "peer": _peak(every, "peer"),
            "peer_best": _peak(every, best),
            "ours": _peak(every, fastest),
        },
        "machine": every[-1]["machine"],
        "seeds": [settings["seed"] for settings, _ in cells],
        "runs": {"ratio": spread(ratios), "ratio_best": spread(ratios_best)},
        "targets": {"ratio": target, "ratio_best": target_best},
        "holds": median(ratios) >= target and median(ratios_best) >= target_best and equal,
    }


def _fastest(every: Sequence[Figures], prefix: str) -> str:
    """The name of the system that is fastest over all cells."""
    names = [name for name in every[0]["systems"] if name.startswith(prefix)]
    return max(names, key=lambda name: fmean(f["systems"][name]["tokens_per_second"] for f in every))


def _of_system(every: Sequence[Figures], name: str) -> dict[str, Any]:
    runs = [f["systems"][name] for f in every]
    metrics = runs[0]["metrics"]
    return {
        "tokens_per_second": spread([run["tokens_per_second"] for run in runs]),
        "epoch_seconds": spread([run["seconds"] for run in runs]),
        "cpu_seconds": spread([run["cpu_seconds"] for run in runs]),
        "real_share": median(run["real_share"] for run in runs),
        "updates": runs[0]["updates"],
        "loss": spread([run["loss"] for run in runs]),
        "metrics": {metric: spread([run["metrics"][metric] for run in runs]) for metric in metrics},
        "versions": runs[0]["versions"],
    }


def _by_precision(every: Sequence[Figures], roofline_seconds: Callable[[Figures, str], float]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for precision in ("fp32", "bf16"):
        ours, theirs = f"ours_{precision}", f"peer_best_{precision}"
        if ours in every[0]["systems"]:
            speeds = {
                key: median(f["systems"][name]["tokens_per_second"] for f in every)
                for key, name in (("ours", ours), ("peer_best", theirs))
            }
            fraction = median(roofline_seconds(f, precision) / f["systems"][ours]["seconds"] for f in every)
            rows[precision] = speeds | {
                "ratio_best": speeds["ours"] / speeds["peer_best"],
                "fraction_of_roofline": fraction,
            }
        else:
            peaks = every[-1]["machine"]["peak_gflops"]
            rows[precision] = {"skipped": f"matrix products reach {peaks[precision]:g} GFLOP/s, fp32 {peaks['fp32']:g}"}
    return rows


def _peak(every: Sequence[Figures], name: str) -> int:
    return max(f["systems"][name]["peak_bytes"] for f in every)


def packaged_rows(name: str, seed: int) -> list[dict[str, Any]]:
    """A packaged data set, shuffled by seed."""
    from thriftune.collect.packaged import write_packaged

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.jsonl"
        write_packaged(name, path)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    random.Random(seed).shuffle(rows)
    return rows


def train_with(trainer: Any, baton: Baton) -> None:
    """Run a Transformers trainer with the baton's clock over its loop: from its first batch to its last update."""
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            baton.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            baton.updates(1, seen["real"], seen["padded"])
            seen.update(real=0, padded=0)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            baton.end()

    seen = {"real": 0, "padded": 0}
    collate = trainer.data_collator

    def counting(rows: Any) -> Any:
        batch = collate(rows)
        seen["real"] += int(batch["attention_mask"].sum())
        seen["padded"] += batch["attention_mask"].numel()
        return batch

    trainer.data_collator = counting
    trainer.add_callback(Turns())
    trainer.train()


def f1_macro(answers: Sequence[str], rows: Sequence[dict[str, Any]]) -> float:
    """Macro F1 of answers to rows."""
    from sklearn.metrics import f1_score

    return float(f1_score([row["label"] for row in rows], list(answers), average="macro", zero_division=0))


def train_ours(
    baton: Baton,
    task: Any,
    train: Any,
    recipe: Any,
    precision: str,
    caches_of: Callable[[Any], dict[int, Any]] | None = None,
) -> Any:
    """Thriftune's own loop over encoded rows, without budget and so without governor; returns the trained model.

    Its events go to a database on disk as in a run. The one validation that the loop makes at its end is outside the
    clock, and looks at one row.

    Args:
        caches_of: makes the model's prefix caches by depth, inside the clock; None trains without any.
    """
    import torch

    from thriftune.budget.decisions import Decisions
    from thriftune.clock import SystemClock
    from thriftune.events import EventLog, open_attempt
    from thriftune.store import open_store
    from thriftune.tasks.base import Encoded
    from thriftune.train.costs import Costs
    from thriftune.train.loop import Loop
    from thriftune.train.machine import Machine
    from thriftune.train.supervision import Supervision

    end = int(train.offsets[1])
    labels = train.labels[:end] if len(train.labels) == len(train.tokens) else train.labels[:1]
    one_row = Encoded(train.tokens[:end], train.offsets[:2], labels, train.weights[:1])
    with tempfile.TemporaryDirectory() as folder:
        store, clock = open_store(f"sqlite:///{folder}/bench.db"), SystemClock()
        events = EventLog(store, clock, "bench", open_attempt(store, clock, "bench", "bench").attempt)
        done = {"step": 0, "real": 0, "padded": 0}

        def after_block() -> bool:
            baton.updates(loop.step - done["step"], loop.real - done["real"], loop.padded - done["padded"])
            done.update(step=loop.step, real=loop.real, padded=loop.padded)
            if loop.step == loop.full_steps:
                baton.end()
            return False

        watch = Supervision(
            decisions=Decisions(events),
            events=events,
            meter=None,
            governor=None,
            checkpoints=Path(folder) / "checkpoints",
            checkpoint_seconds=float("inf"),
            interrupted=after_block,
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        how = Machine(device=device, precision=precision, threads=torch.get_num_threads())
        loop = Loop(task, task.build(), train, one_row, recipe, how, watch)
        baton.begin()
        loop.kept = caches_of(loop.model) if caches_of else {}
        loop.run(loop.full_steps + 1, Costs(SLOW, 0.0, 0.0, 0.0))
        events.close()
        store.close()
    return loop.model


def matched_rate(rate: float, rows: int, batch_rows: int) -> float:
    """The peak rate with which our updates' rates sum to what a trainer's do.

    Under a linear decay the Trainer takes the rate at an update's beginning, our loop at its middle: half an update
    less each, which tells when there are few updates.
    """
    updates = -(-rows // batch_rows)
    return rate * (updates + 1) / updates


def versions() -> dict[str, str]:
    """Of the libraries that matter."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "accelerate", "trl", "peft")}
