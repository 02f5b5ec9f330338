"""Syne Tune's multi-fidelity schedulers on a table of learning curves, one trial at a time.

Runs in an environment of its own (`scripts/syne-tune`), since the last release that has MOBSTER and DyHPO wants an
older NumPy. Reads one JSON object from stdin (scheduler, fits, replays, checkpoints) and prints one: for each replay
the configuration that Syne Tune would report as the best at each checkpoint.

The schedulers are at their defaults. Epochs are the resource, up to the table's most, as their documentation has it;
rate and batch are ordinal on a logarithmic scale. A trial that is paused and promoted goes on where it was. The best
is the one with the best validation score so far, which is what Syne Tune's `best_config` gives.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Any

from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import logordinal
from syne_tune.optimizer.legacy_baselines import ASHA, MOBSTER, DyHPO
from syne_tune.optimizer.scheduler import SchedulerDecision

SCHEDULERS = {"asha": ASHA, "mobster": MOBSTER, "dyhpo": DyHPO}


def replay(
    scheduler_name: str, curves: dict[tuple[Any, ...], list[float]], fold: int, seed: int, checkpoints: list[float]
) -> list[list[float]]:
    """[rate, batch, epochs] of the best so far at each checkpoint, which are epochs spent."""
    rates = sorted({key[0] for key in curves})
    batches = sorted({key[1] for key in curves})
    most = max(key[2] for key in curves)
    scheduler = SCHEDULERS[scheduler_name](
        {"rate": logordinal(rates), "batch": logordinal(batches)},
        metric="accuracy",
        mode="max",
        resource_attr="epoch",
        max_t=most,
        random_seed=seed,
    )
    trials: dict[int, tuple[Trial, int]] = {}
    spent, best, best_score = 0, None, float("-inf")
    winners: list[list[float]] = []
    while len(winners) < len(checkpoints):
        suggestion = scheduler.suggest(len(trials))
        if suggestion is None:  # every configuration has been tried
            break
        if suggestion.spawn_new_trial_id:
            trial, done = Trial(len(trials), suggestion.config, datetime.now()), 0
            scheduler.on_trial_add(trial)
        else:
            trial, done = trials[suggestion.checkpoint_trial_id]
        curve = curves[trial.config["rate"], trial.config["batch"], most, fold]
        for epoch in range(done + 1, most + 1):
            while len(winners) < len(checkpoints) and spent + 1 > checkpoints[len(winners)]:
                winners.append(best)
            spent += 1
            result = {"accuracy": curve[epoch - 1], "epoch": epoch}
            if result["accuracy"] > best_score:
                best_score, best = result["accuracy"], [trial.config["rate"], trial.config["batch"], most]
            decision = scheduler.on_trial_result(trial, result)
            trials[trial.trial_id] = trial, epoch
            if epoch == most:
                scheduler.on_trial_complete(trial, result)
            elif decision != SchedulerDecision.CONTINUE:
                scheduler.on_trial_remove(trial)
                break
    return winners + [best] * (len(checkpoints) - len(winners))


def main() -> None:
    """Read the request, replay, print the answers."""
    logging.disable(logging.WARNING)
    asked = json.load(sys.stdin)
    curves = {tuple(fit["key"]): [look[0] for look in fit["curve"]] for fit in asked["fits"]}
    winners = [
        replay(asked["scheduler"], curves, each["fold"], each["seed"], asked["checkpoints"])
        for each in asked["replays"]
    ]
    print(json.dumps(winners))


if __name__ == "__main__":
    main()
