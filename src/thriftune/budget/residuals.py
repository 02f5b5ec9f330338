"""How far off earlier forecasts were, and the interval that this gives the next one.

Split-conformal prediction (Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018) on the
ratio of what came to the median foretold, which is additive in the logarithm. From `MIN_FIGURES` runs of a machine
class on, a forecast is its median times the quantiles of those ratios, whatever spread its parts were given: it is
moved by what was systematically missed, and as wide as it was wrong. The work that is forecast need not have been done
before: the ratios of other models and lengths count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from thriftune.budget.forecast import Forecast
from thriftune.budget.record import MIN_FIGURES, Record, ranked

PREFIX = "residual"


@dataclass
class Residuals:
    """Forecasts of this run that wait for what comes, and the ratios of earlier runs.

    Args:
        record: where the ratios are kept, by machine class.
    """

    record: Record
    _foretold: dict[str, float] = field(default_factory=dict)

    def conformed(self, quantity: str, forecast: Forecast) -> Forecast:
        """A forecast with the interval that earlier ones of this quantity earned; as it is while they are few.

        Args:
            quantity: such as `total`: what is compared with itself over runs.
            forecast: as its parts give it.
        """
        ratios = self.record.seen(f"{PREFIX}/{quantity}")
        if len(ratios) < MIN_FIGURES:
            return forecast
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
