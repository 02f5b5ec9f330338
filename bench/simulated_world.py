"""A world that no planner knows, and a project's own account in it: what things really take, break and cost.

Everything is drawn from a project's number, each quantity from a stream of its own, so that two systems meet the same
world: the k-th update takes the same seconds whoever does it, and the machine is lost at the same instants.

Durations are nominal seconds × the machine's factor × the project's factor × what neighbours take at that instant ×
the work's own noise: Student's t with three degrees of freedom in the logarithm for parts, log-normal with stalls from
a Pareto tail for updates.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SEED = 7
START = 1_700_000_000.0
MACHINES = 40
MACHINE_SPREAD = 0.25  # standard deviations of logarithms
PROJECT_SPREAD = 0.15
PART_NOISE = 0.10
STEP_NOISE = 0.06
STALL_CHANCE, STALL_TAIL, STALL_MOST = 0.003, 1.5, 60.0  # of an update; in updates' worth
LONGEST_PART = 8.0  # times what it takes as a rule: something else ends what hangs for longer
NEIGHBOURS_EVERY, NEIGHBOUR_STAYS = 400.0, 120.0  # seconds, means
FAILURE_EVERY, INTERRUPTION_EVERY = 6000.0, 700.0  # seconds, means; the latter on the spot market
SPOT_SHARE = 0.25
PRICE_CHANGES = 0.3  # share of projects in which the listed price changes once
PARTS = {  # seconds, from which they are drawn log-uniformly
    "collect": (0.2, 3.0),
    "prepare": (0.5, 5.0),
    "baselines": (1.0, 20.0),
    "imports": (3.0, 10.0),
    "encode": (1.0, 10.0),
    "load": (1.0, 6.0),
    "open": (1.0, 6.0),
    "tuned": (2.0, 60.0),
    "verdict": (1.0, 10.0),
    "report": (1.0, 4.0),
    "exit": (0.05, 0.4),
    "start": (0.2, 0.6),
}
STEP_SECONDS = (0.3, 6.0)
FULL_STEPS = (40, 160)
VALIDATION_STEPS = (1.0, 8.0)
CHECKPOINT_SECONDS = (0.1, 2.0)
PAST_RUNS = (0, 30)  # of this machine's record


class MachineLostError(Exception):
    """The process is dead: the machine failed, or was taken back."""


def stream(number: int, *names: object) -> np.random.Generator:
    """The random numbers of one quantity of one project."""
    return np.random.default_rng([SEED, number, *(zlib.crc32(str(name).encode()) for name in names)])


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """Between two numbers, each factor as likely as another."""
    return float(low * (high / low) ** random.random())


@dataclass
class World:
    """One project's, walked through by one system.

    Args:
        number: of the project; the same one gives the same world.
    """

    number: int
    now: float = START
    updates_done: int = 0
    occurred: dict[str, int] = field(default_factory=dict)
    busy: list[tuple[float, float, float]] = field(default_factory=list)  # from, to, the price that was told

    def __post_init__(self) -> None:
        random = stream(self.number, "project")
        machine = int(random.integers(MACHINES))
        self.machine_factor = math.exp(MACHINE_SPREAD * stream(machine, "machine").standard_normal())
        self.factor = self.machine_factor * math.exp(PROJECT_SPREAD * random.standard_normal())
        self.nominal = {part: log_uniform(random, *ends) for part, ends in PARTS.items()}
        self.nominal["step"] = log_uniform(random, *STEP_SECONDS)
        self.nominal["validation"] = self.nominal["step"] * log_uniform(random, *VALIDATION_STEPS)
        self.nominal["checkpoint"] = log_uniform(random, *CHECKPOINT_SECONDS)
        self.nominal["save"] = self.nominal["checkpoint"] / 2
        self.nominal["probe"] = 5 * self.nominal["step"] + self.nominal["validation"] + self.nominal["checkpoint"]
        self.full_steps = int(random.integers(*FULL_STEPS))
        self.past_runs = int(random.integers(*PAST_RUNS))
        self.spot = bool(random.random() < SPOT_SHARE)
        self.price = log_uniform(random, 0.3, 30.0)  # an hour, as listed at the start
        self._draw_limits(random)
        self._draw_quality(random)
        self._draw_events()

    def _draw_limits(self, random: np.random.Generator) -> None:
        expected = sum(self.nominal[part] for part in PARTS) + self.nominal["probe"] + self.nominal["save"]
        expected += 1.1 * self.full_steps * self.nominal["step"]
        self.binding = "money" if random.random() < 0.5 else "time"
        self.limit_seconds = expected * self.machine_factor * float(random.uniform(0.35, 1.5))
        other = self.limit_seconds * log_uniform(random, 1.2, 4.0)
        by_money, by_time = (self.limit_seconds, other) if self.binding == "money" else (other, self.limit_seconds)
        self.budget = max(0.0002, round(by_money * self.price / 3600, 4))
        self.deadline_seconds = round(by_time, 1)

    def _draw_quality(self, random: np.random.Generator) -> None:
        self._floor, gain = float(random.uniform(0.4, 0.6)), float(random.uniform(0.1, 0.4))
        self._gain, self._scale = gain, log_uniform(random, 0.05, 0.6)
        self._power = float(random.uniform(0.7, 2.0))
        affordable = min(1.0, self.limit_seconds / (self.machine_factor * self.nominal["step"] * self.full_steps))
        self.target = self.quality(affordable * float(random.uniform(0.3, 0.9)))

    def _draw_events(self) -> None:
        random = stream(self.number, "events")
        self.neighbours: list[tuple[float, float, float]] = []
        at = START
        while at < START + 40_000:
            at += float(random.exponential(NEIGHBOURS_EVERY))
            stays = float(random.exponential(NEIGHBOUR_STAYS))
            self.neighbours.append((at, at + stays, math.exp(abs(0.35 * random.standard_normal()))))
            at += stays
        self.losses: list[tuple[float, float]] = []  # instant, and seconds until somebody starts it again
        at = START
        for _ in range(60):
            at += float(random.exponential(INTERRUPTION_EVERY if self.spot else FAILURE_EVERY))
            waits = log_uniform(random, 30, 300) if self.spot else log_uniform(random, 5, 60)
            self.losses.append((at, waits))
            at += waits
        changes = random.random() < PRICE_CHANGES
        self.price_changes_at = START + float(random.uniform(0, 2 * self.limit_seconds)) if changes else math.inf
        self.new_price = self.price * math.exp(0.3 * random.standard_normal())

    def quality(self, share: float) -> float:
        """Held-out quality after so much of the full work: a power law that saturates (Hestness et al., 2017)."""
        return self._floor + self._gain * (1 - (1 + share / self._scale) ** -self._power)

    def listed_price(self) -> float:
        """An hour's price as the list has it now."""
        return self.new_price if self.now >= self.price_changes_at else self.price

    def slowness(self) -> float:
        """How many times its nominal seconds work takes at this instant."""
        beside = [factor for begins, ends, factor in self.neighbours if begins <= self.now < ends]
        return self.factor * math.prod(beside)

    def takes(self, what: str) -> float:
        """Seconds that the next one of a part takes if it begins now."""
        occurrence = self.occurred[what] = self.occurred.get(what, 0) + 1
        noise = math.exp(PART_NOISE * float(stream(self.number, what, occurrence).standard_t(3)))
        return self.nominal[what] * self.slowness() * min(noise, LONGEST_PART)

    def update_takes(self) -> float:
        """Seconds of the next update."""
        random = stream(self.number, "update", self.updates_done)
        self.updates_done += 1
        noise = math.exp(STEP_NOISE * float(random.standard_normal()))
        stall = min(STALL_MOST, float(random.pareto(STALL_TAIL)) + 1) if random.random() < STALL_CHANCE else 0.0
        return self.nominal["step"] * self.slowness() * (noise + stall)

    def process_begins(self, told_price: float) -> None:
        """A process is there, and is paid for from now on."""
        self.busy.append((self.now, self.now, told_price))

    def works(self, seconds: float) -> float | None:
        """Let the process work: None where all is well, else the seconds until its machine was lost."""
        lost = next((at for at, _ in self.losses if self.now < at <= self.now + seconds), None)
        passed = seconds if lost is None else lost - self.now
        self.now += passed
        begins, _, price = self.busy[-1]
        self.busy[-1] = (begins, self.now, price)
        return None if lost is None else passed

    def waits_for_another(self) -> float:
        """Nobody works until the machine is there again: seconds."""
        waits = next(waits for at, waits in self.losses if at == self.now)
        self.now += waits
        return waits

    def money(self) -> float:
        """What all processes took at the prices that they were told."""
        return math.fsum((ends - begins) * price / 3600 for begins, ends, price in self.busy)

    def bill(self) -> float:
        """The same at the price that the list had at each instant."""
        change = self.price_changes_at
        return math.fsum(
            (max(0.0, min(ends, change) - begins) * self.price + max(0.0, ends - max(begins, change)) * self.new_price)
            / 3600
            for begins, ends, _ in self.busy
        )

    def late(self) -> float:
        """Seconds that a process which was there in time worked beyond the deadline."""
        deadline = START + self.deadline_seconds
        return max([0.0, *(ends - deadline for begins, ends, _ in self.busy if begins < deadline)])

    def told(self) -> dict[str, Any]:
        """The account, for the result."""
        return {
            "money": self.money(),
            "bill": self.bill(),
            "late_s": self.late(),
            "seconds": math.fsum(ends - begins for begins, ends, _ in self.busy),
            "ended_s": self.busy[-1][1] - START,
            "processes": len(self.busy),
        }
