"""The pipeline on a Ray cluster that loses a node makes what it makes on threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from flows.full_pipeline import full_pipeline
from tests.ray_cluster import ray_cluster
from tests.servers import prefect_harness
from tests.stages.running import contents
from tsp_core.stages.base import StageReport

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's and Prefect's own
]


def run(config: Path, root: Path, **runtime: Any) -> dict[str, StageReport]:
    return full_pipeline(
        str(config),
        through="export",
        root=str(root),
        ingest={"shard_size": 1},
        gvf={"shard_size": 1},
        export={"shard_size": 1, "checkpoint": "random:1"},
        runtime=runtime,
    )


def test_a_run_that_loses_a_node_makes_the_same(tiny_demo: Path, tmp_path: Path) -> None:
    with prefect_harness():
        expected = run(tiny_demo, tmp_path / "threads", device="cpu")
        with ray_cluster() as cluster:
            killer = threading.Thread(target=cluster.kill_node_in, args=("gvf-shard",))
            killer.start()
            found = run(
                tiny_demo, tmp_path / "ray", device="cpu", runner="ray", ray_address=cluster.address
            )
            killer.join()
    for stage, report in expected.items():
        assert contents(found[stage].artifact).keys() == contents(report.artifact).keys()
        assert found[stage].artifact.digest == report.artifact.digest
