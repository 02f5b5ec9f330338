"""The processes of the clusters that the product makes, as the tests find, kill and count them."""

from collections.abc import Iterator

import psutil

from thriftune.cluster.local import MARK

NODE = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"  # set for a node's raylet, and for the workers below it


def marked() -> set[int]:
    """The processes of all clusters."""
    return {process.pid for process, _ in _ours()}


def lose(nodes: set[str]) -> None:
    """Lose nodes, as machines that lose their power: every process of theirs at once."""
    for process, environment in list(_ours()):
        if environment.get(NODE) in nodes:
            process.kill()


def _ours() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if MARK in environment:
            yield process, environment
