"""What the timeline says of a deadline, against what happens, over thousands of simulated projects.

A project has the phases of a run on one machine, one after the other, and in most cases people's work before and after
them, in working hours. The timeline (`timeline/schedule.py`) sees forecasts, made by the real record of durations from
earlier projects of the machine. Its deadline is drawn from a wide range, without a look at what will happen, so that
every chance comes up; asked at the start and again after two of its phases, it is scored against the end that came.

Worlds:
    as believed: phases of the machine are as alike slow as the timeline takes them to be, people as they stated.
    plausible: a factor a project, and Student's t in the logarithm for each phase; a person has a factor too.
    misspecified: what all phases share is twice as strong, tails are heavier, and everything takes a fifth longer than
        on the day of the record.
    misspecified, learnt: the same, with a record of such days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from harness import Figures, Settings
from simulated_world import log_uniform
from thriftune.budget.forecast import Forecast
from thriftune.budget.record import Record
from thriftune.plan.sampling import draws
from thriftune.timeline import schedule as timeline
from thriftune.timeline.calendars import WorkingTime
from thriftune.timeline.options import WorkingHours
from thriftune.timeline.phases import MACHINE
from thriftune.timeline.schedule import Phase, schedule

SEED = 11
PROJECTS, QUICK_PROJECTS = 11_500, 60
WORLDS = ("as believed", "plausible", "misspecified", "misspecified, learnt")
PROMISED = WORLDS[:2]  # in which the chance is to come true; of the others the result tells how far off it was
START = 1_764_061_200.0  # a Tuesday morning
HOUR = 3600.0
DRAWS = 600  # a timeline
BUFFER = 0.15
WORKING = WorkingTime(WorkingHours())
RUN = {"data": 1.0, "baselines": 0.5, "set-up": 0.3, "search": 6.0, "training": 8.0, "evaluation": 2.0}  # hours
PEOPLE = {"label": 6.0, "review": 3.0}
PEOPLE_SHARE = 0.6  # of projects that wait for people
PERSON_SPREAD = 0.5  # what they state, 95th percentile over the median
PAST = (5, 35)
BINS = tuple(round(0.05 + 0.1 * n, 2) for n in range(10))  # edges: the bin of 80 % is 75…85 %
ENOUGH = 1000
ASKED_AGAIN = 2  # phases of a project after which the timeline is asked anew
TOLD, NEAR = 0.8, 0.05


@dataclass(frozen=True)
class Days:
    """How durations come about.

    Args:
        project: standard deviation of the logarithm that a project's phases share.
        own: scale of a phase's own logarithm.
        freedom: degrees of Student's t of the own; infinite for normal.
        bias: times what the days of the record took.
    """

    project: float
    own: float
    freedom: float
    bias: float = 1.0


PLAUSIBLE = Days(project=0.15, own=0.12, freedom=5)
MISSPECIFIED = Days(project=0.3, own=0.15, freedom=3, bias=1.2)


def cells(quick: bool) -> list[Settings]:
    """A world a cell."""
    return [
        {"kind": "deadlines", "world": world, "projects": QUICK_PROJECTS if quick else PROJECTS} for world in WORLDS
    ]


def run(settings: Settings) -> Figures:
    """All projects of a world; how often each chance came true, at the start and after a phase."""
    said: list[tuple[bool, float, bool]] = []
    for number in range(settings["projects"]):
        random = np.random.default_rng([SEED, WORLDS.index(settings["world"]), number])
        said += project(random, settings["world"], number)
    at_start = [(chance, made) for first, chance, made in said if first]
    later = [(chance, made) for first, chance, made in said if not first]
    return {"bins": binned(at_start), "bins_after_a_phase": binned(later)}


def binned(said: list[tuple[float, bool]]) -> list[dict[str, Any]]:
    """How many were said to be so likely, the mean of it, and the share that was in time."""
    found = []
    for low, high in pairwise(BINS):
        inside = [(chance, made) for chance, made in said if low <= chance < high]
        told, made = (fmean(c for c, _ in inside), fmean(m for _, m in inside)) if inside else (0.0, 0.0)
        found.append({"from": low, "to": high, "count": len(inside), "said": told, "made": made})
    return found


def project(random: np.random.Generator, world: str, number: int) -> list[tuple[bool, float, bool]]:
    """Whether it was at the start, the chance that was said, and whether it was in time, each time it was asked."""
    phases = planned(random, world)
    truth = happens(random, world, phases)
    end = max(ends for _, ends in truth.values())
    last = phases[-1].name
    laid = schedule(phases, START, BUFFER, seed=number, size=DRAWS)
    deadline = float(np.quantile(laid.draws[last], random.uniform(0.01, 0.99)))
    said = [(True, laid.chance(last, deadline), end <= deadline)]
    for after in sorted(random.choice(len(phases) - 1, ASKED_AGAIN, replace=False)):
        now = truth[phases[after].name][1]
        seen = [
            replace(phase, started=truth[phase.name][0], finished=truth[phase.name][1])
            if truth[phase.name][1] <= now
            else phase
            for phase in phases
        ]
        again = schedule(seen, now, BUFFER, seed=number, size=DRAWS)
        said.append((False, again.chance(last, deadline), end <= deadline))
    return said


def planned(random: np.random.Generator, world: str) -> list[Phase]:
    """The phases as the planner sees them."""
    days = MISSPECIFIED if world == "misspecified, learnt" else PLAUSIBLE
    record = Record(Path("unsaved"), "simulated")
    nominal = {name: hours * HOUR * log_uniform(random, 0.3, 3.0) for name, hours in RUN.items()}
    for _ in range(int(random.integers(*PAST))):
        shared = days.bias * math.exp(days.project * float(random.standard_normal()))
        for name, seconds in nominal.items():
            record.add(name, seconds * shared * math.exp(days.own * heavy(random, days)))
    found: list[Phase] = []
    people = random.random() < PEOPLE_SHARE

    def add(name: str, duration: Forecast, driver: str = "", working: WorkingTime | None = None) -> None:
        before = (found[-1].name,) if found else ()
        found.append(Phase(name, duration, duration, before, "ann" if working else "", working, driver))

    if people:
        hours = PEOPLE["label"] * log_uniform(random, 0.3, 3.0)
        add("label", Forecast.lognormal(hours * HOUR, PERSON_SPREAD, "stated"), working=WORKING)
    for name in RUN:
        forecast = record.forecast(name)
        add(name, forecast, MACHINE)
    if people:
        hours = PEOPLE["review"] * log_uniform(random, 0.3, 3.0)
        add("review", Forecast.lognormal(hours * HOUR, PERSON_SPREAD, "stated"), working=WORKING)
    _nominal[id(found)] = nominal
    return found


_nominal: dict[int, dict[str, float]] = {}


def heavy(random: np.random.Generator, days: Days) -> float:
    """Student's t, not beyond six scales: what hangs for longer is ended."""
    return float(np.clip(random.standard_t(days.freedom), -6, 6))


def happens(random: np.random.Generator, world: str, phases: list[Phase]) -> dict[str, tuple[float, float]]:
    """When everything begins and ends, in its order."""
    nominal = _nominal.pop(id(phases))
    days = PLAUSIBLE if world == "plausible" else MISSPECIFIED
    shared, person = float(random.standard_normal()), float(random.standard_normal())
    alike = getattr(timeline, "ALIKE", 1.0)  # correlation of a driver's scores, as the timeline takes it
    ends: dict[str, tuple[float, float]] = {}
    at = START
    for phase in phases:
        own = float(random.standard_normal())
        if world == "as believed":
            score = math.sqrt(alike) * shared + math.sqrt(1 - alike) * own if phase.driver else own
            seconds = float(draws(phase.duration, np.asarray([score]))[0])
        elif phase.driver:
            factor = days.bias * math.exp(days.project * shared + days.own * heavy(random, days))
            seconds = nominal[phase.name] * factor
        else:
            score = 0.6 * person + 0.8 * own
            seconds = float(draws(phase.duration, np.asarray([score]))[0]) * days.bias
        begins = float(phase.begins(np.asarray([at]))[0])
        at = float(phase.ends(np.asarray([begins]), np.asarray([seconds]))[0])
        ends[phase.name] = begins, at
    return ends


def judged(figures: Figures) -> dict[str, Any]:
    """The bin of 80 %, whether what was said came true in it, and every bin."""
    told = {}
    for when, bins in (("at_start", figures["bins"]), ("after_a_phase", figures["bins_after_a_phase"])):
        at = next(each for each in bins if each["from"] <= TOLD < each["to"])
        worst = max((abs(each["made"] - each["said"]) for each in bins if each["count"] >= ENOUGH), default=None)
        told[when] = {
            "said_80_made": at["made"],
            "count": at["count"],
            "least_count": min(each["count"] for each in bins),
            "worst_bin_error": worst,
            "bins": bins,
        }
    made = [abs(told[when]["said_80_made"] - TOLD) <= NEAR for when in told]
    return told | {"as_said": all(made)}
