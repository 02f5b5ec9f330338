"""Projects drawn from data × size × price × limits: did each land, and if not, why?

Money binds in half of them. A project has landed when, by an outside account, it ended inside both limits, with a
model within a point of the best known for that data and size on rows that it never had, with the right verdict, and
with a 90 % forecast of its time that held. The best known comes from longer runs of this very benchmark, several
recipes and seeds with all the time they want. They also say what the right verdict is: whether fine-tuning beats what
can be had without it (TF-IDF and the model as it came) on the held-out rows beyond chance. A fifth of the projects have
shuffled labels, from which nothing can be learnt. Every miss is explained by what the run's own report says.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import governor
import harness
from harness import BENCH, Benchmark, Figures, Settings, say
from machine import measured_machine
from outside import watch
from training import f1_macro, packaged_rows

sys.path.insert(0, str(BENCH / "systems"))

from tfidf import classify

SEED = 24
DATA = ("movie", "amazon", "nyt", "kinds", "shuffled")
SIZES = (400, 900, 1700)
PRICES = (0.4, 3.0, 20.0)  # an hour
SHORTEST, LONGEST = 50.0, 320.0  # seconds that the binding limit is drawn from, log-uniformly
SLACK = (1.3, 4.0)  # the other limit, times the binding one
HELD_OUT = 1000  # rows that no project sees
CLASSES = 40  # rows that a label has at the least
NEAR = 1.0  # points
TARGET = 0.90
CERTAIN = 1.96
RECIPES = (
    {},
    {"learning_rate": 5e-5},
    {"learning_rate": 2e-4},
    {"epochs": 8},
)
RECIPE_SEEDS = (1, 2)
AMPLE = {"budget": 1000.0, "deadline": 7200.0, "price": 1.0}
APART = governor.STATE / "best-known"  # the longer runs' own record of durations: no project plans by it
FURTHER = ("projects", "landed_share", "inside_share", "near_best_share", "verdict_share", "covered_share")
PARTS = ("inside", "near_best", "verdict", "covered")


def cells(quick: bool) -> list[Settings]:
    """Thirty projects, each data set with each size twice, the limits one from each thirtieth of their range; and the
    longer runs that they are held against.
    """
    draw = random.Random(SEED)
    pairs = [(data, rows) for data in DATA for rows in SIZES] * 2
    limits = [SHORTEST * (LONGEST / SHORTEST) ** ((n + draw.random()) / len(pairs)) for n in range(len(pairs))]
    draw.shuffle(limits)
    draw.shuffle(pairs)
    projects: list[Settings] = []
    for n, ((data, rows), limit) in enumerate(zip(pairs, limits, strict=True)):
        projects.append(
            {
                "project": n,
                "data": data,
                "rows": rows,
                "bound_by": "money" if n % 2 == 0 else "time",
                "limit_s": round(limit, 1),
                "other_s": round(limit * draw.uniform(*SLACK), 1),
                "price": draw.choice(PRICES),
                "seed": n,
            }
        )
    if quick:
        projects = [one | {"rows": SIZES[0], "limit_s": 90.0, "other_s": 200.0} for one in projects[:2]]
    longer: list[Settings] = []
    for data, rows in sorted({(one["data"], one["rows"]) for one in projects}, key=lambda pair: (pair[1], pair[0])):
        recipes = RECIPES[:1] if quick or data == "shuffled" else RECIPES  # none is best where nothing is learnt
        seeds = RECIPE_SEEDS[:1] if quick else RECIPE_SEEDS
        longer += [{"data": data, "rows": rows, "recipe": one, "seed": seed} for one in recipes for seed in seeds]
    return projects + longer


def rows_of(data: str, rows: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """A project's rows, and those that it never sees; the same for all projects of this data."""
    read = packaged_rows("movie" if data == "shuffled" else data, SEED)
    counts: dict[str, int] = {}
    for row in read:
        counts[row["label"]] = counts.get(row["label"], 0) + 1
    found = [{"text": row["text"], "label": row["label"]} for row in read if counts[row["label"]] >= CLASSES]
    if data == "shuffled":
        labels = [row["label"] for row in found]
        random.Random(SEED).shuffle(labels)
        found = [row | {"label": label} for row, label in zip(found, labels, strict=True)]
    return found[HELD_OUT : HELD_OUT + rows], found[:HELD_OUT]


def run(settings: Settings) -> Figures:
    """Projects drawn from data × size × price × limits: the share that landed, and why the others did not."""
    mine, held_out = rows_of(settings["data"], settings["rows"])
    if "project" not in settings:
        figures = project(mine, held_out, AMPLE, settings["seed"], settings["recipe"], APART)
        if figures["exit"]:
            raise RuntimeError(f"a longer run failed: {figures['message']}")
        say(f"landed: {settings['recipe'] or 'the defaults'}: {figures['quality']:.4f}")
        return figures
    governor.calibrate(max(SIZES))
    seconds = {settings["bound_by"]: settings["limit_s"]}
    other = settings["other_s"]
    budget = seconds.get("money", other) * settings["price"] / 3600
    limits = {"budget": budget, "deadline": seconds.get("time", other), "price": settings["price"]}
    return project(mine, held_out, limits, settings["seed"], {}, governor.STATE)


def project(
    mine: Sequence[dict[str, str]],
    held_out: Sequence[dict[str, str]],
    limits: dict[str, float],
    seed: int,
    recipe: dict[str, Any],
    home: Path,
) -> Figures:
    """One `thriftune run` of a fresh project, seen from outside, and what its report says."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine), encoding="utf-8")
        text = governor.PROJECT.format(**limits) + f"seed: {seed}\n"
        if limits == AMPLE:
            text += "evaluate: {held_out_in_turn: 0}\n"  # a longer run is judged here, by rows that it never saw
        if recipe:
            text += "train: {" + ", ".join(f"{key}: {value}" for key, value in recipe.items()) + "}\n"
        (folder / "thriftune.yaml").write_text(text)
        environment = {"THRIFTUNE_HOME": str(home)}
        seen = watch([*governor.COMMAND, "run"], folder, environment)
        report = watch([*governor.COMMAND, "report", "--json"], folder, environment)
        told = json.loads(report.out) if report.exit == 0 else {}
        answers = answers_apart(folder, held_out) if seen.exit == 0 else []
        without = {}
        if limits == AMPLE and answers:
            tfidf = classify(mine, [row["text"] for row in held_out])
            given = {"tfidf": tfidf, "untuned": answers_apart(folder, held_out, "untuned")}
            without = {name: right(those, held_out) for name, those in given.items()}
    return {
        **limits,
        "exit": seen.exit,
        "outer_s": seen.seconds,
        "outer_money": seen.seconds * limits["price"] / 3600,
        "others_cores": seen.others_cores,
        "quality": f1_macro(answers, held_out) if answers else None,
        "right": right(answers, held_out) if answers else "",
        "without": without,
        "report": short(told),
        "message": seen.said[-400:] if seen.exit else "",
    }


def answers_apart(folder: Path, held_out: Sequence[dict[str, str]], what: str = "predict") -> list[str]:
    """What the model that a run ended with, or with `untuned` began with, answers to rows that it did not have."""
    ended = [sys.executable, str(BENCH / "systems" / "ours.py"), what, str(folder)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in held_out))
    seen = watch(ended, folder)
    if seen.exit:
        raise RuntimeError(f"the model does not answer: {seen.said}")
    return [json.loads(line)["answer"] for line in (folder / "answers.jsonl").read_text().splitlines()]


def right(answers: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    """A 1 for each row that was answered rightly, a 0 for the others."""
    return "".join("01"[answer == row["label"]] for answer, row in zip(answers, rows, strict=True))


def short(told: dict[str, Any]) -> dict[str, Any]:
    """What a report says that a miss can be explained by."""
    if not told:
        return {}
    steps = [decision for decision in told["decisions"] if decision["what"] in ("planned_steps", "ending")]
    return {
        "decision": told["verdict"]["decision"],
        "reasons": told["verdict"]["reasons"],
        "stopped": governor.stopped(told),
        "steps": [decision["because"] for decision in steps],
        "breaches": told["breaches"],
        "forecast": {
            phase: {name: quantities["time_s"].get(name) for name in ("p5", "p50", "p95", "actual", "basis")}
            for phase, quantities in told["forecast"].items()
            if "time_s" in quantities
        },
        "test_rows": (told["tuned"] or {}).get("rows"),
    }


def judge(figures: Figures, best: dict[str, Any]) -> dict[str, Any]:
    """Whether a project landed, by part, and why not."""
    report, why = figures["report"], []
    if figures["exit"]:
        return dict.fromkeys(PARTS, False) | {"landed": False, "why": [_refusal(figures)]}
    late = figures["outer_s"] - figures["deadline"]
    dear = (figures["outer_money"] - figures["budget"]) * 3600 / figures["price"]
    inside = late <= 0 and dear <= 0
    if not inside:
        causes = ", ".join(str(breach.get("cause") or breach.get("what")) for breach in report["breaches"])
        why.append(f"over by {max(late, dear):.2f} s: {causes or 'no breach is reported'}")
    gap = 100 * (best["quality"] - figures["quality"])
    near = gap <= NEAR or best["helped"] == "no"
    if not near:
        cut = {"limit": "the limit cut it", "gain": "it ended for want of gain", "whole": "all its steps were done"}
        why.append(f"{gap:.1f} points below {best['recipe'] or 'the defaults'}: {cut[report['stopped']]}")
        why[-1] += f" ({report['steps'][-1]})" if report["steps"] else ""
    right = right_verdict(report["decision"], best["helped"])
    if not right:
        tested = f"{report['test_rows']} test rows" if report["test_rows"] else "the test rows"
        why.append(f"said {report['decision']} where it helped: {best['helped']}, by {tested}: {report['reasons'][:2]}")
    total = report["forecast"]["total"]
    covered = total["p5"] <= figures["outer_s"] <= total["p95"]
    if not covered:
        off = [
            f"{phase}: {q['p5']:.1f} to {q['p95']:.1f} s foretold ({q['basis']}), {q['actual']:.1f} s came"
            for phase, q in report["forecast"].items()
            if q["actual"] is not None and not q["p5"] <= q["actual"] <= q["p95"]
        ]
        why.append(f"the forecast missed {figures['outer_s']:.1f} s: {', '.join(off) or 'start-up and exit'}")
    parts = dict(zip(PARTS, (inside, near, right, covered), strict=True))
    return parts | {"landed": all(parts.values()), "why": why, "gap_points": gap}


def right_verdict(decision: str | None, helped: str) -> bool:
    """Whether a verdict is right, by the longer runs' account; where those cannot tell, any is."""
    return {"yes": decision == "ship", "no": decision != "ship"}.get(helped, True)


def _refusal(figures: Figures) -> str:
    named = governor.MINIMUM.search(figures["message"])
    given = f"{figures['budget']:.4f} and {figures['deadline']:.0f} s"
    if figures["exit"] == 3 and named:
        return f"refused: needs {named[1]} and {named[2]} s, was given {given}"
    return f"ended with {figures['exit']}: {figures['message']}"


def best_known(longer: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The recipe that was best over its seeds, of the longer runs on one data set and size, and whether it helped."""
    by_recipe: dict[str, list[Figures]] = {}
    for settings, figures in longer:
        by_recipe.setdefault(json.dumps(settings["recipe"]), []).append(figures)
    qualities = {recipe: fmean(one["quality"] for one in runs) for recipe, runs in by_recipe.items()}
    recipe = max(qualities, key=lambda one: qualities[one])
    settings = longer[0][0]
    _, held_out = rows_of(settings["data"], settings["rows"])
    found = {"quality": qualities[recipe], "recipe": json.loads(recipe), "tried": qualities}
    return found | helped_by(by_recipe[recipe], [row["label"] for row in held_out])


def helped_by(runs: Sequence[Figures], targets: Sequence[str]) -> Figures:
    """Whether fine-tuning beats what can be had without it on the held-out rows beyond chance: `yes`, `no` or
    `unclear`; and by how many points.

    Nothing is learnt from shuffled labels whatever chance says: where both guess, it is `no`.
    """
    tuned = [fmean(int(run["right"][n]) for run in runs) for n in range(len(targets))]
    points = {name: _points_over(tuned, answers) for name, answers in runs[0]["without"].items()}
    most = max(targets.count(label) for label in set(targets)) / len(targets)
    guesses = fmean(tuned) <= most + CERTAIN * math.sqrt(most * (1 - most) / len(targets))
    helped = "unclear"
    if guesses or any(high < 0 for _, _, high in points.values()):
        helped = "no"
    elif all(low > 0 for low, _, _ in points.values()):
        helped = "yes"
    return {"helped": helped, "points_over": points}


def _points_over(tuned: Sequence[float], other: str) -> tuple[float, float, float]:
    """By how many points the tuned models are right more often, between the bounds of its interval."""
    differences = [one - int(theirs) for one, theirs in zip(tuned, other, strict=True)]
    points, error = 100 * fmean(differences), 100 * stdev(differences) / math.sqrt(len(differences))
    return points - CERTAIN * error, points, points + CERTAIN * error


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    longer: dict[tuple[str, int], list[tuple[Settings, Figures]]] = {}
    for settings, figures in found:
        if "project" not in settings:
            longer.setdefault((settings["data"], settings["rows"]), []).append((settings, figures))
    best = {which: best_known(runs) for which, runs in longer.items()}
    projects = []
    for settings, figures in found:
        if "project" in settings:
            known = best[settings["data"], settings["rows"]]
            projects.append(settings | figures | {"best_known": known} | judge(figures, known))
    shares = {part: fmean(one[part] for one in projects) for part in PARTS}
    landed = fmean(one["landed"] for one in projects)
    explained = all(one["landed"] or (one["why"] and all(one["why"])) for one in projects)
    used = [max(p["outer_s"] / p["deadline"], p["outer_money"] / p["budget"]) for p in projects if p["exit"] == 0]
    return {
        "claim": f"Of projects drawn from data, size, price and limits, {TARGET:.0%} end inside budget and deadline"
        f" with a model within {NEAR:g} point of the best known, the right verdict and a forecast that held; every miss"
        " is explained.",
        "ours": {"name": "thriftune run", "landed": sum(one["landed"] for one in projects), "of": len(projects)},
        "peer": {"name": "none", "version": "", "why": "longer runs of our own are what it is held against"},
        "ratio": landed / TARGET,
        "landed_share": landed,
        **{f"{part}_share": share for part, share in shares.items()},
        "money_bound": sum(one["bound_by"] == "money" for one in projects),
        "refused": sum(one["exit"] == 3 for one in projects),
        "used_share": median(used) if used else None,
        "misses": {one["project"]: one["why"] for one in projects if not one["landed"]},
        "projects": projects,
        "machine": measured_machine(len(os.sched_getaffinity(0))),
        "seeds": [SEED],
        "runs": harness.spread([float(one["landed"]) for one in projects]),
        "holds": landed >= TARGET and explained,
    }


BENCHMARK = Benchmark(
    "landed", cells, run, summarise, lambda figures: float(figures["quality"] or 0), FURTHER, any_code=True
)

if __name__ == "__main__":
    harness.main(BENCHMARK)
