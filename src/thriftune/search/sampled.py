"""Optuna's samplers and pruners as policies of a search: one configuration after the other, dropped where one fails.

Source: Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", 2019.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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

    def propose(self, looks: Sequence[Look], left: float, without: Collection[int] = ()) -> Proposal | None:
        """The next look at the configuration that is being trained, or the first at another."""
        study, trial, pruned = self._replayed(looks)
        if trial is not None:
            opened = list(dict.fromkeys(look.configuration for look in looks))[-1]
            now = [look for look in looks if look.configuration == opened][-1]
            pruned = pruned or now.configuration in without
            last = now.rung == self._space.configurations[now.configuration].rungs
            fold = now.fold + 1 if last else now.fold
            if fold < self._folds and not pruned:
                return self._proposal(now.configuration, fold, 1 if last else now.rung + 1, left)
            _close(study, trial, looks, now.configuration, pruned)
        for _ in range(10 * len(self._space)):
            number = self._asked(study)
            if number is None or number in without or number in {look.configuration for look in looks}:
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
        return Standing(winner, mean, np.full(len(self._space), np.nan))

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

    def _replayed(self, looks: Sequence[Look]) -> tuple[optuna.Study, optuna.Trial | None, bool]:
        """A study that has lived through these looks, one after the other, as its pruner must have: a pure function of
        them; the trial of the last configuration, still open; and whether the pruner would end it now."""
        study = self._study(len(looks))
        trial, pruned, before = None, False, -1
        for number in dict.fromkeys(look.configuration for look in looks):
            if trial is not None:
                _close(study, trial, looks, before, pruned)
            places = self._places(self._space.configurations[number].values)
            study.enqueue_trial(dict(zip(self._values, places, strict=True)))
            trial, pruned, before = study.ask(self._distributions()), False, number
            for look in looks:
                if look.configuration == number and look.fold == 0:
                    trial.report(look.score, look.rung)
                    pruned = bool(trial.should_prune())
        return study, trial, pruned

    def _study(self, draws: int) -> optuna.Study:
        """A fresh study, whose sampler is seeded by the search's seed and `draws`."""
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
        made: dict[str, Any] = {"seed": self._seed + draws}
        if sampler == "grid":
            made = {"search_space": {name: list(range(len(known))) for name, known in self._values.items()}} | made
        return optuna.create_study(
            study_name="search",  # by which Hyperband deals trials to its brackets
            direction="maximize",
            sampler=getattr(optuna.samplers, SAMPLERS[sampler])(**made),
            pruner=getattr(optuna.pruners, PRUNERS[pruner])(),
        )

    def _asked(self, study: optuna.Study) -> int | None:
        trial = study.ask(self._distributions())
        return self._numbers.get(tuple(trial.params[name] for name in self._values))


def _close(study: optuna.Study, trial: optuna.Trial, looks: Sequence[Look], number: int, pruned: bool) -> None:
    from optuna.trial import TrialState

    if pruned:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, _mean_of_folds(looks, number))


def _mean_of_folds(looks: Sequence[Look], number: int) -> float:
    latest = {look.fold: look.score for look in looks if look.configuration == number}
    return float(np.mean(list(latest.values())))


def policy_of(sampler: str, pruner: str, space: Space, folds: int, seed: int) -> Policy:
    """The policy that search's options name."""
    from thriftune.search.policies import CurvesPolicy

    if sampler == "curves":
        return CurvesPolicy(space, folds, seed=seed)
    return SampledPolicy(space, folds, sampler, pruner, seed)
