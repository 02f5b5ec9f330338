"""The one thread that owns the model: it gathers concurrent requests into batches and takes streams in turns."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from thriftune.deploy.protocols import StreamingPredictor
from thriftune.deploy.refusals import closing, overloaded
from thriftune.tasks.base import Prediction, Predictor, Request

MEMORY_OF_PACE = 0.9  # weight of the past in the running mean of seconds a request

StreamEvent = int | str | Exception | None
"""What happens to a stream, in order: its prompt was read (tokens), a piece, ..., the end (None) or what broke it."""


@dataclass(frozen=True)
class Answer:
    """A prediction with the tokens of its prompt (0 where the predictor does not count)."""

    prediction: Prediction
    prompt_tokens: int


@dataclass(eq=False)
class _Job:
    request: Request
    future: Future[Answer] = field(default_factory=Future)


@dataclass(eq=False)
class StreamJob:
    """One answer to be generated piece by piece.

    Args:
        request: the conversation.
        max_tokens: its limit, or None for the predictor's own.
        temperature: 0 is greedy.
        seed: for sampling.
        emit: called on the model's thread with each event; must not raise.
    """

    request: Request
    max_tokens: int | None
    temperature: float
    seed: int | None
    emit: Callable[[StreamEvent], None]
    _cancelled: threading.Event = field(default_factory=threading.Event)
    pieces: Iterator[str] | None = None

    def cancel(self) -> None:
        """Nobody waits for the rest: stop generating."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the rest is unwanted."""
        return self._cancelled.is_set()


class ModelWorker:
    """Runs a predictor on one thread, for many callers.

    Requests that wait at the same moment are answered in one batch; after the first arrives, the worker waits up to
    `max_wait_s` for company, unless a stream is being generated. A batch that fails is tried again one by one, so
    that one bad request does not fail its neighbours. Streams advance one token each, in turns, and batches go
    between their tokens.

    Args:
        predictor: what answers; only this worker's thread calls it.
        max_batch: most requests in one batch, and most streams generated at a time.
        max_wait_s: how long the first request of a batch waits for others.
        max_queue: most requests waiting; more are refused.
        measure: the prompt tokens of a request, given its limit on the answer's tokens; raises when it does not fit.
        on_batch: told the size of each batch.
    """

    def __init__(
        self,
        predictor: Predictor | StreamingPredictor,
        max_batch: int,
        max_wait_s: float,
        max_queue: int,
        *,
        measure: Callable[[Request, int | None], int] = lambda request, limit: 0,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._predictor = predictor
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._measure = measure
        self._on_batch = on_batch

        # shared with callers, under the condition
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._waiting_streams: deque[StreamJob] = deque()
        self._closing = False
        self._request_seconds = 0.0

        # the worker's own
        self._streams: list[StreamJob] = []
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are being answered."""
        return self._thread.is_alive()

    @property
    def queued(self) -> int:
        """How many requests and streams wait for the model."""
        return len(self._waiting) + len(self._waiting_streams)

    def submit(self, requests: Sequence[Request]) -> list[Future[Answer]]:
        """Queue requests, all or none; one future a request, in order.

        Raises:
            Refusal: the queue is full, or the worker is closing.
        """
        jobs = [_Job(request) for request in requests]
        with self._changed:
            self._admit(len(jobs))
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return [job.future for job in jobs]

    def submit_stream(self, job: StreamJob) -> None:
        """Queue a stream.

        Raises:
            Refusal: the queue is full, or the worker is closing.
        """
        with self._changed:
            self._admit(1)
            self._waiting_streams.append(job)
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing new, finish what was taken, end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _admit(self, newcomers: int) -> None:
        if self._closing:
            raise closing()
        if self.queued + newcomers > self._max_queue:
            raise overloaded(max(1, math.ceil(self.queued * self._request_seconds)))

    def _run(self) -> None:
        while True:
            batch, newcomers, done = self._take()
            if done:
                return
            if batch:
                self._answer(batch)
            self._streams += newcomers
            self._streams = [job for job in self._streams if self._advance(job)]

    def _take(self) -> tuple[list[_Job], list[StreamJob], bool]:
        """The next batch, the streams that may begin, and whether all is done and closed."""
        with self._changed:
            if not self._streams:
                self._changed.wait_for(lambda: self.queued or self._closing)
                if self._waiting and not self._waiting_streams:
                    self._changed.wait_for(
                        lambda: len(self._waiting) >= self._max_batch or self._waiting_streams or self._closing,
                        timeout=self._max_wait_s,
                    )
            batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
            free = min(self._max_batch - len(self._streams), len(self._waiting_streams))
            newcomers = [self._waiting_streams.popleft() for _ in range(free)]
            done = self._closing and not (batch or newcomers or self._streams)
            return batch, newcomers, done

    def _answer(self, batch: list[_Job]) -> None:
        measured: list[tuple[_Job, int]] = []
        for job in batch:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                measured.append((job, self._measure(job.request, None)))
            except Exception as failure:
                job.future.set_exception(failure)
        if measured:
            started = time.monotonic()
            self._predict(measured)
            self._on_batch(len(measured))
            self._keep_pace((time.monotonic() - started) / len(measured))

    def _predict(self, measured: list[tuple[_Job, int]]) -> None:
        try:
            predictions = self._predictor.predict([job.request for job, _ in measured])
            if len(predictions) != len(measured):
                raise ValueError(f"{self._predictor.name} gave {len(predictions)} answers to {len(measured)} requests")
        except Exception as failure:
            if len(measured) == 1:
                measured[0][0].future.set_exception(failure)
                return
            for one in measured:
                self._predict([one])
            return
        for (job, prompt_tokens), prediction in zip(measured, predictions, strict=True):
            job.future.set_result(Answer(prediction, prompt_tokens))

    def _keep_pace(self, seconds: float) -> None:
        with self._changed:
            past = self._request_seconds or seconds
            self._request_seconds = MEMORY_OF_PACE * past + (1 - MEMORY_OF_PACE) * seconds

    def _advance(self, job: StreamJob) -> bool:
        """One more piece of a stream; whether it goes on."""
        try:
            if job.cancelled:
                self._drop(job)
                return False
            if job.pieces is None:
                job.emit(self._measure(job.request, job.max_tokens))
                job.pieces = self._pieces(job)
            job.emit(next(job.pieces))
            return True
        except StopIteration:
            job.emit(None)
        except Exception as failure:
            job.emit(failure)
        return False

    def _drop(self, job: StreamJob) -> None:
        close = getattr(job.pieces, "close", None)
        if close is not None:
            close()

    def _pieces(self, job: StreamJob) -> Iterator[str]:
        if isinstance(self._predictor, StreamingPredictor):
            limit = self._predictor.max_new_tokens if job.max_tokens is None else job.max_tokens
            return self._predictor.stream(job.request, limit, job.temperature, job.seed)
        return iter([self._predictor.predict([job.request])[0].output])
