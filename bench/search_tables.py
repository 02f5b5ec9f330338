"""Generated grids, to develop a search policy on other tables than the one that was really run.

A table here is what a generator says and nothing that was measured; no claim stands on it. It draws where the good
region lies, how wide it is, how noisy a validation is and how much a grid's best gives, so that a policy that was
fitted to one grid fails on others. A curve rises with the learning that was done, rate × updates, as far as the
schedule has let it; too large a rate for the batch falls apart; past some learning it overfits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
BATCHES = (16, 48, 128)
EPOCHS = (3, 6, 10)
FOLDS = 3
WARMUP = 0.1
CHANCE = 0.5
OWN_NOISE = 0.35  # of a validation's binomial variance, what configurations on the same rows do not share
KEPT_NOISE = 0.7  # correlation of that from one epoch of a training to the next


@dataclass(frozen=True)
class World:
    """What a table is drawn from.

    Args:
        rows: that are trained on.
        held_out: rows of a fold's validation.
        tested: rows of the test.
        top: accuracy that the best training comes to.
        needed: the logarithm (base 10) of the learning, rate × updates ÷ (batch ÷ 32)^½, that gives 63 % of the rise.
        sharpness: of the rise.
        breaks: the logarithm of the rate that falls apart at 32 rows an update.
        overfits: decades of learning past `needed` from which it is lost again.
        loss: of accuracy, a decade past that.
        peculiar: standard deviation of what is peculiar to a configuration.
        training: standard deviation of what is peculiar to one training.
        fold: standard deviation of what a fold makes easier for all.
    """

    rows: int
    held_out: int
    tested: int
    top: float
    needed: float
    sharpness: float
    breaks: float
    overfits: float
    loss: float
    peculiar: float
    training: float
    fold: float


def drawn_world(random: np.random.Generator) -> World:
    """The world of a table."""
    held_out = int(random.choice([100, 160, 300, 800]))
    return World(
        rows=2 * held_out,
        held_out=held_out,
        tested=int(random.choice([800, 2000])),
        top=random.uniform(0.68, 0.95),
        needed=np.log10(2 * held_out * 6 / 32) + random.uniform(-5.0, -3.6),
        sharpness=random.uniform(0.7, 1.6),
        breaks=random.uniform(-3.9, -2.6),
        overfits=random.uniform(0.6, 2.0),
        loss=random.uniform(0.0, 0.05),
        peculiar=random.uniform(0.002, 0.008),
        training=random.uniform(0.004, 0.015),
        fold=random.uniform(0.005, 0.02),
    )


def make_fits(seed: int) -> list[dict[str, Any]]:
    """A whole grid's fits: `key` [rate, batch, epochs, fold], `curve` of [accuracy], `test` [accuracy]."""
    random = np.random.default_rng(seed)
    world = drawn_world(random)
    folds = random.normal(0, world.fold, FOLDS)
    shared = random.normal(0, np.sqrt(1 - OWN_NOISE), FOLDS)
    keys = [(rate, batch, epochs) for rate in RATES for batch in BATCHES for epochs in EPOCHS]
    fits = []
    for rate, batch, epochs in keys:
        peculiar = random.normal(0, world.peculiar)
        for fold in range(FOLDS):
            own = random.normal(0, world.training) + peculiar
            true = np.array([_quality(world, rate, batch, epochs, epoch, random) for epoch in range(1, epochs + 1)])
            true = np.clip(true + np.minimum(1, (true - CHANCE) / 0.1) * own, 0.02, 0.99)
            noise = _walk(random, epochs) * _deviation(true, world.held_out) * np.sqrt(OWN_NOISE)
            seen = true + folds[fold] + shared[fold] * _deviation(true, world.held_out) + noise
            tested = true[-1] + random.normal(0, _deviation(true[-1], world.tested) * np.sqrt(OWN_NOISE))
            fits.append(
                {
                    "key": [rate, batch, epochs, fold],
                    "curve": [[float(np.round(value * world.held_out) / world.held_out)] for value in seen.clip(0, 1)],
                    "test": [float(np.round(tested * world.tested) / world.tested)],
                }
            )
    return fits


def _quality(world: World, rate: float, batch: int, epochs: int, epoch: int, random: np.random.Generator) -> float:
    """Accuracy after an epoch of a training of so many."""
    updates = epochs * -(-world.rows // batch)
    learning = np.log10(rate * updates * _scheduled(epoch / epochs) / (batch / 32) ** 0.5)
    past = learning - world.needed
    risen = 1 - np.exp(-(10 ** (world.sharpness * past)))
    lost = world.loss * max(0.0, past - world.overfits)
    too_large = np.log10(rate) - world.breaks - 0.5 * np.log10(batch / 32)
    kept = 1 / (1 + np.exp(np.clip((too_large + random.normal(0, 0.05)) / 0.12, -50, 50)))
    return float(CHANCE + (world.top - CHANCE) * risen * kept - lost)


def _scheduled(share: float) -> float:
    """The share of a whole training's learning that is done: a warm-up and then a line down to zero."""
    warm = min(share, WARMUP) ** 2 / WARMUP / 2
    past = max(0.0, share - WARMUP)
    return 2 * (warm + past - past**2 / (1 - WARMUP) / 2)


def _deviation(accuracy: Any, rows: int) -> Any:
    return np.sqrt(np.clip(accuracy * (1 - accuracy), 0.01, None) / rows)


def _walk(random: np.random.Generator, epochs: int) -> np.ndarray:
    """(epochs,) noise of unit variance that is much the same from one epoch to the next."""
    values = [random.normal()]
    for _ in range(epochs - 1):
        values.append(KEPT_NOISE * values[-1] + np.sqrt(1 - KEPT_NOISE**2) * random.normal())
    return np.array(values)
