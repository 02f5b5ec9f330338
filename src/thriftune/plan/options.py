"""Planning's part of the project file."""

from __future__ import annotations

from pydantic import Field

from thriftune.options import Options, Seconds


class PlanOptions(Options):
    """How much to spend on knowing what it will cost, and how careful to be with the answer."""

    probe_share: float = Field(
        default=0.02,
        gt=0,
        le=0.5,
        description="The probe of real steps takes at most this share of the limit that binds first",
    )
    probe_seconds: Seconds = Field(
        default=5.0,
        gt=0,
        le=3600,
        description="… and at most this long: a few steps tell the speed, the loop measures on",
    )
    dead_band: float = Field(
        default=0.05,
        ge=0,
        le=0.5,
        description="A plan stands while it is off by less than this share of the steps to go",
    )
