"""Energy and carbon of a project or an attempt: what codecarbon measured, and the stated draw for the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thriftune.budget.energy_process import JOULES_A_KWH
from thriftune.events import Event

ALL = 0.995  # of the metered time, from which the rest goes without saying


@dataclass(frozen=True)
class MeasuredEnergy:
    """What was measured.

    Args:
        kwh: that the machine drew.
        seconds: of the run in which it was measured.
        by: what measured it.
        grams_per_kwh: of carbon dioxide, for the country that the project file names; None where it names none.
    """

    kwh: float
    seconds: float
    by: str
    grams_per_kwh: float | None


def measured_energy(events: Sequence[Event]) -> MeasuredEnergy | None:
    """The sum over spans of use; None where nothing was measured."""
    spans = [event.data for event in events if event.kind == "usage" and event.data.get("energy_by") is not None]
    if not spans:
        return None
    return MeasuredEnergy(
        math.fsum(span["energy_joules"] for span in spans) / JOULES_A_KWH,
        math.fsum(span["energy_seconds"] for span in spans),
        spans[-1]["energy_by"],
        spans[-1]["energy_grams_per_kwh"],
    )


def energy_kwh(measured: MeasuredEnergy | None, seconds: float, watts: float | None) -> float | None:
    """Energy of so many metered seconds: as measured, and the stated draw for the time in which it was not.

    Args:
        measured: what was.
        seconds: metered.
        watts: stated for this machine; None of a rented one, of which only what was measured is known.
    """
    if measured is None:
        return None if watts is None else seconds * watts / JOULES_A_KWH
    rest = 0.0 if watts is None else max(0.0, seconds - measured.seconds) * watts
    return measured.kwh + rest / JOULES_A_KWH


def energy_basis(measured: MeasuredEnergy | None, seconds: float, watts: float | None) -> str:
    """How that figure came about, for people."""
    if measured is None:
        return f"metered seconds × {watts:g} W from compute.local, not measured"
    share = min(1.0, measured.seconds / seconds) if seconds else 1.0
    if share >= ALL:
        return f"by {measured.by}"
    rest = "the rest is not known" if watts is None else f"the rest at {watts:g} W from compute.local"
    return f"{share:.0%} of the metered time by {measured.by}, {rest}"
