"""The processes of the clusters that the product makes, as the tests find, lose and count them."""

import os

import psutil

NODE = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"  # set for a node's raylet, and for the workers below it


def cluster_of(pid: int) -> int:
    """The session of the cluster that a process has had made."""
    (keeper,) = [one for one in psutil.Process(pid).children() if "thriftune.cluster.local" in one.cmdline()]
    return os.getsid(keeper.pid)


def processes_in(session: int) -> list[psutil.Process]:
    """All processes of a session, wherever they hang in the tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def lose(session: int, nodes: set[str]) -> None:
    """Lose nodes, as machines that lose their power: every process of theirs at once."""
    raylets = [one for one in processes_in(session) if one.name() == "raylet" and one.environ().get(NODE) in nodes]
    for process in [*raylets, *(child for raylet in raylets for child in raylet.children(recursive=True))]:
        process.kill()


def lose_head(session: int) -> None:
    """Lose the head, as a machine that loses its power: every process that is no node's and not the keeper."""
    nodes = [one for one in processes_in(session) if one.name() == "raylet" and NODE in one.environ()]
    there = {*nodes, *(child for node in nodes for child in node.children(recursive=True))}
    for process in processes_in(session):
        if process not in there and process.pid != session:
            process.kill()
