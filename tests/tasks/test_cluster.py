"""What a shard asks of a Ray cluster, what travels to it, and what its losses become."""

from __future__ import annotations

import logging
import sys
from typing import Any

import cloudpickle
import pytest

from tasks import cluster
from tasks.cluster import resources as resources_of
from tasks.stages import shard_runner, stage_tasks
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config, RayResources
from tsp_core.errors import ConfigError, WorkerLostError, is_transient
from tsp_core.stages.base import Shard

GIB = 2**30


def node(cpus: float, *, gpus: float = 0, gib: float = 64, alive: bool = True) -> dict[str, Any]:
    """A node as Ray lists it."""
    found = {"CPU": cpus, "memory": gib * GIB, "node:10.0.0.1": 1.0}
    return {"Alive": alive, "Resources": found | ({"GPU": gpus} if gpus else {})}


def config(**runtime: Any) -> Config:
    return Config.model_validate({"root": "memory://x", "runtime": {"runner": "ray", **runtime}})


def resources(
    settings: Config, stage: str, nodes: list[dict[str, Any]], *, flow_has_gpu: bool = False
) -> RayResources:
    return resources_of(settings, stage, nodes, flow_has_gpu=lambda _: flow_has_gpu)


@pytest.mark.parametrize(
    ("stage", "nodes", "device", "expected"),
    [
        ("ingest", [node(16, gpus=1)], "auto", (1, 0, 1)),
        ("ingest", [node(16)], "cuda", (1, 0, 1)),
        ("gvf", [node(16)], "auto", (4, 0, 4)),
        ("gvf", [node(2)], "auto", (2, 0, 4)),  # what no node has would wait for ever
        ("gvf", [node(2), node(8, alive=False)], "auto", (2, 0, 4)),
        ("gvf", [], "auto", (4, 0, 4)),  # nodes are started by demand
        ("export", [node(16), node(8, gpus=2)], "auto", (2, 0.25, 4)),
        ("export", [node(16), node(8, gpus=2)], "cpu", (4, 0, 4)),
        ("export", [], "cuda", (2, 0.25, 4)),
        ("gvf", [node(8)], "cuda", (2, 0.25, 4)),  # so that a node with a GPU is started
    ],
)
def test_defaults_follow_stage_device_and_nodes(
    stage: str, nodes: list[dict[str, Any]], device: str, expected: tuple[float, float, float]
) -> None:
    asked = resources(config(device=device), stage, nodes)
    assert (asked.cpus, asked.gpus, asked.memory_gib) == expected


@pytest.mark.parametrize(
    ("stage", "device", "gpus"),
    [("gvf", "auto", 0.25), ("export", "auto", 0.25), ("gvf", "cpu", 0), ("ingest", "auto", 0)],
)
def test_a_flow_with_a_gpu_has_nodes_with_gpus_started(
    stage: str, device: str, gpus: float
) -> None:
    assert resources(config(device=device), stage, [node(8)], flow_has_gpu=True).gpus == gpus


@pytest.mark.parametrize(("has_gpu", "gpus"), [(True, 0.25), (False, 0)])
def test_the_flow_s_own_device_counts(
    has_gpu: bool, gpus: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    assert resources_of(config(), "gvf", [node(8)]).gpus == gpus


def test_what_is_configured_replaces_the_default_key_by_key() -> None:
    settings = config(ray_resources={"gvf": {"gpus": 1}})
    asked = resources(settings, "gvf", [node(16, gpus=1)])
    assert (asked.cpus, asked.gpus, asked.memory_gib) == (2, 1, 4)
    assert resources(settings, "export", [node(16, gpus=1)]).gpus == 0.25


@pytest.mark.parametrize(
    ("nodes", "gpus", "cpus"),
    [([node(8)], 0.5, 2), ([], 0.5, 2), ([node(8), node(8, gpus=1)], 0, 4)],
)
def test_gpus_that_are_configured_decide_the_other_defaults(
    nodes: list[dict[str, Any]], gpus: float, cpus: float
) -> None:
    asked = resources(config(ray_resources={"gvf": {"gpus": gpus}}), "gvf", nodes)
    assert (asked.cpus, asked.gpus, asked.memory_gib) == (cpus, gpus, 4)


def test_a_demand_that_no_node_meets_is_told(caplog: pytest.LogCaptureFixture) -> None:
    settings = config(ray_resources={"ingest": {"memory_gib": 100}})
    with caplog.at_level(logging.WARNING):
        resources(settings, "ingest", [node(4)])
    assert "no node of the Ray cluster has 1 CPUs, 0 GPUs and 100 GiB" in caplog.text
    assert "Lower runtime.ray_resources.ingest" in caplog.text
    assert "gpus to 0" not in caplog.text


def test_gpus_that_no_node_has_yet_can_be_done_without(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        resources(config(), "gvf", [node(8)], flow_has_gpu=True)
    assert "no node of the Ray cluster has 2 CPUs, 0.25 GPUs" in caplog.text
    assert "or set its gpus to 0 for CPUs (gvf: {gpus: 0})" in caplog.text


@pytest.mark.parametrize(
    ("runtime", "stage", "is_told"),
    [
        ({}, "gvf", True),
        ({"device": "cpu"}, "gvf", False),
        ({"ray_resources": {"gvf": {"gpus": 0}}}, "gvf", False),
        ({}, "ingest", False),
    ],
)
def test_shards_that_run_on_cpus_for_want_of_gpus_are_told(
    runtime: dict[str, Any], stage: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert resources(config(**runtime), stage, [node(8)]).gpus == 0
    advice = "To have one started set runtime.ray_resources.gvf.gpus to 0.25, or runtime.device"
    assert (advice in caplog.text) == is_told
    assert bool(caplog.text) == is_told


def test_names_travel_and_nothing_else() -> None:
    """What Ray takes into a task's own message, below 100 kB, never sees the object store."""
    names = tuple(f"v_{number:011d}_of_a_long_name" for number in range(512))
    shard = Shard(index=0, uri="s3://bucket/shards/gvf/x/y.parquet", videos=names)
    inputs = {
        name: ArtifactRef(stage=name, fingerprint="0" * 16, uri=f"s3://b/{name}", digest="0" * 16)
        for name in ("ingest", "annotate", "index", "gvf", "pretrain")
    }
    sent = {"task": stage_tasks("gvf").shard, "config": config(), "inputs": inputs, "shard": shard}
    assert len(cloudpickle.dumps(sent)) < 100_000


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    expected = r"runtime\.runner: 'ray': .* pip install 'tsp-pipeline\[ray\]'"
    with pytest.raises(ConfigError, match=expected), shard_runner(config(), "gvf"):
        pass


def test_without_a_server_it_says_what_to_set() -> None:
    expected = r"runtime\.runner: 'ray': .* set\s+PREFECT_API_URL"
    with pytest.raises(ConfigError, match=expected), shard_runner(config(), "gvf"):
        pass


def test_lost_nodes_processes_and_memory_are_transient() -> None:
    from ray import exceptions

    lost = [
        exceptions.NodeDiedError("the node is gone"),
        exceptions.WorkerCrashedError(),
        exceptions.LocalRayletDiedError(),
        exceptions.OutOfMemoryError("killed"),
    ]
    for error in lost:
        expected = r"gvf: a Ray worker was lost 5 times .*runtime\.ray_resources\.gvf\.memory_gib"
        with (
            pytest.raises(WorkerLostError, match=expected) as caught,
            cluster._losses_are_transient("gvf"),
        ):
            raise error
        assert is_transient(caught.value)
    with pytest.raises(ZeroDivisionError), cluster._losses_are_transient("gvf"):
        raise ZeroDivisionError
