"""Predictions in the form that resampling needs: a corpus metric as a function of how often each row counts.

A corpus metric (macro F1, BLEU) is not a mean over rows, so a bootstrap has to compute it again for each resample.
That is cheap when rows that count alike are one *kind*, and a resample is a vector of weights over kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
"""(samples, kinds) how often each kind of row occurs in each sample."""

Measure = Callable[[Weights], dict[str, NDArray[np.float64]]]
"""Weights to values by metric, each (samples,) or (samples, classes)."""

LOWER_IS_BETTER = frozenset({"perplexity", "bits_per_character", "ece", "loss"})

DEAR_WORK = 40_000_000  # numbers touched in all samples together: about 2 s
CHUNK_ENTRIES = 2_000_000  # weights made at once: 16 MB


@dataclass(frozen=True)
class Statistics:
    """What predictions say about rows, ready to be resampled.

    Args:
        kinds: (rows,) int64, the kind of each row; rows of one kind count alike.
        kind_count: number of kinds.
        measure: the metrics of weighted kinds; all ones for each row gives the corpus metric.
        work: how many numbers one sample has to touch; 0 where that is about one a kind.
    """

    kinds: NDArray[np.int64]
    kind_count: int
    measure: Measure
    work: int = 0

    def affordable(self, samples: int, fewest: int) -> int:
        """As many of the samples as `DEAR_WORK` allows, but at least `fewest`."""
        return samples if not self.work else min(samples, max(fewest, DEAR_WORK // self.work))

    def __len__(self) -> int:
        return len(self.kinds)

    def counts(self) -> NDArray[np.float64]:
        """(kinds,) how many rows are of each kind."""
        return np.bincount(self.kinds, minlength=self.kind_count).astype(np.float64)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Each metric on the rows as they are, () or (classes,)."""
        return {name: values[0] for name, values in self.measure(self.counts()[None, :]).items()}

    def values(self) -> dict[str, float]:
        """Each metric on the rows as they are, for metrics that are one number."""
        return {name: float(value) for name, value in self.arrays().items()}


def summed(table: NDArray[np.float64], measure: Measure) -> Statistics:
    """Statistics whose metrics are functions of column sums.

    Args:
        table: (rows, columns) sufficient statistics of each row.
        measure: (samples, columns) sums to metrics.
    """
    distinct, kinds = np.unique(table, axis=0, return_inverse=True)
    return Statistics(kinds.reshape(-1), len(distinct), lambda weights: measure(weights @ distinct))


def draws(counts: NDArray[np.float64], samples: int, seed: int) -> Iterator[Weights]:
    """Bootstrap resamples of rows, as weights over kinds, in chunks of at most `CHUNK_ENTRIES`.

    Drawing n rows with replacement and counting kinds is one multinomial draw; the chunks continue one stream of
    random numbers, so their size does not change the result.
    """
    generator = np.random.default_rng(seed)
    rows = int(counts.sum())
    shares = counts / counts.sum()
    for size in _chunks(samples, len(counts)):
        yield generator.multinomial(rows, shares, size=size).astype(np.float64)


def swaps(counts: NDArray[np.float64], samples: int, seed: int) -> Iterator[Weights]:
    """How many rows of each kind change sides when every row does so with probability 1/2, in chunks."""
    generator = np.random.default_rng(seed)
    for size in _chunks(samples, len(counts)):
        yield generator.binomial(counts.astype(np.int64), 0.5, size=(size, len(counts))).astype(np.float64)


def _chunks(samples: int, kinds: int) -> Iterator[int]:
    most = max(1, CHUNK_ENTRIES // max(1, kinds))
    while samples > 0:
        yield min(most, samples)
        samples -= most


def gathered(parts: Iterator[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """Chunks of values by metric as one array a metric."""
    collected: dict[str, list[NDArray[np.float64]]] = {}
    for part in parts:
        for name, values in part.items():
            collected.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in collected.items()}
