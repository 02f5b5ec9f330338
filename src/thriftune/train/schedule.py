"""Learning rate as a function of progress, and the pace at which progress is made.

A schedule fitted to the budget is what matters most under one (Li, Yumer and Ramanan, "Budgeted Training", ICLR
2020). So the rate depends on progress 0…1 only, and when the governor changes the number of steps, progress goes on
from where it is at another speed: the rate never jumps, and still reaches its end when the money does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda p: 1.0 - p,
    "cosine": lambda p: 0.5 * (1.0 + math.cos(math.pi * p)),
    "constant": lambda p: 1.0,
    "step": lambda p: 0.1 ** math.floor(3 * min(p, 0.999_999)),
}


def rate_factor(progress: float, warmup: float, decay: str) -> float:
    """The factor on the peak rate at `progress` (0…1): a linear warm-up over `warmup`, then the named decay."""
    if progress < warmup:
        return progress / warmup
    return DECAYS[decay]((progress - warmup) / (1.0 - warmup) if warmup < 1 else 1.0)


@dataclass(frozen=True)
class Pace:
    """Progress as a piecewise linear function of steps: the piece that holds now.

    Args:
        origin_step: the step at which this piece began.
        origin_progress: the progress made by then (0…1).
        planned: the step at which progress reaches 1.
    """

    planned: int
    origin_step: int = 0
    origin_progress: float = 0.0

    def progress(self, step: float) -> float:
        """Progress after `step` steps, 0…1."""
        if step >= self.planned:
            return 1.0
        share = (step - self.origin_step) / (self.planned - self.origin_step)
        return self.origin_progress + (1.0 - self.origin_progress) * share

    def step_at(self, progress: float) -> float:
        """The step at which this piece reaches a progress of its own; earlier ones give its first step."""
        if progress >= 1.0:
            return float(self.planned)
        share = max(0.0, progress - self.origin_progress) / (1.0 - self.origin_progress)
        return self.origin_step + share * (self.planned - self.origin_step)

    def refitted(self, step: int, planned: int) -> Pace:
        """From `step` on, reach 1 at `planned` instead; progress at `step` stays what it is."""
        if planned < step:
            raise ValueError(f"cannot plan {planned} steps when {step} are done")
        return Pace(planned=planned, origin_step=step, origin_progress=self.progress(step))
