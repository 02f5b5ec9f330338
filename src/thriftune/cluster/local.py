"""A Ray cluster on this machine whose autoscaler really starts and ends nodes, each a raylet with workers of its own.

Ray's `fake_multinode` provider starts the nodes as processes here; with another provider the same configuration starts
machines. The head has no cores, so that every call needs a node. A keeper, this file as a program, starts the cluster
and ends it when whoever asked for it is gone, however that ended. `ray stop` would end every Ray process of the
machine: ours are one session of the operating system's, the keeper's, and ended by their numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from thriftune.cluster.connection import ray_module
from thriftune.errors import BadInput

OBJECT_STORE_BYTES = 100_000_000  # a node, enough for calls that hand over paths and figures
START_SECONDS = 120.0
STARTED = "Ray runtime started"  # what Ray says when the head answers
READY = "ready"
NO_SETTINGS = ("auth", "docker", "file_mounts")  # Ray asks for each of these keys
NO_COMMANDS = (
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
QUICK = {  # a lost node is noticed within three seconds: a quarter of a minute would be paid for
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


def configuration(most_nodes: int, cores: int, idle_seconds: float, address: str) -> dict[str, Any]:
    """What Ray's autoscaler is told.

    Args:
        most_nodes: at the same time.
        cores: of each; nobody looks whether the machine has so many.
        idle_seconds: after which a node ends.
        address: of the head.
    """
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    resources = {"CPU": cores, "object_store_memory": OBJECT_STORE_BYTES}
    worker = {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most_nodes}
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
        "available_node_types": {"ray.head.default": head, "worker": worker},
        "head_node_type": "ray.head.default",
        "file_mounts_sync_continuously": False,
        **{key: {} for key in NO_SETTINGS},
        **{key: [] for key in NO_COMMANDS},
    }


@contextmanager
def local_cluster(most_nodes: int, cores: int = 1, idle_seconds: float = 60.0) -> Iterator[str]:
    """The address of a cluster whose nodes come with the work and go after it; at the end all its processes are gone.

    Args:
        most_nodes: at the same time.
        cores: of each.
        idle_seconds: after which a node ends.

    Raises:
        MissingExtra: Ray is not installed.
        BadInput: Ray does not start; the message has its last words.
    """
    ray_module()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets lie in it, whose paths are bounded
    port = _free_port()
    address = f"127.0.0.1:{port}"
    config = folder / "autoscaler.json"  # JSON is YAML
    config.write_text(json.dumps(configuration(most_nodes, cores, idle_seconds, address)))
    keeper = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder), str(port)],
        env=QUICK | os.environ | {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # by which its processes are known; and Ctrl-C is for the search, which ends it
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    try:
        said = keeper.stdout.readline().strip()
        if said != READY:
            raise BadInput(
                "Ray does not start on this machine",
                where=f"port {port}",
                found=said or "no word from it",
                expected="a head that answers",
                way_out="look at what Ray says, or work without a cluster",
            )
        yield address
    finally:
        keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()


def keep(folder: Path, port: int) -> None:
    """Start a cluster's head, say so, and end the cluster when standard input does."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
    command += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--autoscaling-config={folder / 'autoscaler.json'}"]
    command += ["--disable-usage-stats"]
    said = folder / "said.txt"
    try:
        with said.open("wb") as out:
            head = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        print(_awaited(head, said), flush=True)
        sys.stdin.read()
    finally:
        _end()
        shutil.rmtree(folder, ignore_errors=True)


def _awaited(head: subprocess.Popen[bytes], said: Path) -> str:
    """Wait until the head answers; `READY`, or its last words."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and head.poll() is None:
        if STARTED in said.read_text(errors="replace"):
            return READY
        time.sleep(0.1)
    return "; ".join(said.read_text(errors="replace").strip().splitlines()[-3:])


def _end() -> None:
    """End all processes of this session but this one, at once: what they hold is in a folder that goes too."""
    while there := [process for process in psutil.process_iter() if _is_ours(process)]:
        for process in there:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.1)


def _is_ours(process: psutil.Process) -> bool:
    """Whether a process runs in this session and is not this one."""
    try:
        ours = process.pid != os.getpid() and os.getsid(process.pid) == os.getsid(0)
        return ours and bool(process.status() != psutil.STATUS_ZOMBIE)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))
