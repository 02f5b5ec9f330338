"""The errors a user may meet: one small tree, each telling what, where, found, expected and the way out.

Anything that is not a `ThriftuneError` is a defect of ours: the command line writes a crash file for it and
exits with 1. Nothing here is caught in silence.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_DONE = 0
EXIT_DEFECT = 1
EXIT_BAD_INPUT = 2
EXIT_CANNOT_LAND = 3
EXIT_INTERRUPTED = 130


@dataclass(eq=False)
class ThriftuneError(Exception):
    """An error with everything a person needs to mend it.

    Args:
        what: what went wrong, one clause.
        where: the file, row, key or address it concerns.
        found: what was there.
        expected: what should have been there.
        way_out: what to do next, an imperative sentence.
    """

    what: str
    where: str = ""
    found: str = ""
    expected: str = ""
    way_out: str = ""

    exit_code = EXIT_BAD_INPUT

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.found:
            lines.append(f"  found:    {self.found}")
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.way_out:
            lines.append(f"  way out:  {self.way_out}")
        return "\n".join(lines)


class BadInput(ThriftuneError):
    """The project file, a data file, a model folder or an argument cannot be used as it is."""


class MissingExtra(ThriftuneError):
    """An optional dependency is needed; the way out names the extra to install."""


class CannotLand(ThriftuneError):
    """The work cannot end inside the budget or the deadline; the message names the minimum that works."""

    exit_code = EXIT_CANNOT_LAND


class OutOfBudget(CannotLand):
    """A reservation was refused: the money that is left does not cover its upper bound."""


class LeaseHeld(ThriftuneError):
    """Another live process holds this project's machine."""


class LeaseLost(ThriftuneError):
    """This process's lease was taken over (its fencing number is stale); it must stop writing."""


class Interrupted(ThriftuneError):
    """The user stopped the run; everything done is saved and the next `thriftune run` goes on."""

    exit_code = EXIT_INTERRUPTED
