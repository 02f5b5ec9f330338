"""Optuna's samplers and pruners as policies of a search: one configuration after the other, dropped where one fails.

Source: Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thriftune.errors import MissingExtra
from thriftune.search.curves import Look
from thriftune.search.policies import Policy, Proposal, Standing
from thriftune.search.space import Space

if TYPE_CHECKING:
    import optuna

SAMPLERS = {
    "grid": "GridSampler",
    "random": "RandomSampler",
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "genetic": "NSGAIISampler",
    "cma": "CmaEsSampler",
}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}
FEW_TO_WIN = 2  # configurations that a winner is chosen from have been seen to their end, if so many were


class SampledPolicy:
    """A sampler draws configurations, each is trained on every fold, and a pruner may end it on the way.

    A sampler knows a configuration by its place in each dimension, so that numbers keep their order.

    Args:
        space: what is searched.
        folds: how many there are.
        sampler: a name in `SAMPLERS`.
        pruner: a name in `PRUNERS`.
        seed: of the sampler's draws.
    """

    def __init__(self, space: Space, folds: int, sampler: str, pruner: str, seed: int = 0) -> None:
        self._space, self._folds, self._seed = space, folds, seed
        self._names = (sampler, pruner)
        names = list(space.configurations[0].values)
        self._values: dict[str, list[Any]] = {
            name: list(dict.fromkeys(one.values[name] for one in space.configurations)) for name in names
        }
        self._numbers = {self._places(one.values): number for number, one in enumerate(space.configurations)}

    def propose(self, looks: Sequence[Look], left: float) -> Proposal | None:
        """The next look at the configuration that is being trained, or the first at another."""
        if looks:
            now = looks[-1]
            last = now.rung == self._space.configurations[now.configuration].rungs
            fold = now.fold + 1 if last else now.fold
            if fold < self._folds and not self._pruned(looks, now):
                return self._proposal(now.configuration, fold, 1 if last else now.rung + 1, left)
        study = self._study(looks)
        for _ in range(10 * len(self._space)):
            number = self._asked(study)
            if number is None or number in {look.configuration for look in looks}:
                continue
            return self._proposal(number, 0, 1, left)
        return None

    def standing(self, looks: Sequence[Look]) -> Standing:
        """By the mean of the folds' last scores; of configurations that were seen to an end, where there are some."""
        mean, ended = np.full(len(self._space), -np.inf), np.zeros(len(self._space), dtype=bool)
        for number in {look.configuration for look in looks}:
            mean[number] = _mean_of_folds(looks, number)
            ended[number] = any(
                look.rung == self._space.configurations[number].rungs for look in looks if look.configuration == number
            )
        among = np.where(ended, mean, -np.inf) if ended.sum() >= FEW_TO_WIN else mean
        winner = int(np.argmax(among))
        return Standing(winner, winner, mean, np.full(len(self._space), np.nan))

    def _proposal(self, number: int, fold: int, rung: int, left: float) -> Proposal | None:
        one = self._space.configurations[number]
        if one.rung_cost > left:
            return None
        return Proposal(number, fold, rung, np.inf, one.cost - (rung - 1) * one.rung_cost)

    def _places(self, values: Any) -> tuple[int, ...]:
        return tuple(known.index(values[name]) for name, known in self._values.items())

    def _distributions(self) -> dict[str, Any]:
        from optuna.distributions import IntDistribution

        return {name: IntDistribution(0, len(known) - 1) for name, known in self._values.items()}

    def _study(self, looks: Sequence[Look]) -> optuna.Study:
        """A study that has seen these looks; a pure function of them."""
        try:
            import optuna
        except ImportError as missing:
            raise MissingExtra(
                "this sampler needs Optuna, which is not installed",
                where="search.sampler",
                found=self._names[0],
                expected="the extra that brings it, or sampler: curves",
                way_out='pip install "thriftune[search]", or leave search.sampler out',
            ) from missing

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler, pruner = self._names
        made: dict[str, Any] = {"seed": self._seed + len(looks)}
        if sampler == "grid":
            made = {"search_space": {name: list(range(len(known))) for name, known in self._values.items()}} | made
        study = optuna.create_study(
            direction="maximize",
            sampler=getattr(optuna.samplers, SAMPLERS[sampler])(**made),
            pruner=getattr(optuna.pruners, PRUNERS[pruner])(),
        )
        distributions = self._distributions()
        for number in dict.fromkeys(look.configuration for look in looks):
            places = self._places(self._space.configurations[number].values)
            own = [look for look in looks if look.configuration == number]
            study.add_trial(
                optuna.trial.create_trial(
                    value=_mean_of_folds(looks, number),
                    params=dict(zip(self._values, places, strict=True)),
                    distributions=distributions,
                    intermediate_values={look.rung: look.score for look in own if look.fold == 0},
                )
            )
        return study

    def _asked(self, study: optuna.Study) -> int | None:
        trial = study.ask(self._distributions())
        return self._numbers.get(tuple(trial.params[name] for name in self._values))

    def _pruned(self, looks: Sequence[Look], now: Look) -> bool:
        """Whether the pruner, who sees the other configurations, would end this one now."""
        others = self._study([look for look in looks if look.configuration != now.configuration])
        trial = others.ask(self._distributions())
        for look in looks:
            if look.configuration == now.configuration and look.fold == 0:
                trial.report(look.score, look.rung)
        return bool(trial.should_prune())


def _mean_of_folds(looks: Sequence[Look], number: int) -> float:
    latest = {look.fold: look.score for look in looks if look.configuration == number}
    return float(np.mean(list(latest.values())))


def policy_of(sampler: str, pruner: str, space: Space, folds: int, seed: int) -> Policy:
    """The policy that search's options name."""
    from thriftune.search.policies import CurvesPolicy

    if sampler == "curves":
        return CurvesPolicy(space, folds, seed=seed)
    return SampledPolicy(space, folds, sampler, pruner, seed)
