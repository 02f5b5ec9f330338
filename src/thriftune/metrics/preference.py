"""How well a predictor tells the better of two answers.

- `preference_accuracy`: the share of pairs in which it prefers the chosen answer.
- `margin`: by how many nats it finds the chosen answer likelier, mean over pairs. The gain in it over the untuned
  model, times DPO's beta, is the mean of DPO's implicit reward margin (Rafailov et al., NeurIPS 2023, section 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thriftune.metrics.statistics import Statistics, Weights, summed


def preference_statistics(preferred: NDArray[np.float64]) -> Statistics:
    """`preference_accuracy`, ready to be resampled, from (rows,) 1 where the chosen answer is preferred, else 0."""
    return _mean("preference_accuracy", preferred)


def margin_statistics(margins: NDArray[np.float64]) -> Statistics:
    """`margin`, ready to be resampled, from (rows,) log-likelihood of the chosen answer less that of the rejected."""
    return _mean("margin", margins)


def _mean(name: str, values: NDArray[np.float64]) -> Statistics:
    def measure(sums: Weights) -> dict[str, NDArray[np.float64]]:
        return {name: sums[:, 0] / sums[:, 1]}

    return summed(np.column_stack([values, np.ones(len(values))]), measure)
