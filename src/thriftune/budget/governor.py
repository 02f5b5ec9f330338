"""The governor: how many steps the money and the time still pay for, asked at every block of steps.

It knows what a step costs, what must still happen after training (saving, evaluating, reporting: their upper
bounds), and what is left of the binding limit. It answers with a number of steps to plan for. The schedule then runs
on progress (train/schedule.py), so that a changed plan bends the rate's curve without breaking it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LENGTHENING = 2.0  # times the dead band: what a neighbour leaves free for a moment is not worth a new plan


@dataclass(frozen=True)
class Overheads:
    """What training does besides its steps, in seconds.

    Args:
        validation: one pass over the validation split.
        validate_every: steps from one to the next.
        checkpoint: writing one.
        checkpoint_every: seconds from one to the next.
    """

    validation: float
    validate_every: int
    checkpoint: float
    checkpoint_every: float

    def step_seconds(self, step: float) -> float:
        """What a step of `step` seconds costs with its share of validations and checkpoints."""
        return (step + self.validation / self.validate_every) * (1.0 + self.checkpoint / self.checkpoint_every)

    def seconds(self, step: float, done: int, count: int) -> float:
        """What `count` more steps of `step` seconds cost after `done`, with the validations that fall between them.

        One that falls on the last of them is the one that follows all training, which is counted there.
        """
        validations = max(0, (done + count - 1) // self.validate_every - done // self.validate_every)
        return (count * step + validations * self.validation) * (1.0 + self.checkpoint / self.checkpoint_every)


@dataclass(frozen=True)
class Governor:
    """Plans and re-plans the number of steps.

    Args:
        remaining: seconds that are left of the limit that binds first, money or time.
        tail_seconds: upper bound of what must still happen after the last step.
        full_steps: the plan if nothing binds.
        overheads: validations and checkpoints.
        caution: a step is taken to last this many times what it was measured at.
        dead_band: a plan stands while it is off by less than this share of the steps to go.
    """

    remaining: Callable[[], float]
    tail_seconds: float
    full_steps: int
    overheads: Overheads
    caution: float = 1.03
    dead_band: float = 0.05

    def free(self) -> float:
        """Seconds left before the tail must begin; negative when it should have begun."""
        return self.remaining() - self.tail_seconds

    def affordable(self, step_seconds: float, free: float | None = None, done: int = 0) -> int:
        """How many more steps of `step_seconds` fit into `free` seconds after `done` ones, with the validations between
        them; by default into all before the tail must begin. At most twice the full plan."""
        free = self.free() if free is None else free
        room = free / self.caution
        if room < self.overheads.seconds(step_seconds, done, 1):
            return 0
        least, most = 1, 2 * self.full_steps + 1  # more are never asked for
        while most - least > 1:
            middle = (least + most) // 2
            fits = self.overheads.seconds(step_seconds, done, middle) <= room
            least, most = (middle, most) if fits else (least, middle)
        return least

    def planned(self, step_seconds: float) -> int:
        """The number of steps to begin with."""
        return min(self.full_steps, self.affordable(step_seconds))

    def review(self, step: int, planned: int, step_seconds: float) -> int | None:
        """A new number of steps to plan for, or None to go on as planned.

        Downwards when the projected end leaves the limit; upwards only where the plan had been cut. The dead band
        closes with the steps to go, down to nothing: a last step that does not fit would be taken from the tail.
        """
        fits = step + self.affordable(step_seconds, done=step)
        slack = self.dead_band * (planned - step)
        if fits < planned and planned - fits > slack:
            return max(step, fits)
        if planned < self.full_steps and fits - planned > LENGTHENING * max(1.0, slack):
            return min(self.full_steps, fits)
        return None
