"""A Ray cluster on this machine whose autoscaler really starts and ends nodes, each a raylet with workers of its own.

Ray's `fake_multinode` provider starts the nodes as processes here; with another provider the same configuration starts
machines. The head has no cores, so that every call needs a node. `ray stop` would end every Ray process of the
machine: ours are known by a mark in their environment, and ended by their numbers.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from thriftune.cluster.pool import ray_module
from thriftune.errors import BadInput

MARK = "THRIFTUNE_CLUSTER"  # set for every process of a cluster
OBJECT_STORE_BYTES = 100_000_000  # a node, enough for calls that hand over paths and figures
START_SECONDS = 60.0
END_SECONDS = 10.0


@dataclass(frozen=True)
class LocalCluster:
    """A cluster that is there.

    Args:
        address: of its head.
        mark: of its processes.
    """

    address: str
    mark: str

    def processes(self) -> list[psutil.Process]:
        """Its processes, wherever they hang in the tree."""
        return [process for process in psutil.process_iter() if _mark_of(process) == self.mark]


def configuration(most_nodes: int, cores: int, idle_seconds: float, address: str) -> dict[str, Any]:
    """What Ray's autoscaler is told.

    Args:
        most_nodes: at the same time.
        cores: of each; nobody looks whether the machine has so many.
        idle_seconds: after which a node ends.
        address: of the head.
    """
    return {
        "cluster_name": "thriftune",
        "max_workers": most_nodes,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": cores, "object_store_memory": OBJECT_STORE_BYTES},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most_nodes,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@contextmanager
def local_cluster(
    most_nodes: int, cores: int = 1, idle_seconds: float = 5.0, environment: dict[str, str] | None = None
) -> Iterator[LocalCluster]:
    """A cluster whose nodes come with the work and go after it; at the end every process of it is gone.

    Args:
        most_nodes: at the same time.
        cores: of each.
        idle_seconds: after which a node ends.
        environment: more variables for the cluster's processes.

    Raises:
        MissingExtra: Ray is not installed.
        BadInput: Ray does not start; the message has its last words.
    """
    ray_module()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets lie in it, whose paths are bounded
    port, mark = _free_port(), secrets.token_hex(8)
    cluster = LocalCluster(f"127.0.0.1:{port}", mark)
    config = folder / "autoscaler.json"  # JSON is YAML
    config.write_text(json.dumps(configuration(most_nodes, cores, idle_seconds, cluster.address)))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
    command += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--autoscaling-config={config}"]
    command += ["--disable-usage-stats"]
    ours = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", MARK: mark}
    said = folder / "said.txt"
    try:
        with said.open("wb") as out:
            head = subprocess.Popen(
                command,
                env=os.environ | ours | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _await(head, port, said)
        yield cluster
    finally:
        _end(cluster)
        shutil.rmtree(folder, ignore_errors=True)


def _await(head: subprocess.Popen[bytes], port: int, said: Path) -> None:
    """Wait until the head answers."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and head.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0 and "Ray runtime started" in said.read_text(errors="replace"):
                return
        time.sleep(0.1)
    last = said.read_text(errors="replace").strip().splitlines()[-3:]
    raise BadInput(
        "Ray does not start on this machine",
        where=f"port {port}",
        found="; ".join(last) or "no word from it",
        expected="a head that answers",
        way_out="look at what Ray says, or work without a cluster",
    )


def _end(cluster: LocalCluster) -> None:
    """End the cluster's processes: asked first, then at once."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        there = cluster.processes()
        for process in there:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        gone, _ = psutil.wait_procs(there, timeout=END_SECONDS)
        if len(gone) == len(there) and not cluster.processes():
            return


def _mark_of(process: psutil.Process) -> str | None:
    try:
        found = process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None
    return None if found is None else str(found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
