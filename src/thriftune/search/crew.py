"""Several workers on one study, and what becomes of one that is killed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from thriftune.search.worker import Brief, Order, work

END_SECONDS = 5.0  # a worker that is asked to end may take so long


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    order: Order | None = None


@dataclass(frozen=True)
class Answer:
    """What became of an order.

    Args:
        order: the look that was asked for.
        score: that it found; None where its worker was lost or its training broke down.
        failed: why its training broke down.
        status: with which the worker's process ended, where it was lost.
    """

    order: Order
    score: float | None
    failed: str = ""
    status: int | None = None


class Crew:
    """Workers in processes of their own, each at one look at a time.

    Args:
        brief: what each is told; the machine's threads are shared out among them.
        count: of the workers.
    """

    def __init__(self, brief: Brief, count: int) -> None:
        threads = max(1, brief.machine.threads // count)
        self._brief = replace(brief, machine=replace(brief.machine, threads=threads))
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._begun() for _ in range(count)]

    @property
    def orders(self) -> list[Order]:
        """What is being worked on."""
        return [worker.order for worker in self._workers if worker.order is not None]

    @property
    def free(self) -> int:
        """Workers that wait for an order."""
        return sum(worker.order is None for worker in self._workers)

    def begin(self, order: Order) -> None:
        """Hand an order to a worker that is free."""
        worker = next(worker for worker in self._workers if worker.order is None)
        worker.order = order
        with suppress(BrokenPipeError, ConnectionResetError):  # then it is dead, and `answers` finds it so
            worker.pipe.send(order)

    def answers(self, seconds: float) -> list[Answer]:
        """What was answered within so many seconds, as soon as something is; a lost worker is replaced."""
        busy = [worker for worker in self._workers if worker.order is not None]
        ready = wait([worker.pipe for worker in busy], timeout=seconds)
        return [self._answered(worker) for worker in busy if worker.pipe in ready]

    def end(self) -> None:
        """End all workers, whatever they are at."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.order is None:
                worker.process.join(END_SECONDS)
            worker.process.kill()
            worker.process.join()

    def _begun(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(self._brief, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _answered(self, worker: _Worker) -> Answer:
        order = worker.order
        assert order is not None
        worker.order = None
        try:
            answer = worker.pipe.recv()
            return Answer(order, None, answer) if isinstance(answer, str) else Answer(order, float(answer))
        except (EOFError, ConnectionResetError):
            worker.process.join()
            status = worker.process.exitcode
            self._workers[self._workers.index(worker)] = self._begun()
            return Answer(order, None, status=status)


@contextmanager
def crew_of(brief: Brief, count: int) -> Iterator[Crew]:
    """A crew, ended whatever happens."""
    crew = Crew(brief, count)
    try:
        yield crew
    finally:
        crew.end()
