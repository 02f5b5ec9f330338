"""The part of the line that buys evidence where the test rows cannot tell whether fine-tuning helped.

It stands behind the verdict. What is left of budget and deadline pays for further trainings of the same recipe, each
without a part of the training rows, which it then answers (see `evaluate/evidence.py`); the tuned model stays as it
is. Every part's answers are an artifact: a run that is taken up again goes on with the next.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftune.artifacts import Artifact, recipe_key
from thriftune.asked import judged_in_turn
from thriftune.errors import OutOfBudget
from thriftune.evaluate.evidence import SURE, chance, parts_wanted, pooled, undecided
from thriftune.evaluate.types import Comparison, Evaluation
from thriftune.plan.plan import NOTHING
from thriftune.search_line import work_maker
from thriftune.session import Session
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    import polars as pl

    from thriftune.budget.forecast import Forecast
    from thriftune.prepare.types import Splits
    from thriftune.search.trials import Trials
    from thriftune.tasks.base import Predictor
    from thriftune.train.costs import Costs
    from thriftune.train.machine import Machine
    from thriftune.train.train import Work

STAGE, STAGE_VERSION = "evidence", 1
STUDY = "evidence."  # the name of its trainings among the attempt's events
DECISION = "parts held out in turn"
FEWEST_PARTS = 3  # a model without more than a third of the rows is another one
BESIDE = 1.5  # how much longer than expected what surrounds a training may take


def gathered(session: Session, splits: Splits, evaluation: Evaluation, meant: Callable[[str], str]) -> None:
    """Give the verdict again by more rows, where those that there are cannot tell and more of them would.

    Args:
        session: the run, its verdict given.
        splits: the prepared rows.
        evaluation: by the test split.
        meant: the model that a reference means in this attempt.
    """
    open_still = undecided(evaluation)
    if not open_still or not judged_in_turn(session, splits.by_part):
        return
    session.outlook.expect(STAGE, "training", NOTHING)
    with session.part(STAGE, metered=False) as span:
        parts = _Parts.of(session, splits, evaluation, meant)
        count, of = session.decisions.take(DECISION, partial(parts.wanted, open_still))
        found: list[Artifact] = []
        try:
            for part in range(count):
                found.append(parts.answered(part, of))
                rows = parts.sizes(of)[part]
                session.context.events.emit("evidence.part", part=part + 1, of=count, rows=rows)
        except (OutOfBudget, _OutOfRoom) as refusal:
            what = f"{len(found)} of {count} parts were held out in turn: {refusal}"
            session.context.events.emit("warning", where="evidence", what=what)
        span.reused = bool(found) and all(artifact.reused for artifact in found)
        if found:
            session.did_all = session.did_all and span.reused
            _judge(session, evaluation, found)


def _judge(session: Session, evaluation: Evaluation, found: Sequence[Artifact]) -> None:
    """The verdict by the rows of the test split and those that were held out in turn, together."""
    import polars as pl

    from thriftune.evaluate import evaluate
    from thriftune.evaluate.looks import record_look

    file, context, tuned = session.project.file, session.context, evaluation.tuned
    names = [tuned.predictor, *(scores.predictor for scores in evaluation.baselines)]
    more = [{name: pl.read_parquet(artifact.folder / f"{name}.parquet") for name in names} for artifact in found]
    ids = [row for answers in (tuned.predictions, *(one[tuned.predictor] for one in more)) for row in answers["id"]]
    look = record_look(context.events, tuned.predictor, tuned.candidate, ids)
    all_of = [pooled(scores, more, look if scores is tuned else 0) for scores in (tuned, *evaluation.baselines)]
    note = (
        f"{len(ids) - tuned.rows} of these {len(ids)} rows are training rows, held out in turn from {len(found)} more "
        f"trainings of the same recipe, since the {tuned.rows} rows of the test split could not tell."
    )
    evaluate.conclude(
        all_of[0],
        all_of[1:],
        file.evaluate,
        context,
        target=file.objective.target,
        latency=evaluation.latency,
        note=note,
    )


class _OutOfRoom(Exception):
    """What is left does not hold the next part beside what must still follow; the message says so."""


@dataclass
class _Parts:
    """The training rows, cut into so many parts (`of`) that are held out in turn.

    Args:
        session: the run.
        splits: the prepared rows.
        evaluation: by the test split.
        make: makes the work on rows to train on and rows to validate on.
        train: all training rows.
        validation: the validation split, by which every training chooses its best weights.
    """

    session: Session
    splits: Splits
    evaluation: Evaluation
    make: Callable[[pl.DataFrame, pl.DataFrame], Work]
    train: pl.DataFrame
    validation: pl.DataFrame

    def __post_init__(self) -> None:
        self._work = lru_cache(maxsize=1)(self._make_work)
        self._training = cache(self._estimated)
        self._held_out = cache(self._cut)

    @staticmethod
    def of(session: Session, splits: Splits, evaluation: Evaluation, meant: Callable[[str], str]) -> _Parts:
        """The training rows of a run, not cut yet."""
        import polars as pl

        reference = session.project.file.model_references[0]
        maker = work_maker(session, splits, {reference: meant(reference)})
        train, validation = pl.read_parquet(splits.train), pl.read_parquet(splits.validation)
        make = partial(maker, reference, session.project.file.train)
        return _Parts(session, splits, evaluation, make, train, validation)

    def sizes(self, of: int) -> list[int]:
        """Rows of each part."""
        import numpy as np

        return [int(rows) for rows in np.bincount(self._held_out(of), minlength=of)]

    def _cut(self, of: int) -> Any:
        """(rows,) the part that each training row is in."""
        from thriftune.search.folds import folds_of

        return folds_of(self.train, of, kind_of(self.splits.task).classes, self.session.project.file.seed)

    def wanted(self, comparisons: Sequence[Comparison]) -> tuple[tuple[int, int], str]:
        """How many parts are held out in turn, of how many, and why: what tells, as far as budget and deadline hold it.

        Models of many parts are nearest to the tuned one, and those of few parts answer most rows in a second. So the
        rows are cut into the most parts with which they tell, or else as tells best.

        Args:
            comparisons: those that the test rows leave undecided.
        """
        most = self.session.project.file.evaluate.held_out_in_turn
        cuts = sorted(range(most, min(most, FEWEST_PARTS) - 1, -1), key=lambda of: self._there(0, of) is None)
        best: tuple[float, tuple[int, int], str] | None = None
        for of in cuts:
            count, tells, because = self._within(comparisons, of)
            if best is None or tells > best[0]:
                best = tells, (count, of), because
            if count and tells >= SURE:
                break
        assert best is not None
        return best[1:]

    def _within(self, comparisons: Sequence[Comparison], of: int) -> tuple[int, float, str]:
        """How many parts are held out, the chance that they tell, or that all which fit would, and why."""
        have, sizes = comparisons[0].rows, self.sizes(of)
        because = f"{have} test rows cannot tell"
        count = parts_wanted(comparisons, sizes)
        missing = [part for part in range(count) if self._there(part, of) is None]
        if missing:
            holds = count - len(missing)
            try:
                expected, most = self._part_seconds(of)
            except _OutOfRoom as refusal:
                left = str(refusal)
            else:
                room = self._room()
                holds += 1 + int((room - most) / expected) if room >= most else 0
                left = f"what is left holds {holds} of {count} trainings of {expected:.0f} s"
            if holds < count:
                because += f", and {left}"
                sizes = sizes[:holds]
                count = parts_wanted(comparisons, sizes)
        rows = have + sum(sizes[:count] if count else sizes)
        tells = chance(comparisons, rows)
        because += f"; {rows:,} rows would with a chance of {tells:.0%}"
        if not count:
            return 0, tells, f"{because}, which is too little"
        return count, tells, f"{because}: {count} of {of} parts of the training rows are added"

    def answered(self, part: int, of: int) -> Artifact:
        """The answers to a part's rows of a model and baselines that have not seen them.

        Raises:
            OutOfBudget, _OutOfRoom: what is left does not hold it.
        """
        about, key = {"part": part, "of": of}, self._key(part, of)
        return self.session.context.artifacts.build(STAGE, key, about, partial(self._write, part, of))

    def _write(self, part: int, of: int, folder: Path) -> None:
        import polars as pl

        from thriftune.search.policies import Proposal
        from thriftune.search.trials import Failed, OutOfMoney

        if self._part_seconds(of)[1] > self._room():
            raise _OutOfRoom("what is left does not hold the next")
        held = pl.Series(self._held_out(of) == part)
        rest, rows = self.train.filter(~held), self.train.filter(held)
        trials = self._trials(of)
        looks = self._looks(self._work(part, of))
        try:
            trials.look(Proposal(0, part, looks, math.inf, 0.0), looks)
        except (OutOfMoney, Failed) as refusal:
            raise _OutOfRoom(str(refusal) or "what is left did not hold the next") from refusal
        task, model = trials.trained(0, part)
        predictors = [task.predictor(model, self.evaluation.tuned.predictor), *self._baselines(rest, folder)]
        if "untuned" in {scores.predictor for scores in self.evaluation.baselines}:
            predictors.append(task.untuned())
        for predictor in predictors:
            self._ask(predictor, rows).write_parquet(folder / f"{predictor.name}.parquet")
        trials.drop(0, part)

    def _baselines(self, train: pl.DataFrame, folder: Path) -> list[Predictor]:
        from thriftune.select import select

        place = folder / "baselines"
        place.mkdir()
        options, context = self.session.project.file.select, self.session.context
        predictors = select.fit(train, self.validation, self.splits.task, options, place, context)
        shutil.rmtree(place)
        return predictors

    def _ask(self, predictor: Predictor, rows: pl.DataFrame) -> pl.DataFrame:
        from thriftune.evaluate.asking import Asking

        file, context = self.session.project.file, self.session.context
        return Asking(predictor, self.splits.task, file.evaluate, context, metered=True, progress=None).ask(rows)

    def _there(self, part: int, of: int) -> Artifact | None:
        return self.session.context.artifacts.find(STAGE, self._key(part, of))

    def _key(self, part: int, of: int) -> str:
        file = self.session.project.file
        recipe = {
            "train": file.train.model_dump(mode="json"),
            "select": file.select.model_dump(mode="json"),
            "part": part,
            "of": of,
            "seed": file.seed,
            "tuned": self.evaluation.tuned.candidate,
        }
        return recipe_key(STAGE, STAGE_VERSION, {"splits": self.splits.content_hash}, recipe, {})

    # the trainings

    def _make_work(self, part: int, of: int) -> Work:
        import polars as pl

        return self.make(self.train.filter(pl.Series(self._held_out(of) != part)), self.validation)

    def _trials(self, of: int) -> Trials:
        from thriftune.search.trials import TRIAL_KINDS, Trials

        context = self.session.context
        machine, costs = self._bench
        return Trials(
            work_of=lambda _number, part: self._work(part, of),
            machine=machine,
            costs=costs,
            meter=context.meter,
            events=context.events,
            recorded=partial(context.events.read, attempt=context.attempt, kinds=TRIAL_KINDS),
            folder=context.root / STAGE / str(context.attempt),
            interrupted=self.session.interrupted,
            study=STUDY,
        )

    @cached_property
    def _bench(self) -> tuple[Machine, Costs]:
        """How to compute, and what training takes: probed where this is first asked.

        Raises:
            _OutOfRoom: what is left does not hold that, and so no training either.
        """
        from thriftune.search.trials import probed
        from thriftune.train.machine import choose_machine

        session = self.session
        most = session.record.forecast(f"probe/{session.project.file.model_references[0]}").p95
        if self._room() < most:
            raise _OutOfRoom(f"what is left does not hold {most:.0f} s in which real steps are probed")
        context = session.context
        work, scratch = self._work(0, session.project.file.evaluate.held_out_in_turn), context.root / STAGE / "probe"
        machine = choose_machine(session.decisions.take, work.hidden_size, session.project.file.train, session.record)
        with context.meter.unit("training", "evidence: real steps are probed", most):
            costs = probed(work, machine, session.decisions, context.events, scratch, context.root)
        return machine, costs

    def _looks(self, work: Work) -> int:
        """How many validations a training has, as the tuned model's had."""
        from thriftune.train.train import validate_every

        every, _ = validate_every(work, self._bench[1])
        return -(-work.full_steps // every)

    def _estimated(self, of: int) -> Forecast:
        """Seconds of a training without a part: the parts are about as large."""
        from thriftune.train.train import estimate, validate_every

        (_, costs), work = self._bench, self._work(0, of)
        every, _ = validate_every(work, costs)
        return estimate(work, costs, every, work.full_steps, self.session.project.file.train)

    def _part_seconds(self, of: int) -> tuple[float, float]:
        """What a part is expected to take, and the most: a training, the baselines, and all answers.

        Raises:
            _OutOfRoom: what is left is too little to find out.
        """
        from thriftune.select import select

        training = self._training(of)
        file, rows = self.session.project.file, max(self.sizes(of))
        labels = self.evaluation.tuned.predictions["target"].n_unique()
        fitting = select.estimate(len(self.train), labels, self.splits.task, file.select).p50
        asked = [self.evaluation.tuned, *self.evaluation.baselines]
        answering = rows * sum(scores.seconds / scores.rows for scores in asked)
        opening = self.session.record.forecast(f"load/{file.model_references[0]}").p50
        beside = fitting + answering + 2 * opening
        return training.p50 + beside, training.p95 + BESIDE * beside

    def _room(self) -> float:
        """Seconds that are left when what must still follow, and the comparison, are kept free."""
        return self.session.limits().seconds - self.session.outlook.after("verdict") - self._comparing()

    def _comparing(self) -> float:
        from thriftune.evaluate.evaluate import comparison_seconds

        rows = self.evaluation.tuned.rows + len(self.train)
        labels = self.evaluation.tuned.predictions["target"].n_unique()
        options = self.session.project.file.evaluate
        return comparison_seconds(rows, self.splits.task, options, len(self.evaluation.baselines), labels).p95
