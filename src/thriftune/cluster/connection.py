"""What is asked of a Ray cluster: which nodes there are. It is left when the work is done, however that ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thriftune.errors import BadInput, MissingExtra

ANSWER_SECONDS = 10.0  # in which a head answers that is there


def ray_module() -> Any:
    """Ray, imported.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "a cluster of workers needs Ray, which is not installed",
            "compute.cluster",
            f"no module {error.name}",
            "the extra `ray`",
            "pip install 'thriftune[ray]', or leave compute.cluster out",
        ) from None
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, as a driver of the cluster whose head has this address; this machine is the head or has joined it.

    Raises:
        MissingExtra: Ray is not installed.
        BadInput: there is no such cluster.
    """
    ray = ray_module()
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _reach(address)  # Ray itself tries for minutes
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(
            "there is no Ray cluster that this machine is part of",
            where=f"compute.cluster.address {address}",
            found=str(error).strip().splitlines()[0],
            expected="host:port of a head; this machine is that head, or has joined it by `ray start --address`",
            way_out="start the cluster, or have one made for the run with address: local",
        ) from error
    finally:
        for number, handler in ours.items():  # Ray puts its own in their places
            signal.signal(number, handler)
    ray._private.worker.print_to_stdstream = _nowhere  # Ray tells of lost nodes on standard output, where ours goes
    try:
        yield ray
    finally:
        ray.shutdown()


def check_head(address: str) -> None:
    """Raise unless the head of a cluster answers: Ray itself waits a minute for one that is gone, and then ends us.

    Raises:
        BadInput: it does not.
    """
    try:
        _reach(address)
    except OSError as error:
        raise BadInput(
            "the head of the Ray cluster is gone",
            where=f"compute.cluster.address {address}",
            found=str(error),
            expected="a head that answers as long as the search goes on",
            way_out="start the cluster again, unless it is one that is made for the run; the same command goes on from"
            " here",
        ) from error


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()


def _nowhere(_said: Any, ignore_prefix: bool) -> None:
    """In the place of what prints."""


def nodes_of(ray: Any) -> tuple[set[str], set[str]]:
    """The nodes that take calls, and those that ended because they were told to; a node in neither is lost."""
    from ray.core.generated.common_pb2 import NodeDeathInfo

    in_order = {NodeDeathInfo.EXPECTED_TERMINATION, NodeDeathInfo.AUTOSCALER_DRAIN_IDLE}
    alive, left = set(), set()
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0:
            alive.add(str(node["NodeID"]))
        elif not node["Alive"] and node.get("DeathReason") in in_order:
            left.add(str(node["NodeID"]))
    return alive, left
