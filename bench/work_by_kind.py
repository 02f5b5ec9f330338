"""Where an update's time goes, by kind of work: `classify`'s systems under PyTorch's profiler.

Same rows, settings and turns as `bench/classify.py`, over fewer updates. The time of an operator is its own, without
those that it calls; what no operator took (Python, waiting, the profiler itself) is shown too. Profiling costs some
time of its own, more where there are many small operators, so that speeds are for `classify` to say.
"""

from __future__ import annotations

import os
from collections import Counter
from statistics import median
from typing import Any

import classify
import harness
from alternation import Baton, Work, alternate
from harness import Benchmark, Figures, Settings, say, spread
from machine import better_peaks, measured_machine
from training import Systems

SEEDS = (1, 2, 3)
TARGET = 2.0
FURTHER = ("by_kind",)

BETWEEN = "between operators"
THE_REST = "other element-wise work"
PRODUCTS, ATTENTION = "matrix products", "attention"
# The first kind with a mark that is in an operator's name has it.
KINDS = (
    (ATTENTION, ("attention", "softmax")),
    (PRODUCTS, ("addmm", "aten::mm", "bmm", "mkldnn", "onednn", "linear", "matmul")),
    ("dropout", ("dropout", "bernoulli", "random_", "Dropout")),
    ("GELU", ("gelu",)),
    ("layer norms", ("layer_norm", "LayerNorm")),
    ("optimizer and clipping", ("adam", "_foreach_", "norm", "Optimizer")),
    ("embeddings", ("embedding", "index_select", "index_add")),
    ("casts and copies", ("copy", "_to", "contiguous", "clone", "cat")),
    ("memory taken", ("empty", "zero", "fill", "new_", "resize")),
)  # fmt: skip


def kind_of(operator: str) -> str:
    """The kind of work that an operator of PyTorch does, by its name."""
    return next((kind for kind, marks in KINDS if any(mark in operator for mark in marks)), THE_REST)


def cells(quick: bool) -> list[Settings]:
    """One cell a seed."""
    threads = len(os.sched_getaffinity(0))
    size = {"rows": 64, "held_out": 16} if quick else {"rows": 960, "held_out": 64}
    seeds = SEEDS[:1] if quick else SEEDS
    return [size | {"seed": seed, "updates_per_block": 1 if quick else 5, "threads": threads} for seed in seeds]


def run(settings: Settings) -> Figures:
    """MiniLM, full fine-tuning, by kind of work: Thriftune against the Transformers Trainer."""
    say("measuring the machine")
    machine = measured_machine(settings["threads"])
    precisions = ["fp32"]
    if machine["peak_gflops"]["bf16"] > machine["peak_gflops"]["fp32"]:
        precisions.append("bf16")
    systems: Systems = {}
    for precision in precisions:
        given = settings | {"precision": precision}
        systems[f"peer_{precision}"] = (profiled, given | {"system": "peer", "best": False})
        systems[f"peer_best_{precision}"] = (profiled, given | {"system": "peer", "best": True})
        systems[f"ours_{precision}"] = (profiled, given | {"system": "ours"})
    found = alternate(systems, settings["updates_per_block"], settings["threads"], say)
    machine = better_peaks(machine, measured_machine(settings["threads"]))
    return {"machine": machine, "systems": {name: _figures(*pair) for name, pair in found.items()}}


class ProfilingBaton:
    """A side's baton that profiles what is done between its beginning and its end."""

    def __init__(self, baton: Baton) -> None:
        import torch

        self._baton = baton
        self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    def begin(self) -> None:
        """See `Baton.begin`."""
        self._baton.begin()
        self._profiler.start()

    def updates(self, count: int, real_tokens: int, padded_tokens: int) -> None:
        """See `Baton.updates`."""
        self._baton.updates(count, real_tokens, padded_tokens)

    def end(self) -> None:
        """See `Baton.end`."""
        self._baton.end()
        self._profiler.stop()

    def seconds_by_operator(self) -> dict[str, float]:
        """Of all threads that called operators, which take turns on a CPU."""
        return {event.key: event.self_cpu_time_total / 1e6 for event in self._profiler.key_averages()}


def profiled(baton: Baton, settings: Settings) -> Figures:
    """One of `classify`'s sides under the profiler."""
    from torch.profiler import record_function

    from thriftune.models import dropout

    draw = dropout._mask

    def named(*of: Any) -> Any:
        with record_function("dropout"):  # NumPy draws the numbers, unseen by the profiler
            return draw(*of)

    dropout._mask = named
    watched: Any = ProfilingBaton(baton)
    side = {"peer": classify.run_peer, "ours": classify.run_ours}[settings["system"]]
    outcome = side(watched, settings)
    return {"operators": watched.seconds_by_operator(), "loss": outcome["loss"], "versions": outcome["versions"]}


def _figures(work: Work, outcome: dict[str, Any]) -> Figures:
    """Microseconds a real token, by kind."""
    seconds: Counter[str] = Counter()
    for operator, taken in outcome["operators"].items():
        seconds[kind_of(operator)] += taken
    seconds[BETWEEN] = max(0.0, work.seconds - seconds.total())
    by_kind = {kind: 1e6 * taken / work.real_tokens for kind, taken in seconds.most_common()}
    most = sorted(outcome["operators"].items(), key=lambda pair: -pair[1])[:25]
    return {
        "microseconds_per_token": by_kind,
        "real_share": work.real_tokens / work.padded_tokens,
        "seconds": work.seconds,
        "updates": work.updates,
        "loss": outcome["loss"],
        "versions": outcome["versions"],
        "largest_operators": {operator: 1e6 * taken / work.real_tokens for operator, taken in most},
    }


def besides(by_kind: dict[str, float]) -> float:
    """Microseconds a token that are neither matrix products nor attention."""
    return sum(taken for kind, taken in by_kind.items() if kind not in (PRODUCTS, ATTENTION))


def ratio_of(figures: Figures) -> float:
    """Of the peer's time besides products at its best settings over ours, in the precision that is quickest for us."""
    precision = quickest(figures)
    theirs = figures["systems"][f"peer_best_{precision}"]["microseconds_per_token"]
    return besides(theirs) / besides(figures["systems"][f"ours_{precision}"]["microseconds_per_token"])


def quickest(figures: Figures) -> str:
    """The precision in which our updates take least."""
    totals = {
        name.removeprefix("ours_"): sum(system["microseconds_per_token"].values())
        for name, system in figures["systems"].items()
        if name.startswith("ours_")
    }
    return min(totals, key=totals.__getitem__)


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    every = [figures for _, figures in found]
    names = list(every[0]["systems"])
    by_kind = {name: _medians([figures["systems"][name] for figures in every]) for name in names}
    precision = quickest(every[0])
    ratios = [ratio_of(figures) for figures in every]
    return {
        "claim": (
            f"Besides matrix products and attention, an update of MiniLM takes the Transformers Trainer at its best"
            f" settings at least {TARGET:g} times as long a token as Thriftune."
        ),
        "ours": {"precision": precision} | by_kind[f"ours_{precision}"],
        "peer": {"name": "transformers.Trainer", "version": every[0]["systems"][names[0]]["versions"]["transformers"]}
        | by_kind[f"peer_best_{precision}"],
        "ratio": median(ratios),
        "by_kind": by_kind,
        "machine": every[-1]["machine"],
        "seeds": [settings["seed"] for settings, _ in found],
        "runs": {"ratio": spread(ratios)},
        "targets": {"ratio": TARGET},
        "holds": median(ratios) >= TARGET,
    }


def _medians(systems: list[Figures]) -> dict[str, float]:
    kinds = {kind for system in systems for kind in system["microseconds_per_token"]}
    medians = {kind: median(s["microseconds_per_token"].get(kind, 0.0) for s in systems) for kind in kinds}
    return dict(sorted(medians.items(), key=lambda pair: -pair[1]))


BENCHMARK = Benchmark("work_by_kind", cells, run, summarise, ratio_of, FURTHER)

if __name__ == "__main__":
    harness.main(BENCHMARK)
