"""The processes of the clusters that the product makes, as the tests find, kill and count them."""

from collections.abc import Iterator

import psutil

from thriftune.cluster.local import MARK

NODE = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"  # set for a node's raylet, and for the workers below it


def marked() -> set[int]:
    """The processes of all clusters."""
    return {process.pid for process, _ in _ours()}


def raylet_of(node: str) -> psutil.Process:
    """The process that is a node: its workers end with it."""
    (found,) = [process for process, env in _ours() if env.get(NODE) == node and process.name() == "raylet"]
    return found


def _ours() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if MARK in environment:
            yield process, environment
