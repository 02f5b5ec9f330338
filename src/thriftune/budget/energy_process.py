"""Measures this machine's energy with codecarbon, in a process of its own that yields to all others.

Started by `budget/energy.py` as `python -m thriftune.budget.energy_process [COUNTRY [PROVINCE]]`. Its standard output
is JSON, one object a line: first what measures, then a reading a second. It ends when its standard input does.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from importlib.metadata import version
from typing import Any

LOOK_SECONDS = 1.0
OWN_PACE_SECONDS = 86_400.0  # codecarbon's own clock stays out of the way: each reading here is a measurement
JOULES_A_KWH = 3.6e6
LOWEST_PRIORITY = 19
NEUTRAL_GRAMS = 0.0  # codecarbon's own sum of carbon is not used: the report holds energy against the factor


def main(arguments: list[str]) -> None:
    """Measure until standard input ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(LOWEST_PRIORITY)
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.core import cpu, gpu
    from codecarbon.output_methods.base_output import BaseOutput

    class Kept(BaseOutput):  # type: ignore[misc]
        """Keeps what codecarbon hands out."""

        kwh = 0.0

        def out(self, total: Any, delta: Any) -> None:
            self.kwh = total.energy_consumed

    kept = Kept()
    country, province = (*arguments, None, None)[:2]
    tracker = OfflineEmissionsTracker(
        country_iso_code=country or "USA",  # it wants one, and reckons no carbon with it
        force_carbon_intensity_g_co2e_kwh=NEUTRAL_GRAMS,
        electricitymaps_api_token="",
        emissions_endpoint=False,
        output_methods=[],
        output_handlers=[kept],
        api_call_interval=-1,
        measure_power_secs=OWN_PACE_SECONDS,
        tracking_mode="machine",
        allow_multiple_runs=True,
        log_level="critical",
    )
    processor = "counters of the processor" if cpu.is_rapl_available() else "the processor's load and rated power"
    accelerator = ", NVML" if gpu.is_nvidia_system() else ""
    _say(
        by=f"codecarbon {version('codecarbon')} ({processor}{accelerator}, memory by its size)",
        grams_per_kwh=_factor(country, province),
    )
    tracker.start()
    while True:
        tracker.flush()
        _say(at=time.monotonic(), joules=kept.kwh * JOULES_A_KWH)
        time.sleep(LOOK_SECONDS)


def _factor(country: str | None, province: str | None) -> float | None:
    """Grams of carbon dioxide a kWh by codecarbon's own data; None where it has none for the country."""
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    data = DataSource()
    known = data.get_global_energy_mix_data()
    if country is None or country not in known:
        return None
    place = GeoMetadata(country_iso_code=country, country_name=known[country]["country_name"], region=province)
    return float(Emissions(data).get_private_infra_emissions(Energy.from_energy(kWh=1), place)) * 1000


def _say(**data: Any) -> None:
    print(json.dumps(data), flush=True)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
