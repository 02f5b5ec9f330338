"""One answer as it is generated: the event loop's side of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from thriftune.deploy.chat import ChatRequest, StopFilter
from thriftune.deploy.worker import ModelWorker, StreamEvent, StreamJob
from thriftune.tasks.base import Message


class Generation:
    """An answer that the model's thread generates and a coroutine reads.

    Args:
        ask: the request.
        messages: its conversation, cleaned.
        limit: the most tokens of the answer; None where the predictor does not count.
    """

    def __init__(self, ask: ChatRequest, messages: list[Message], limit: int | None) -> None:
        self._events: asyncio.Queue[StreamEvent] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._filter = StopFilter(ask.stop)
        self._limit = limit
        self._job = StreamJob(messages, ask.max_tokens, ask.temperature, ask.seed, self._emit)
        self.prompt_tokens = 0
        self.completion_tokens = 0

    async def begin(self, worker: ModelWorker) -> None:
        """Queue it, and wait until its prompt has been read.

        Raises:
            Refusal: there is no room for it, in the queue or in the model's context.
        """
        worker.submit_stream(self._job)
        first = await self._next()
        assert isinstance(first, int)
        self.prompt_tokens = first

    async def texts(self) -> AsyncGenerator[str, None]:
        """The answer's text, piece by piece, up to the first stop sequence."""
        try:
            while isinstance(piece := await self._next(), str):
                self.completion_tokens += 1
                if shown := self._filter.push(piece):
                    yield shown
                if self._filter.stopped:
                    return
            if held := self._filter.rest():
                yield held
        finally:
            self._job.cancel()

    @property
    def finish_reason(self) -> str:
        """`length` when the limit ended it, else `stop`."""
        full = self._limit is not None and self.completion_tokens >= self._limit
        return "length" if full and not self._filter.stopped else "stop"

    async def _next(self) -> int | str | None:
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def _emit(self, event: StreamEvent) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the event loop is closed: nobody reads any more
            self._job.cancel()
