"""How far off earlier forecasts were, and the interval that this gives the next one.

What counts is the ratio of what came to the median foretold, which is additive in the logarithm. From `MIN_FIGURES`
runs of a machine class on, a forecast is its median times the quantiles of those ratios, whatever spread its parts
were given: split-conformal prediction (Lei et al., "Distribution-Free Predictive Inference for Regression", JASA
2018). It is moved by what was systematically missed, and as wide as it was wrong. Before, the parts' own account
counts as `OWN_RUNS` runs that were right on average and as far off as it says, and is weighed with those that there
are. The work that is forecast need not have been done before: the ratios of other models and lengths count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median

from thriftune.budget.forecast import Z95, Forecast
from thriftune.budget.record import MIN_FIGURES, Record, ranked

PREFIX = "residual"
OWN_RUNS = 3  # as many as a forecast's own median and spread weigh, while few runs have been scored


@dataclass
class Residuals:
    """Forecasts of this run that wait for what comes, and the ratios of earlier runs.

    Args:
        record: where the ratios are kept, by machine class.
    """

    record: Record
    _foretold: dict[str, float] = field(default_factory=dict)

    def conformed(self, quantity: str, forecast: Forecast) -> Forecast:
        """A forecast with the interval that earlier ones of this quantity earned.

        Args:
            quantity: such as `total`: what is compared with itself over runs.
            forecast: as its parts give it.
        """
        ratios = self.record.seen(f"{PREFIX}/{quantity}")
        if not ratios:
            return forecast
        if len(ratios) < MIN_FIGURES:
            return weighed(forecast, ratios)
        return Forecast.of((forecast.p50 * ratio for ratio in ranked(ratios)), forecast.basis)

    def foretell(self, quantity: str, forecast: Forecast) -> Forecast:
        """The same, and remember what was foretold before it was conformed; the first time counts."""
        self._foretold.setdefault(quantity, forecast.p50)
        return self.conformed(quantity, forecast)

    def came(self, quantity: str, value: float) -> None:
        """What became of a quantity that was foretold in this run; noted once."""
        foretold = self._foretold.pop(quantity, 0.0)
        if foretold > 0 and value > 0:
            self.record.add(f"{PREFIX}/{quantity}", value, foretold)


def weighed(forecast: Forecast, ratios: list[float]) -> Forecast:
    """A forecast moved and shaped by a few ratios of what came to what was foretold.

    The logarithm of the next ratio, of a normal whose mean and variance are not known: its prior mean is 0 and its
    prior variance that of the forecast, both worth `OWN_RUNS` observations (Gelman et al., Bayesian Data Analysis,
    section 3.3). The forecast's skew is kept.
    """
    from scipy.special import stdtrit

    spread = (math.log(forecast.p95) - math.log(forecast.p5)) / (2 * Z95) if forecast.p5 > 0 else 0.0
    if spread == 0:
        return forecast
    logs, count = [math.log(ratio) for ratio in ratios], len(ratios)
    centre, worth = math.log(median(ratios)), OWN_RUNS + count
    squares = math.fsum((one - centre) ** 2 for one in logs)
    variance = (OWN_RUNS * (spread**2 + count / worth * centre**2) + squares) / worth * (1 + 1 / worth)
    wider = math.sqrt(variance) / spread * float(stdtrit(worth, 0.95)) / Z95
    middle = forecast.p50 * math.exp(count / worth * centre)
    return Forecast.of((middle * (q / forecast.p50) ** wider for q in forecast.quantiles()), forecast.basis)
