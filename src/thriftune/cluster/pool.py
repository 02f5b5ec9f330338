"""A pool of workers on a Ray cluster that grows with the work and shrinks after it, its node hours in the ledger.

It is an `Executor` of the standard library: what maps a function over local processes maps it over nodes as it stands.
A call whose node is lost is done again on another one. The cluster's autoscaler sees the calls that wait, a processor
core each, and starts nodes for them; it ends nodes that have been idle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from thriftune.cluster.nodes import NodeMeter
from thriftune.errors import MissingExtra, ThriftuneError

LOOK_SECONDS = 1.0
RETRIES = 3  # of a call whose node was lost


class ClusterPool(Executor):
    """Calls functions on the nodes of a Ray cluster.

    Args:
        address: of the cluster's head, `host:port`.
        meter: of its nodes; the head, which runs no calls, is metered by whoever started it.
        cores: that a call takes.

    Raises:
        MissingExtra: Ray is not installed.
    """

    def __init__(self, address: str, meter: NodeMeter, cores: int = 1) -> None:
        ray = ray_module()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        self._ray, self._meter, self._cores = ray, meter, cores
        self._last: tuple[Callable[..., Any], Any] | None = None
        self._open: set[Future[Any]] = set()
        self._refusal: ThriftuneError | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="thriftune-nodes", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Call a function on some node.

        Raises:
            OutOfBudget: no more of the nodes' time is paid for; calls that were at work then are refused the same way.
            RuntimeError: the pool is shut down.
        """
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            if self._ending.is_set():
                raise RuntimeError("the pool is shut down")
        reference = self._sent(function).remote(*arguments, **named)
        told: Future[Any] = Future()
        with self._lock:
            self._open.add(told)

        def settle(done: Future[Any]) -> None:
            with self._lock:
                if told not in self._open:
                    return
                self._open.discard(told)
            error = done.exception()
            if error is None:
                told.set_result(done.result())
            else:
                told.set_exception(getattr(error, "cause", None) or error)

        reference.future().add_done_callback(settle)
        return told

    def _sent(self, function: Callable[..., Any]) -> Any:
        """The function as the nodes know it; one that is called again and again is sent once."""
        if self._last is None or self._last[0] is not function:
            self._last = function, self._ray.remote(num_cpus=self._cores, max_retries=RETRIES)(function)
        return self._last[1]

    def nodes(self) -> list[str]:
        """The names of the nodes that are there for calls."""
        return [str(node["NodeID"]) for node in self._ray.nodes() if node["Alive"] and _takes_calls(node)]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; the nodes that are still there are metered up to now. A second call does nothing."""
        if self._ending.is_set():
            return
        if wait:
            while self._open and self._refusal is None:
                self._ending.wait(0.05)
        self._ending.set()
        self._thread.join()
        self._look()
        self._meter.close()
        self._ray.shutdown()

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        known = self._ray.nodes()
        alive = [str(node["NodeID"]) for node in known if node["Alive"] and _takes_calls(node)]
        left = [str(node["NodeID"]) for node in known if not node["Alive"] and _left_in_order(node)]
        try:
            self._meter.see(alive, left)
        except ThriftuneError as error:
            self._refuse(error)

    def _refuse(self, error: ThriftuneError) -> None:
        with self._lock:
            self._refusal = self._refusal or error
            waiting, self._open = self._open, set()
        for future in waiting:
            future.set_exception(error)


def _takes_calls(node: dict[str, Any]) -> bool:
    return float(node.get("Resources", {}).get("CPU", 0.0)) > 0.0


def _left_in_order(node: dict[str, Any]) -> bool:
    """Whether a node ended because it was told to; Ray's other reasons are crashes and silence."""
    from ray.core.generated.common_pb2 import NodeDeathInfo  # type: ignore[import-not-found]

    expected = {NodeDeathInfo.EXPECTED_TERMINATION, NodeDeathInfo.AUTOSCALER_DRAIN_IDLE}
    return node.get("DeathReason") in expected


def ray_module() -> Any:
    """Ray, imported.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import ray  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "a cluster of workers needs Ray, which is not installed",
            "a pool on a cluster",
            f"no module {error.name}",
            "the extra `ray`",
            "pip install 'thriftune[ray]'",
        ) from None
    return ray
