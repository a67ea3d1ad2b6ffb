"""The pipeline on a Ray cluster that loses a node makes what it makes on threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows.full_pipeline import full_pipeline
from tests.flows.test_full_pipeline import last_flow_run, task_runs_of
from tests.ray_cluster import ray_cluster
from tests.stages.running import contents
from tsp_core.stages.base import StageReport

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore"),  # Ray's and Prefect's own
]


def run(config: Path, root: Path, **runtime: Any) -> dict[str, StageReport]:
    """Every stage with shards, one video in each shard."""
    sections: dict[str, Any] = {
        "ingest": {"shard_size": 1},
        "gvf": {"shard_size": 1},
        "export": {"shard_size": 1, "checkpoint": "random:1"},
        "runtime": {"device": "cpu", **runtime},
    }
    return full_pipeline(str(config), through="export", root=str(root), **sections)


@pytest.mark.timeout(900)  # a Ray cluster on a busy machine
def test_a_run_that_loses_a_node_makes_the_same(tiny_demo: Path, tmp_path: Path) -> None:
    expected = run(tiny_demo, tmp_path / "threads")
    with ray_cluster() as cluster, ThreadPoolExecutor(1) as killer:
        killed = killer.submit(cluster.kill_node_in, "gvf-shard")
        found = run(tiny_demo, tmp_path / "ray", runner="ray", ray_address=cluster.address)
        assert killed.result() > 0
    for stage, report in expected.items():
        assert found[stage].artifact.digest == report.artifact.digest, stage
        ours, theirs = (contents(each.artifact) for each in (found[stage], report))
        assert {name for name in ours if ours[name] != theirs[name]} <= {"artifact.json"}, stage
    shards = [item for item in task_runs_of(last_flow_run()) if " shard " in item.name]
    assert len(shards) == 9
    assert all(item.state and item.state.is_completed() for item in shards)
