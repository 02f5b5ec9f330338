"""A tuning job from its price to its end: reserved, sent once, waited for, settled.

Its name is a recorded decision as soon as it is known. Between sending and recording it is found by a display name that
is made of the project's and the recipe's, so that a killed run never sends it twice. Its money stays reserved in the
ledger, under no machine's lease, until its provider says what is billed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from thriftune.budget.decisions import Decisions
from thriftune.context import Context
from thriftune.errors import BadInput, CannotLand, Interrupted, ThriftuneError
from thriftune.faults import crash_point
from thriftune.managed.patience import ATTEMPTS, out_of_reach, patiently, pause_after
from thriftune.managed.types import MARKS, Backend, Job, Order, Question, Unavailable
from thriftune.money.amounts import from_nano, shown_money, to_nano
from thriftune.money.ledger import Ledger, Reservation, Transfer
from thriftune.money.tokens import CATEGORY, TokenPrice

PHASE = "training"
WHAT = "tuning job"  # with its display name: the decision that holds its name, by the number of the try
COUNT_MARGIN = 1.1  # billed over counted tokens, for a turn's marks, which counting does not tell
FIRST_PAUSE, PAUSE_GROWTH, LONGEST_PAUSE = 1.0, 1.5, 60.0  # seconds between two looks at a job
CALL_SECONDS = 60.0  # that a call may take
UPLOAD_SECONDS = 600.0
SLICE_SECONDS = 0.2  # how long Ctrl-C waits
CANCEL_SECONDS = 30.0  # for which a cancelled job is watched


@dataclass(frozen=True)
class Quote:
    """What a tuning job will cost.

    Args:
        counted: tokens of the training rows, as the provider counts them.
        most: an upper bound of the tokens that are billed for one pass.
        epochs: passes.
        price: of a training token.
    """

    counted: int
    most: int
    epochs: int
    price: TokenPrice

    @property
    def upper_nano(self) -> int:
        """The most that the job costs, in nano-units."""
        return self.price.cost_nano(self.most * self.epochs)

    def __str__(self) -> str:
        upper = shown_money(from_nano(self.upper_nano), self.price.currency)
        return (
            f"the tuning job costs up to {upper}: {self.most:,} tokens at most ({self.counted:,} were counted) × "
            f"{self.epochs} epochs × {self.price.per_million} {self.price.currency} a million"
        )


def quote(
    backend: Backend,
    model: str,
    questions: Sequence[Question],
    targets: Sequence[str],
    epochs: int,
    price: TokenPrice,
) -> Quote:
    """What a job on these rows will cost: their tokens are counted by the provider, which costs nothing.

    Raises:
        BadInput: the provider refuses, or is out of reach.
    """
    rows = [
        replace(question, turns=(*question.turns, ("model", target)))
        for question, target in zip(questions, targets, strict=True)
    ]
    counted = patiently(lambda: backend.count(model, rows))
    bytes_bound = sum(row.most_input_tokens for row in rows)
    marks = MARKS * sum(len(row.turns) + 1 for row in rows)
    return Quote(counted, min(bytes_bound, math.ceil(COUNT_MARGIN * counted) + marks), epochs, price)


@dataclass(frozen=True)
class Tuning:
    """One recipe's tuning job.

    Args:
        backend: the provider.
        order: the job, without the rows' place; its display name lacks the number of the try.
        quote: what it costs.
        context: the run's surroundings.
        decisions: the attempt's journal.
        remaining: seconds that money and deadline leave, what is still to be bought taken off.
        tail: seconds that what follows the job needs.
        interrupted: whether the user has asked to stop.
    """

    backend: Backend
    order: Order
    quote: Quote
    context: Context
    decisions: Decisions
    remaining: Callable[[], float]
    tail: Callable[[], float]
    interrupted: Callable[[], bool]

    def run(self, rows: bytes) -> Job:
        """The job of this recipe, succeeded and paid: an earlier process's where there is one, else a new one.

        Args:
            rows: to train on, as JSON lines.

        Raises:
            OutOfBudget: the money left does not hold its upper cost; nothing was sent.
            CannotLand: money or time ran out while it was at work; it was cancelled.
            Interrupted: the user stopped; the job goes on.
            BadInput: it failed or was cancelled, or the provider refuses.
        """
        for number in count():
            job = self._known(number)
            if job is None:
                return self._wait(self._send(number, rows), number)
            if job.state not in ("failed", "cancelled"):
                return self._wait(job, number)
            self._settle(job, number)  # of an earlier process: this one tries again
        raise AssertionError("counting does not end")

    def _display_name(self, number: int) -> str:
        return f"{self.order.display_name}-{number}"

    def _known(self, number: int) -> Job | None:
        """The job of a try that was made already."""
        name = self.decisions.recorded(f"{WHAT} {self.order.display_name}", number)
        if name is not None:
            return patiently(lambda: self.backend.get(str(name)))
        job = patiently(lambda: self.backend.find(self._display_name(number)))
        if job is not None:
            self._reserve(number)
            self._record(job, number, "an earlier process sent it")
        return job

    def _send(self, number: int, rows: bytes) -> Job:
        reservation = self._reserve(number)
        try:
            with self.context.meter.unit(PHASE, "send the training rows", min(UPLOAD_SECONDS, self._spare())):
                place = patiently(lambda: self.backend.upload(rows))
            order = replace(self.order, data=place, display_name=self._display_name(number))
            with self.context.meter.unit(PHASE, "send the tuning job", min(UPLOAD_SECONDS, self._spare())):
                job = self._create(order)
        except ThriftuneError as error:
            unsure = isinstance(error.__cause__, Unavailable)  # the job may be there: the next run looks
            if reservation is not None and not unsure:
                self.context.ledger.void(reservation)
            raise
        crash_point("job.sent")
        self._record(job, number, str(self.quote))
        return job

    def _spare(self) -> float:
        """The most that a unit before the job may take, so that what follows still fits."""
        return max(1.0, self.remaining() - self.tail())

    def _create(self, order: Order) -> Job:
        """Send an order; where it is not known whether it arrived, look before it is sent again."""
        for failures in range(1, ATTEMPTS + 1):
            try:
                found = self.backend.find(order.display_name) if failures > 1 else None
                return found or self.backend.create(order)
            except Unavailable as refusal:
                if failures == ATTEMPTS:
                    raise out_of_reach(refusal, failures) from refusal
                self.context.clock.sleep(pause_after(failures, refusal))
        raise AssertionError("the last attempt returns or raises")

    def _record(self, job: Job, number: int, because: str) -> None:
        self.decisions.take(f"{WHAT} {self.order.display_name}", lambda: (job.name, because), number)

    def _wait(self, job: Job, number: int) -> Job:
        """Look at a job until it has ended well."""
        pause, refusal, failures, told = FIRST_PAUSE, None, 0, ""
        while not job.ended:
            if job.told != told:
                told = job.told
                self.context.events.emit("job.state", name=job.name, state=told)
            if self.interrupted():
                raise self._stopped(job)
            wait = pause if refusal is None else pause_after(failures, refusal)
            if self.remaining() < self.tail() + wait + CALL_SECONDS:
                job = self._end(job, number)
                break
            with self.context.meter.unit(PHASE, "wait for the tuning job", wait + CALL_SECONDS):
                self._sleep(wait)
                try:
                    job, refusal, failures = self.backend.get(job.name), None, 0
                    pause = min(LONGEST_PAUSE, PAUSE_GROWTH * pause)
                except Unavailable as busy:
                    refusal, failures = busy, failures + 1
            if refusal is not None and failures == ATTEMPTS:
                raise out_of_reach(refusal, failures)
        self.context.events.emit("job.state", name=job.name, state=job.told)
        self._settle(job, number)
        if job.state == "succeeded":
            return job
        raise BadInput(
            "the tuning job failed" if job.state == "failed" else "the tuning job was cancelled",
            where=job.name,
            found=job.message or job.told,
            expected="a tuned model",
            way_out="mend what it names; `thriftune run` sends a new job",
        )

    def _end(self, job: Job, number: int) -> Job:
        """Cancel a job that money or time do not hold any longer; one that has succeeded meanwhile is taken.

        Raises:
            CannotLand: it was cancelled, or is still being cancelled.
        """
        patiently(lambda: self.backend.cancel(job.name))
        ends = self.context.clock.now() + CANCEL_SECONDS
        seen = job
        while not seen.ended and self.context.clock.now() < ends:
            self.context.clock.sleep(FIRST_PAUSE)
            seen = patiently(lambda: self.backend.get(job.name))
        if seen.state == "succeeded":
            return seen
        if seen.ended:
            self._settle(seen, number)
        raise CannotLand(
            "the tuning job was cancelled: waiting longer does not leave what judging its model needs",
            where=job.name,
            found=f"{max(0.0, self.remaining()):.0f} s left by money or deadline, {self.tail():.0f} s needed after it",
            expected="a job that ends before",
            way_out="set a later deadline, or a larger budget where that binds, and run again: a new job is sent",
        )

    def _stopped(self, job: Job) -> Interrupted:
        return Interrupted(
            "stopped; the tuning job goes on at its provider",
            where=job.name,
            found=job.told,
            way_out="`thriftune run` comes back to it; `thriftune cancel` ends it",
        )

    def _sleep(self, seconds: float) -> None:
        ends = self.context.clock.now() + seconds
        while (left := ends - self.context.clock.now()) > 0 and not self.interrupted():
            self.context.clock.sleep(min(SLICE_SECONDS, left))

    def _unit(self, number: int) -> str:
        return f"{WHAT} {self._display_name(number)}"

    def _entry(self, number: int) -> Transfer | None:
        """What the ledger has of a try, the latest."""
        return next((t for t in reversed(self.context.ledger.transfers()) if t.unit == self._unit(number)), None)

    def _reserve(self, number: int) -> Reservation | None:
        """Hold the upper cost, unless an earlier process did; None where it is paid already."""
        known = self._entry(number)
        if known is None or known.state == "voided":
            made = self.context.ledger.reserve(PHASE, CATEGORY, self.quote.upper_nano, self._unit(number))
            self.context.meter.recount()
            return made
        return _pending(known)

    def _settle(self, job: Job, number: int) -> None:
        """Post what is billed for a job that has ended; a cautious estimate where its provider does not say."""
        known = self._entry(number)
        reservation = None if known is None else _pending(known)
        if reservation is None:
            return
        ledger = self.context.ledger
        if job.state != "succeeded" and not job.started:
            ledger.void(reservation)
            return
        epochs = self.quote.epochs
        if job.state != "succeeded" and job.epochs_done is not None:
            epochs = min(epochs, job.epochs_done + 1)
        tokens = self.quote.most if job.billable_tokens is None else job.billable_tokens
        cost = self.quote.price.cost_nano(tokens * epochs)
        ledger.post(reservation, cost, 0.0, job.state != "succeeded" or job.billable_tokens is None)
        self.context.meter.recount()
        if cost > reservation.upper_nano:
            told = f"{tokens:,} tokens a pass are billed, where {self.quote.most:,} were the most expected"
            self.context.events.emit("warning", where=job.name, what=told)


def is_reserved(ledger: Ledger, display_name: str) -> bool:
    """Whether the ledger holds money for a job of this name, or has paid it."""
    unit = f"{WHAT} {display_name}-"
    return any(entry.unit.startswith(unit) and entry.state != "voided" for entry in ledger.transfers())


def at_work(ledger: Ledger) -> list[str]:
    """The display names, with the number of the try, of the jobs whose money is reserved and not settled."""
    units = [entry.unit for entry in ledger.transfers() if (entry.category, entry.state) == (CATEGORY, "pending")]
    return [unit.removeprefix(f"{WHAT} ") for unit in units if unit.startswith(f"{WHAT} ")]


def _pending(entry: Transfer) -> Reservation | None:
    """The reservation of an entry; None where it is settled."""
    if entry.state != "pending":
        return None
    return Reservation(entry.id, entry.phase, entry.category, entry.unit, to_nano(entry.reserved))
