"""Runs of fixed work, planned before by `thriftune plan` and measured after from outside: is the forecast right?

Each cell is one setting of model, method, length and data. Its store of durations is a copy of one that
`CALIBRATIONS` runs of other settings filled: no scored model or length is in it, and no scored run calibrates another.
The project is planned in one folder and run in a fresh one; its limits are so wide that nothing is cut. What is held
against each other is the whole run, from the process's start to its exit, and the most memory of it and its children.
Further cells are governed runs that lose a core half-way to another process: they must land all the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import governor
import harness
from harness import BENCH, Benchmark, Figures, Settings, say
from machine import measured_machine
from made_models import TURNS, WORDS, made_model
from outside import core_eaten_after, watch
from rows import events
from training import packaged_rows

SEED = 9
STATE = BENCH / "state" / "forecast"  # made models, and the store that the calibrating runs filled
COMMAND = governor.COMMAND
CALIBRATIONS = 21  # from 19 on the store's own quantiles are used
MISS_90 = 0.10
WIDEST, TIME_ERROR, MEMORY_ERROR = 0.25, 0.10, 0.10
ALONE_CORES = 0.1  # that others may use meanwhile: a small decoder takes ten times as long beside a busy neighbour
RANGE_LEVEL = 0.95  # of the binomial range in which the coverage must lie
DISTURBED = ((60.0, "time"), (60.0, "money"), (80.0, "time"), (80.0, "money"), (110.0, "time"), (110.0, "money"))
FURTHER = (
    "coverage_90",
    "coverage_50",
    "interval_score",
    "median_half_width_90",
    "median_time_error",
    "median_memory_error",
    "signed_error",
)
PROJECT = """name: fixed
objective: {{task: {task}}}
data:
  - {{file: rows.jsonl, {columns}}}
budget: {{total: 1000}}
deadline: 24h
compute: {{price_per_hour: 1}}
models: {model}
evaluate: {{generate_rows: 10, held_out_in_turn: 0}}
train:
  method: {method}
  epochs: {epochs}
  max_tokens: {max_tokens}
  freeze_layers: {frozen}
  patience: 1000
"""

# Sentences that the whole of training passes over, by model and method: some seconds of work on two cores.
WORK = {"minilm": 500, "made": 1500, "smollm2": 60, "made_decoder": 200}
EASIER = {"full": 1.0, "lora": 1.0, "prefix": 1.6, "head": 2.5}


def cells(quick: bool) -> list[Settings]:
    """Sixty-two fixed settings, and six governed runs that are disturbed."""
    draw = random.Random(SEED)
    found: list[Settings] = []
    for count, family, sizes in (
        (20, "minilm", ((384, 6),)),
        (9, "distilbert", ((128, 4), (256, 4))),
        (9, "roberta", ((128, 6), (256, 4))),
        (8, "electra", ((128, 6), (192, 6))),
    ):
        methods = ("full", "lora", "prefix", "head") * 5
        for number in range(count):
            found.append(_encoder(draw, family, sizes[number % len(sizes)], methods[number]))
    for count, family, sizes in (
        (6, "smollm2", ((576, 30),)),
        (5, "llama", ((128, 4), (256, 4))),
        (5, "qwen2", ((128, 4), (192, 6))),
    ):
        methods = ("lora", "full", "lora", "prefix", "lora", "lora")
        for number in range(count):
            found.append(_decoder(draw, family, sizes[number % len(sizes)], methods[number]))
    fixed = [{"kind": "fixed", "number": n} | settings for n, settings in enumerate(found)]
    disturbed: list[Settings] = [
        {"kind": "disturbed", "number": n, "limit_s": limit, "bound_by": bound_by, "rows": governor.ROWS}
        for n, (limit, bound_by) in enumerate(DISTURBED)
    ]
    if quick:
        return [fixed[n] for n in (0, 3, 21, 54)] + disturbed[:1]
    draw.shuffle(fixed)
    return fixed + disturbed


def calibrating() -> list[Settings]:
    """The settings that fill the store: other families and lengths than those that are scored."""
    draw = random.Random(SEED + 1)
    families = (("bert", (192, 4)), ("mpnet", (128, 4)), ("mistral", (128, 4)))
    found = []
    for number in range(CALIBRATIONS):
        family, size = families[number % 3]
        method = ("full", "lora", "prefix", "head")[number // 3 % 4]
        if family == "mistral":
            found.append(_decoder(draw, family, size, "lora" if number // 3 % 2 else "full"))
        else:
            found.append(_encoder(draw, family, size, method))
        found[-1]["max_tokens"] += 8  # no scored length is among them
    return found


def _encoder(draw: random.Random, family: str, size: tuple[int, int], method: str) -> Settings:
    """Texts of one, two or four sentences of one label, and as many passes over as few of them as the work asks."""
    joined, epochs = draw.choice((1, 2, 4)), draw.choice((1, 2, 3))
    work = WORK["minilm" if family == "minilm" else "made"] * EASIER[method] * draw.uniform(0.7, 2.0)
    rows = max(160, round(work / epochs / joined))
    data = draw.choice(("movie", "amazon", "nyt", "kinds"))
    longest = draw.choice((16, 24, 32)) * joined
    return {
        "task": "classify",
        "family": family,
        "width": size[0],
        "layers": size[1],
        "method": method,
        "frozen": 2 * size[1] // 3 if method == "prefix" else 0,
        "data": data,
        "joined": joined,
        "rows": min(rows, 2400 // joined),
        "epochs": epochs,
        "max_tokens": longest,
    }


def _decoder(draw: random.Random, family: str, size: tuple[int, int], method: str) -> Settings:
    epochs = draw.choice((1, 2))
    work = WORK["smollm2" if family == "smollm2" else "made_decoder"] * draw.uniform(1.0, 2.5)
    return {
        "task": "chat",
        "family": family,
        "width": size[0],
        "layers": size[1],
        "method": "lora" if method == "prefix" else method,
        "frozen": 2 * size[1] // 3 if method == "prefix" else 0,
        "data": draw.choice(("support", "definitions")),
        "joined": 1,
        "rows": max(120, round(work / epochs)),
        "epochs": epochs,
        "max_tokens": draw.choice((48, 64, 96)),
    }


def run(settings: Settings) -> Figures:
    """Runs of fixed work, planned by `thriftune plan` and measured from outside; governed ones under a disturbance."""
    if settings["kind"] == "disturbed":
        return disturbed(settings)
    store = calibrated()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        home = folder / "home"
        home.mkdir()
        shutil.copy(store / "record.json", home / "record.json")
        environment = {"THRIFTUNE_HOME": str(home)}
        planned = write_project(folder / "planned", settings)
        plan = watch([*COMMAND, "plan", "--json"], planned, environment)
        _ended(plan, "plan")
        begun = write_project(folder / "begun", settings)
        seen = watch([*COMMAND, "run", "--json"], begun, environment)
        _ended(seen, "run")
        figures = {
            "time_s": seen.seconds,
            "memory_bytes": seen.peak_bytes,
            "plan_s": plan.seconds,
            "others_cores": max(plan.others_cores, seen.others_cores),
            "plan": foretold(planned),
            "own": foretold(begun),
            "parts": by_part(begun),
        }
    say(
        f"forecast: {settings['family']} {settings['method']}: {seen.seconds:.1f} s, foretold"
        f" {_told(figures['plan']['time_s'], 1)}; {seen.peak_bytes / 1e9:.2f} GB, foretold"
        f" {_told(figures['plan']['memory_bytes'], 1e9)}"
    )
    return figures


def calibrated() -> Path:
    """The store of durations that runs of other settings filled, made on the first call with this code."""
    told = json.dumps(calibrating()) + harness.code_hash("")
    store = STATE / hashlib.blake2b(told.encode(), digest_size=6).hexdigest()
    done = store / "done"
    seen = len(done.read_text().split()) if done.exists() else 0
    for number, settings in list(enumerate(calibrating()))[seen:]:
        say(f"forecast: calibrating run {number + 1} of {CALIBRATIONS}: {harness.brief(settings)}")
        with tempfile.TemporaryDirectory() as place:
            folder = write_project(Path(place) / "project", settings)
            seen = watch([*COMMAND, "run", "--json"], folder, {"THRIFTUNE_HOME": str(store)})
            _ended(seen, "calibrating run")
            if seen.others_cores > ALONE_CORES:
                shutil.rmtree(store)
                raise SystemExit(
                    f"forecast: others used {seen.others_cores:.2f} of a core during a calibrating run, where at most"
                    f" {ALONE_CORES} may be: the store is dropped, run it again alone"
                )
        with done.open("a") as file:
            file.write(f"{number}\n")
    return store


def write_project(folder: Path, settings: Settings) -> Path:
    """A fresh project of these settings."""
    folder.mkdir(parents=True)
    columns = {"classify": "text: text, label: label", "chat": "prompt: prompt, completion: completion"}
    task = settings["task"]
    lines = drawn(settings)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    text = PROJECT.format(
        columns=columns[task],
        model=model_of(settings),
        **{name: settings[name] for name in ("task", "epochs", "max_tokens", "frozen")},
        method="full" if settings["method"] == "prefix" else settings["method"],
    )
    (folder / "thriftune.yaml").write_text(text, encoding="utf-8")
    return folder


def drawn(settings: Settings) -> list[dict[str, str]]:
    """The rows: sentences of one label put together to longer texts, or pairs as they are."""
    rows = packaged_rows(settings["data"], SEED)
    if settings["task"] == "chat":
        return [{key: row[key] for key in ("prompt", "completion")} for row in rows[: settings["rows"]]]
    counts: dict[str, list[str]] = {}
    for row in rows:
        counts.setdefault(row["label"], []).append(row["text"])
    joined = settings["joined"]
    texts = [
        {"text": " ".join(texts[n : n + joined]), "label": label}
        for label, texts in counts.items()
        if len(texts) >= 40 * joined
        for n in range(0, len(texts) - joined + 1, joined)
    ]
    random.Random(SEED).shuffle(texts)
    return texts[: settings["rows"]]


def model_of(settings: Settings) -> str:
    """The model's reference; those with random weights are made on the first call."""
    known = {"minilm": WORDS, "smollm2": TURNS}
    if settings["family"] in known:
        return known[settings["family"]]
    STATE.mkdir(parents=True, exist_ok=True)
    return str(made_model(STATE, settings["family"], settings["width"], settings["layers"]))


def foretold(folder: Path) -> dict[str, list[float]]:
    """The first forecast of the whole run's seconds, and of the most memory of its phases: quantiles as in `LEVELS`."""
    found: dict[tuple[str, str], list[float]] = {}
    for event in events(folder)["forecast"]:
        quantiles = [event[name] for name in ("p5", "p25", "p50", "p75", "p95")]
        found.setdefault((event["phase"], event["quantity"]), quantiles)
    memory = [quantiles for (_, quantity), quantiles in found.items() if quantity == "memory_bytes"]
    return {"time_s": found["total", "time_s"], "memory_bytes": [max(column) for column in zip(*memory, strict=True)]}


def by_part(folder: Path) -> dict[str, list[float]]:
    """Of each part, the last forecast before it began and what it took, seconds: where a miss came from."""
    told = events(folder)
    ahead = {part["what"]: part["p50"] for plan in told["plan.made"] for part in plan["parts"]}
    took: dict[str, float] = {}
    for event in told["stage.finished"]:
        if not event.get("key") or event["stage"] == "train":
            took[event["stage"]] = took.get(event["stage"], 0.0) + event["seconds"]
    return {what: [ahead[what], seconds] for what, seconds in took.items() if what in ahead}


def disturbed(settings: Settings) -> Figures:
    """A governed run, while from the middle of its limit on another process eats a core."""
    governor.calibrate(settings["rows"])
    with core_eaten_after(settings["limit_s"] / 2):
        return governor.observe(settings["bound_by"], settings["limit_s"], settings["rows"])


def _ended(seen: Any, what: str) -> None:
    if seen.exit:
        raise RuntimeError(f"{what} ended with {seen.exit}: {seen.said}")


def _told(quantiles: Sequence[float], unit: float) -> str:
    return "{2:.2f} ({0:.2f} to {4:.2f})".format(*(q / unit for q in quantiles))


def scores(runs: Sequence[Figures], source: str, quantity: str) -> dict[str, float]:
    """How right the forecasts of a quantity were.

    Args:
        source: `plan`, or `own` for the first one of the run itself, which is made after its probe.

    Returns:
        coverage_90, coverage_50; median_error (of the median, absolute, relative to what came); signed_error (the
        median of foretold over actual, less 1); median_half_width_90 (relative to the median foretold);
        interval_score (Gneiting and Raftery, JASA 2007, equation 43, of the 90 % interval, relative to what came).
    """
    pairs = [(run[source][quantity], run[quantity]) for run in runs]
    return {
        "coverage_90": fmean(q[0] <= y <= q[4] for q, y in pairs),
        "coverage_50": fmean(q[1] <= y <= q[3] for q, y in pairs),
        "median_error": median(abs(q[2] - y) / y for q, y in pairs),
        "signed_error": median(q[2] / y - 1 for q, y in pairs),
        "median_half_width_90": median((q[4] - q[0]) / 2 / q[2] for q, _ in pairs),
        "interval_score": fmean(interval_score(q[0], q[4], y) / y for q, y in pairs),
    }


def interval_score(low: float, high: float, value: float) -> float:
    """The width of a 90 % interval and what a miss of it costs."""
    return high - low + 2 / MISS_90 * (max(0.0, low - value) + max(0.0, value - high))


def binomial_range(count: int, share: float) -> list[float]:
    """The shares of `count` draws within which a true share lies at `RANGE_LEVEL`."""
    from scipy.stats import binom

    low, high = binom.interval(RANGE_LEVEL, count, share)
    return [float(low) / count, float(high) / count]


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    fixed = [settings | figures for settings, figures in found if settings["kind"] == "fixed"]
    governed = [settings | figures for settings, figures in found if settings["kind"] == "disturbed"]
    time, memory = scores(fixed, "plan", "time_s"), scores(fixed, "plan", "memory_bytes")
    expected = {"coverage_90": binomial_range(len(fixed), 0.9), "coverage_50": binomial_range(len(fixed), 0.5)}
    not_alone = sum(run["others_cores"] > ALONE_CORES for run in fixed)
    landed = [r["exit"] == 0 and r["outer_s"] <= r["deadline_s"] and r["outer_money"] <= r["budget"] for r in governed]
    refused = [r["exit"] == 3 for r in governed]
    holds = (
        time["coverage_90"] >= expected["coverage_90"][0]
        and time["median_half_width_90"] <= WIDEST
        and time["median_error"] <= TIME_ERROR
        and memory["median_error"] <= MEMORY_ERROR
        and all(landed)
        and not not_alone
    )
    return {
        "claim": f"Of runs of fixed work on models and lengths that its store has not seen, `thriftune plan` foretells"
        f" the time within {TIME_ERROR:.0%} and the peak memory within {MEMORY_ERROR:.0%} at the median, in 90 %"
        f" intervals that hold nine of ten and are at most ±{WIDEST:.0%} wide at the median; governed runs that lose a"
        " core half-way land in budget and deadline.",
        "ours": {"name": "thriftune plan", "time": time, "memory": memory},
        "peer": {"name": "none", "version": "", "why": "no tool that we know states intervals before it trains"},
        "ratio": TIME_ERROR / max(time["median_error"], 1e-9),
        "coverage_90": time["coverage_90"],
        "coverage_50": time["coverage_50"],
        "interval_score": time["interval_score"],
        "median_half_width_90": time["median_half_width_90"],
        "median_time_error": time["median_error"],
        "median_memory_error": memory["median_error"],
        "signed_error": time["signed_error"],
        "expected_by_chance": expected,
        "after_the_probe": {"time": scores(fixed, "own", "time_s"), "memory": scores(fixed, "own", "memory_bytes")},
        "by_family": {
            family: scores([run for run in fixed if run["family"] == family], "plan", "time_s")
            for family in sorted({run["family"] for run in fixed})
        },
        "disturbed": {"runs": governed, "landed": sum(landed), "refused": sum(refused), "of": len(governed)},
        "machine": measured_machine(len(os.sched_getaffinity(0))),
        "not_alone": not_alone,
        "seeds": [SEED],
        "runs": fixed,
        "holds": bool(holds),
    }


def figure(figures: Figures) -> float:
    """Seconds of the run."""
    return float(figures.get("time_s", figures.get("outer_s", math.nan)))


BENCHMARK = Benchmark("forecast", cells, run, summarise, figure, FURTHER, tolerance=0.25)

if __name__ == "__main__":
    harness.main(BENCHMARK)
