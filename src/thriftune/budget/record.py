"""What parts of a run took on this machine before: the forecast of a part that has not been measured yet.

One JSON file a user, by machine class. It is a convenience, never a truth: a measured figure of the present run
always goes before it, and a forecast made from it says so (`basis` "record").
"""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from thriftune.artifacts import write_file_atomic
from thriftune.budget.forecast import LEVELS, Z95, Forecast
from thriftune.money.prices import thriftune_home

KEPT = 40  # latest figures kept a part
PRIOR_SPREAD = 1.0  # 95th percentile over the median of a part never measured on this machine class
RECORD_SPREAD = 0.35  # the same before its own figures tell otherwise: as much as PRIOR_FIGURES of them would
PRIOR_FIGURES = 4
GPU_FILES = Path("/proc/driver/nvidia/gpus")
TINY = 1e-9  # seconds: what took no time at all still has a logarithm
MIN_FIGURES = 19  # from which the record's own quantiles are used


def machine_class() -> str:
    """Processor model, cores that may be used and GPUs: what makes durations comparable."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        model = " ".join(named.get(key, "") for key in ("model name", "cpu family", "model")).strip() or model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model} x{cores}{_gpus()}"


def _gpus() -> str:
    """NVIDIA's GPUs by their driver's files, ` + NVIDIA L4 x1`, without loading a library; empty for none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return ""
    lines = [line for file in sorted(GPU_FILES.glob("*/information")) for line in file.read_text().splitlines()]
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return f" + {models[0]} x{len(models)}" if models else ""


@dataclass
class Record:
    """Seconds per unit of each part, the latest last.

    Args:
        path: the JSON file.
        machine: the machine class that is read and added to.
    """

    path: Path
    machine: str
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @staticmethod
    def load(path: Path | None = None) -> Record:
        """Read the user's record; an unreadable one counts as empty, since it only ever sharpens a forecast."""
        path = path or thriftune_home() / "record.json"
        try:
            figures = json.loads(path.read_text())
        except (OSError, ValueError):
            figures = {}
        return Record(path, machine_class(), figures if isinstance(figures, dict) else {})

    def forecast(self, part: str, amount: float = 1.0, prior: float = 1.0) -> Forecast:
        """Seconds that `amount` units of `part` take.

        Args:
            part: what is done, such as `imports` or `load/abc`.
            amount: how many units (rows, tokens, or 1 for the whole).
            prior: seconds a unit if this machine class has never done it.
        """
        seen = self.seen(part)
        if not seen:
            return Forecast.lognormal(prior * amount, PRIOR_SPREAD, "prior")
        if len(seen) < MIN_FIGURES:
            return Forecast.lognormal(median(seen) * amount, _spread(seen), "record")
        return Forecast.of((amount * figure for figure in ranked(seen)), "record")

    def seen(self, part: str) -> list[float]:
        """What this machine class took for a unit of a part, the least first."""
        return sorted(self.figures.get(self.machine, {}).get(part, []))

    def add(self, part: str, seconds: float, amount: float = 1.0) -> None:
        """Note that `amount` units of `part` took `seconds`."""
        if amount > 0:
            parts = self.figures.setdefault(self.machine, {})
            parts[part] = [*parts.get(part, []), seconds / amount][-KEPT:]

    def save(self) -> None:
        """Write the record, whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_file_atomic(self.path, json.dumps(self.figures).encode())


def ranked(seen: list[float]) -> list[float]:
    """The figures at the ranks between which the next one falls as often as `LEVELS` say, if it is like these.

    Of n figures in order, the next one is above the r-th with a chance of at most 1 - r / (n + 1) (split-conformal
    prediction): a lower level is rounded down to a rank, an upper one up, and the middle is their median.

    Args:
        seen: at least `MIN_FIGURES`, the least first.
    """

    def at(level: float) -> float:
        place = round(level * (len(seen) + 1), 9)
        rank = math.floor(place) if level < 0.5 else math.ceil(place)
        return seen[min(max(rank, 1), len(seen)) - 1]

    return [median(seen) if level == 0.5 else at(level) for level in LEVELS]


def _spread(seen: list[float]) -> float:
    """95th percentile over the median of the next figure, after a few of them.

    The variance of the logarithm has a scaled inverse chi-squared prior (Gelman et al., Bayesian Data Analysis,
    section 2.6) worth PRIOR_FIGURES observations; the next figure deviates from a centre that is itself uncertain.
    However uneven the figures, they tell no less than nothing would.
    """
    prior = math.log1p(RECORD_SPREAD) / Z95
    centre = math.log(max(median(seen), TINY))
    squares = math.fsum((math.log(max(figure, TINY)) - centre) ** 2 for figure in seen)
    variance = (PRIOR_FIGURES * prior**2 + squares) / (PRIOR_FIGURES + len(seen) - 1)
    spread = math.expm1(Z95 * math.sqrt(variance * (1 + 1 / len(seen))))
    return min(spread, PRIOR_SPREAD)
