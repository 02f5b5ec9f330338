"""What a run asks of a machine, whichever it is; and how long that takes on one that is not here.

There is nothing to probe there, so training is its floating-point operations over the accelerator's peak times a share
of it that is reached. The share comes from our own record of runs on such an accelerator, or from stated sources.
Every forecast made here has the basis "prior" or "record", and is wide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thriftune.budget.forecast import Forecast, total
from thriftune.money.tables import Accelerator
from thriftune.plan.plan import Part, Plan, Workload

TRAIN, ANSWERING = "train", ("untuned", "tuned")
FLOPS_PART = "teraflop"  # the record's part: seconds for 10^12 operations of training

# The share of the peak that training reaches, where nobody has measured it for us. The low end: PyTorch run eagerly,
# 3 to 8 % (zeroentropy.dev/concepts/mfu, 2026); the high end: PaLM 540B, 46.2 % (Chowdhery et al., 2022,
# arXiv 2204.02311, table 3). Taken as the 5th and 95th percentile of a log-normal share.
LEAST_SHARE, MOST_SHARE = 0.03, 0.46
SHARE_SOURCE = "3 % (eager PyTorch, zeroentropy.dev/concepts/mfu) to 46 % (PaLM, arXiv 2204.02311) of the peak"
# Assumptions of ours, stated in docs/plan.md: nobody has measured them for us.
LAYER_SECONDS = 1e-3  # a layer of an update takes no less: a hundred kernels of ten microseconds
LAYER_SPREAD = 2.0
SETUP_SECONDS = 300.0  # to get a machine, install Thriftune and bring data and model there
SETUP_SPREAD = 1.0
HOST_SPREAD = 1.0  # another machine's processor against this one's
LEAST_EFFICIENCY = 0.5  # of several accelerators, each against one alone; at best 1
HOST_FACTORS = tuple(math.exp(z * math.log1p(HOST_SPREAD)) for z in (-1.0, -0.41, 0.0, 0.41, 1.0))


@dataclass(frozen=True)
class Elsewhere:
    """A run on a machine that is not here.

    Args:
        seconds: from asking for the machine to the report.
        restart: seconds from losing the machine to going on from the checkpoint on another.
        share_source: where the share of the peak comes from.
    """

    seconds: Forecast
    restart: Forecast
    share_source: str


def elsewhere(
    plan: Plan,
    work: Workload,
    accelerator: Accelerator,
    count: int,
    figures: Mapping[str, Mapping[str, Sequence[float]]],
) -> Elsewhere:
    """How long what is still to come takes on a machine with `count` of an accelerator.

    Args:
        plan: of this machine.
        work: what it asks.
        accelerator: of which kind.
        count: how many of them.
        figures: the record of durations, of all machine classes.
    """
    training, source = training_seconds(work, accelerator, count, figures)
    here = next((part.seconds.p50 for part in plan.parts if part.what == TRAIN), 0.0)
    speedup = here / training.p50 if training.p50 > 0 else 1.0
    setup = Forecast.lognormal(SETUP_SECONDS, SETUP_SPREAD, "prior")
    parts = [setup, _on_another_host(work.again)]
    parts += [_moved(part, training, speedup) for part in plan.parts]
    return Elsewhere(total(parts), total([setup, _on_another_host(work.restart)]), source)


def training_seconds(
    work: Workload, accelerator: Accelerator, count: int, figures: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[Forecast, str]:
    """Seconds of all updates, and where the share of the peak comes from."""
    seen = sorted(_recorded(accelerator.name, figures))
    if seen:
        middle = seen[len(seen) // 2]
        spread = max(1.0, seen[-1] / middle - 1, middle / seen[0] - 1)
        alone = Forecast.lognormal(middle * work.flops / 1e12, spread, "record")
        share = 1e12 / (middle * accelerator.peak_flops)
        source = f"{100 * share:.1f} % of the peak, from {len(seen)} runs of ours on {accelerator.name}"
    else:
        share = math.sqrt(LEAST_SHARE * MOST_SHARE)
        alone = Forecast.lognormal(work.flops / (accelerator.peak_flops * share), MOST_SHARE / share - 1, "prior")
        source = SHARE_SOURCE
    shared = alone.scaled(1 / count)
    if count > 1:
        slower = [LEAST_EFFICIENCY ** -((1 + z) / 2) for z in (-1.0, -0.41, 0.0, 0.41, 1.0)]
        shared = Forecast.of((q * factor for q, factor in zip(shared.quantiles(), slower, strict=True)), shared.basis)
    floor = Forecast.lognormal(work.updates * work.layers * LAYER_SECONDS, LAYER_SPREAD, "prior")
    return total([shared, floor]), source


def _recorded(name: str, figures: Mapping[str, Mapping[str, Sequence[float]]]) -> list[float]:
    """Seconds a teraflop on machine classes that have such an accelerator; several of one are not told apart."""
    kind = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name.split('-', maxsplit=1)[0])}(?![A-Za-z0-9])", re.IGNORECASE)
    return [
        figure
        for machine, parts in figures.items()
        if kind.search(machine)
        for part, seen in parts.items()
        if part.startswith(f"{FLOPS_PART}/")
        for figure in seen
        if figure > 0
    ]


def _moved(part: Part, training: Forecast, speedup: float) -> Forecast:
    """A part's seconds on the other machine: answers gain between nothing and what training gains."""
    if part.what == TRAIN:
        return training
    if part.what not in ANSWERING:
        return _on_another_host(part.seconds)
    gains = [speedup**share for share in (1.0, 0.75, 0.5, 0.25, 0.0)]
    if speedup < 1:
        gains = [speedup] * len(gains)
    quicker = [q / gain for q, gain in zip(part.seconds.quantiles(), gains, strict=True)]
    return Forecast.of(sorted(quicker), "prior")


def _on_another_host(seconds: Forecast) -> Forecast:
    return Forecast.of((q * f for q, f in zip(seconds.quantiles(), HOST_FACTORS, strict=True)), "prior")
