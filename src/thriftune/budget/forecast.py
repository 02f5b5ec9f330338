"""A forecast: quantiles of a quantity before it is known, and how they add up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

LEVELS = (0.05, 0.25, 0.50, 0.75, 0.95)
Z95 = NormalDist().inv_cdf(0.95)  # standard deviations from the median to the 95th percentile of a normal


@dataclass(frozen=True)
class Forecast:
    """Quantiles of one quantity (seconds, bytes, tokens, or money in float only for display).

    `p5…p95` is the 90 % interval and `p25…p75` the 50 % interval. `basis` tells where it comes from:
    "exact", "measured", "probe", "record" or "prior" (not probed).
    """

    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    basis: str

    @staticmethod
    def of(quantiles: Iterable[float], basis: str) -> Forecast:
        """The forecast with these five quantiles, in the order of `LEVELS`."""
        p5, p25, p50, p75, p95 = quantiles
        return Forecast(p5, p25, p50, p75, p95, basis)

    @staticmethod
    def exact(value: float, basis: str = "exact") -> Forecast:
        """A quantity that is already known."""
        return Forecast(value, value, value, value, value, basis)

    @staticmethod
    def lognormal(median: float, spread: float, basis: str) -> Forecast:
        """A positive quantity whose 95th percentile is `median * (1 + spread)`, symmetric in the logarithm.

        Durations on shared machines are skewed to the right; a log-normal is the usual model.
        """
        if median <= 0:
            return Forecast.exact(0.0, basis)
        sigma = math.log1p(spread) / Z95
        quantiles = [median * math.exp(NormalDist().inv_cdf(level) * sigma) for level in LEVELS]
        return Forecast.of(quantiles, basis)

    def scaled(self, factor: float) -> Forecast:
        """The forecast of `factor` times the quantity."""
        return Forecast.of((factor * q for q in self.quantiles()), self.basis)

    def plus(self, known: float) -> Forecast:
        """The forecast of the quantity and something already known."""
        return Forecast.of((known + q for q in self.quantiles()), self.basis)

    def capped(self, most: float) -> Forecast:
        """The forecast of a quantity that is held to `most`."""
        return Forecast.of((min(most, q) for q in self.quantiles()), self.basis)

    def quantiles(self) -> tuple[float, float, float, float, float]:
        """The five quantiles, in the order of `LEVELS`."""
        return (self.p5, self.p25, self.p50, self.p75, self.p95)


def total(parts: list[Forecast]) -> Forecast:
    """The sum of quantities that share a machine: quantiles add (comonotone, the cautious reading).

    What slows one part of a run (a neighbour, a throttled core) slows the others as well, so the parts are
    not taken as independent, which would make the interval too narrow.
    """
    if not parts:
        return Forecast.exact(0.0)
    sums = [math.fsum(q) for q in zip(*(part.quantiles() for part in parts), strict=True)]
    return Forecast.of(sums, _weakest(parts))


def largest(parts: list[Forecast]) -> Forecast:
    """The largest of quantities that come one after the other, such as the memory of phases, taken as comonotone."""
    if not parts:
        return Forecast.exact(0.0)
    return Forecast.of([max(q) for q in zip(*(part.quantiles() for part in parts), strict=True)], _weakest(parts))


def _weakest(parts: list[Forecast]) -> str:
    """The basis that knows least: a sum is no better known than that."""
    weakest = ("prior", "record", "probe", "measured", "exact")
    return min((part.basis for part in parts), key=lambda basis: weakest.index(basis) if basis in weakest else 0)
