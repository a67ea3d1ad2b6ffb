"""A real Ray cluster on loopback, of nodes that can be killed one by one."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OBJECT_STORE_BYTES = 80_000_000  # about the least that Ray takes: no frames travel
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # "localhost" stays the loopback interface
    # What Ray waits for its own processes on a busy machine; past its defaults it gives up.
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_worker_register_timeout_seconds": "180",
    "OMP_NUM_THREADS": "1",
}
_WAIT_SECONDS = 180.0


class RayCluster:
    """Nodes of a cluster, each a raylet with workers of its own on this machine."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    @property
    def address(self) -> str:
        """HOST:PORT of the head."""
        return str(self._cluster.address)

    def kill_node_in(self, task_name: str) -> int:
        """Wait until the second node is in a task of that name; kill the node in the midst of it.

        Returns:
            The process that was in the task.
        """
        node = self._cluster.list_all_nodes()[1]
        (raylet,) = (info.process.pid for info in node.all_processes["raylet"])
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            for worker in _workers_in(raylet, task_name):
                os.kill(worker, signal.SIGSTOP)  # it cannot end its task any more
                if worker in _workers_in(raylet, task_name):
                    self._cluster.remove_node(node, allow_graceful=False)
                    os.kill(worker, signal.SIGKILL)
                    return worker
                os.kill(worker, signal.SIGCONT)
            time.sleep(0.005)
        raise AssertionError(f"the second node was never in {task_name}")


def _workers_in(raylet: int, task_name: str) -> list[int]:
    """Children of a raylet that are in a task now; Ray writes its name over their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            title = (path.parent / "cmdline").read_text() if parent == raylet else ""
        except OSError:
            continue
        if title.startswith(f"ray::{task_name}"):
            found.append(int(path.parent.name))
    return found


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Start two nodes of one core each, without dashboard and telemetry."""
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT)  # before ray is imported, which reads it once
    import ray
    from ray.cluster_utils import Cluster

    # Ray notes the cluster there, whatever `temp_dir` is, and does not make the folder.
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short, for the sockets' paths
        node = {
            "num_cpus": 1,
            "memory": 4 * 2**30,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_log_monitor": False,
            "node_ip_address": "127.0.0.1",
            "temp_dir": folder,
        }
        head = {**node, "include_dashboard": False, "no_monitor": True}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(**node)
            yield RayCluster(cluster)
        finally:
            ray.shutdown()  # a cluster does not shut down under its own driver
            cluster.shutdown()
            os.environ.clear()
            os.environ.update(before)
