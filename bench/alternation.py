"""Several systems, a process each, that work by turns: one computes a block of updates while the others wait.

What slows the machine down for a while (a neighbour, a hot core) then slows all of them alike, and each process's
peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from thriftune.memory import peak_bytes, restart_peak

Side = Callable[["Baton", dict[str, Any]], dict[str, Any]]
"""A system: loads, then `begin`, `updates` again and again, `end`; then it evaluates and returns its figures."""


@dataclass
class Work:
    """What a side has done while it held the baton.

    Args:
        seconds: by the wall clock.
        cpu_seconds: of all its threads.
        updates: optimizer steps.
        real_tokens: tokens computed that are no padding.
        padded_tokens: all positions computed.
        blocks: (seconds, updates) of each block.
        peak_bytes: the most resident memory from `begin` to `end`, everything that was loaded included.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    updates: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    blocks: list[tuple[float, int]] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Real tokens a second."""
        return self.real_tokens / self.seconds


class Baton:
    """A side's view of the alternation. Its clock runs only while the side may work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._goal = 0
        self._done = Work()
        self._wall = self._cpu = 0.0

    def begin(self) -> None:
        """Everything is loaded: wait for the first turn. The clock starts."""
        restart_peak()
        self._connection.send(("ready", None))
        self._wait()

    def updates(self, count: int, real_tokens: int, padded_tokens: int) -> None:
        """Report optimizer steps just done; at the end of a block this waits for the next turn."""
        self._done.updates += count
        self._done.real_tokens += real_tokens
        self._done.padded_tokens += padded_tokens
        if self._done.updates >= self._goal:
            self._hand_over("block")
            self._wait()

    def end(self) -> None:
        """All updates are done. The clock stops; waits for the turn to evaluate."""
        self._done.peak_bytes = peak_bytes()
        self._hand_over("end")
        self._connection.recv()

    def _hand_over(self, kind: str) -> None:
        _synchronise()
        self._done.seconds = time.perf_counter() - self._wall
        self._done.cpu_seconds = time.process_time() - self._cpu
        self._connection.send((kind, asdict(self._done)))
        self._done = Work()

    def _wait(self) -> None:
        self._goal = self._connection.recv()
        self._wall, self._cpu = time.perf_counter(), time.process_time()


def alternate(
    sides: Mapping[str, tuple[Side, dict[str, Any]]], updates_per_block: int, threads: int, say: Callable[[str], None]
) -> dict[str, tuple[Work, dict[str, Any]]]:
    """Run all sides to their end, by turns; what each did and what it returned.

    Args:
        sides: function and settings by name; the function must be importable, it runs in a process of its own.
        updates_per_block: optimizer steps a turn.
        threads: of each side, the same for all.
        say: told of the progress.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)  # inherited by all sides
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    runners = {}
    try:
        for name, (side, settings) in sides.items():
            say(f"loading {name}")
            runners[name] = _Runner(name, side, settings, threads)
            runners[name].expect("ready")
        work = _turns(runners, updates_per_block, say)
        outcomes = {}
        for name, runner in runners.items():
            say(f"evaluating {name}")
            runner.go(0)
            outcomes[name] = runner.expect("outcome")
    finally:
        for runner in runners.values():
            runner.close()
    return {name: (work[name], outcomes[name]) for name in runners}


def _turns(runners: dict[str, _Runner], updates_per_block: int, say: Callable[[str], None]) -> dict[str, Work]:
    work = {name: Work() for name in runners}
    working = list(runners)
    while working:
        for name in list(working):
            runners[name].go(updates_per_block)
            kind, block = runners[name].receive()
            _add(work[name], block)
            if kind == "end":
                working.remove(name)
            speed = f"{block['real_tokens'] / block['seconds']:.0f} tokens/s" if block["real_tokens"] else "ended"
            say(f"{name}: {work[name].updates} updates, {speed}")
        working.reverse()  # who was last goes first, so that a steady drift favours nobody
    return work


def _add(work: Work, block: dict[str, Any]) -> None:
    if block["updates"]:
        work.blocks.append((block["seconds"], block["updates"]))
    for name in ("seconds", "cpu_seconds", "updates", "real_tokens", "padded_tokens"):
        setattr(work, name, getattr(work, name) + block[name])
    work.peak_bytes = max(work.peak_bytes, block["peak_bytes"])


class _Runner:
    """The parent's end of one side."""

    def __init__(self, name: str, side: Side, settings: dict[str, Any], threads: int) -> None:
        self._name = name
        spawning = multiprocessing.get_context("spawn")
        self._connection, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_run_side, args=(theirs, side, settings, threads), name=name)
        self._process.start()
        theirs.close()

    def go(self, updates: int) -> None:
        self._connection.send(updates)

    def receive(self) -> tuple[str, dict[str, Any]]:
        try:
            kind, content = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self._name} ended with status {self._process.exitcode}") from None
        if kind == "failed":
            raise RuntimeError(f"{self._name} failed:\n{content}")
        return kind, content

    def expect(self, kind: str) -> dict[str, Any]:
        found, content = self.receive()
        if found != kind:
            raise RuntimeError(f"{self._name} said {found} where {kind} was due")
        return content

    def close(self) -> None:
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _run_side(connection: Connection, side: Side, settings: dict[str, Any], threads: int) -> None:
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the last line of stdout is the parent's
    import torch

    torch.set_num_threads(threads)
    try:
        connection.send(("outcome", side(Baton(connection), settings)))
    except EOFError:  # the parent is gone
        return
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def _synchronise() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
