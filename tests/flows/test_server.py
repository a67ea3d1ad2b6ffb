"""A real Prefect server, work pool, worker and deployments run the real pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.servers import REPOSITORY, PrefectServer, prefect_server, prefect_worker
from tsp_core.config import STAGE_NAMES

pytestmark = [pytest.mark.server, pytest.mark.slow]


def call(server: PrefectServer, method: str, path: str, items: Any = None, **fields: Any) -> Any:
    """Ask something of the server; the body is a list of items or has fields."""
    request = urllib.request.Request(
        f"{server.api_url}/{path}",
        data=json.dumps(fields if items is None else items).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        text = response.read()
    return json.loads(text) if text else None


def post(server: PrefectServer, path: str, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call(server, "POST", path, **fields)
    return found


def run_deployment(server: PrefectServer, name: str, **parameters: str) -> str:
    given = [part for key, value in parameters.items() for part in ("-p", f"{key}={value}")]
    return server.prefect(
        "deployment", "run", name, *given, "--watch", "--watch-interval", "1", timeout_seconds=540
    )


def test_deployments_run_on_a_worker(tiny_demo: Path, tmp_path: Path) -> None:
    with prefect_server(tmp_path) as server:
        call(server, "POST", "work_pools/", name="tsp", type="process")
        server.prefect("--no-prompt", "deploy", "--all")
        deployments = post(server, "deployments/filter")
        names = {"full-pipeline", "catalogue", "study", *STAGE_NAMES}
        assert {item["name"] for item in deployments} == names
        assert active_schedules(server) == {"nightly": False, "tick": False}
        check_that_a_worker_leaves_schedules_on(server)
        with prefect_worker(server, "tsp", tmp_path / "worker.log"):
            run_deployment(server, "tsp/full-pipeline", config=str(tiny_demo))
            run_deployment(server, "tsp-index/index", config=str(tiny_demo))
        check_runs(server)
        check_artifacts(server)
        check_logs(server)


def active_schedules(server: PrefectServer) -> dict[str | None, bool]:
    deployments = post(server, "deployments/filter")
    schedules = [schedule for item in deployments for schedule in item["schedules"]]
    return {schedule["slug"]: schedule["active"] for schedule in schedules}


def check_that_a_worker_leaves_schedules_on(server: PrefectServer) -> None:
    deployments = {item["name"]: item for item in post(server, "deployments/filter")}
    (tick,) = deployments["catalogue"]["schedules"]
    path = f"deployments/{tick['deployment_id']}/schedules/{tick['id']}"
    call(server, "PATCH", path, active=True)
    # As the UI makes them: without a slug.
    weekly = {"schedule": {"cron": "0 3 * * 1"}, "active": False}
    path = f"deployments/{deployments['full-pipeline']['id']}/schedules"
    call(server, "POST", path, [weekly])
    expected = {"nightly": False, "tick": True, None: False}
    assert active_schedules(server) == expected
    deployed = subprocess.run(
        [sys.executable, REPOSITORY / "infra" / "deploy.py"],
        cwd=REPOSITORY,
        env={**server.environment, "TSP_CONFIG": "/data/mine.yaml", "TSP_CATALOGUE": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert active_schedules(server) == expected
    given = {item["name"]: item["parameters"] for item in post(server, "deployments/filter")}
    assert given["full-pipeline"] == {"config": "/data/mine.yaml"}
    assert given["catalogue"] == {}


def check_runs(server: PrefectServer) -> None:
    runs = post(server, "flow_runs/filter")
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"] * 2, runs
    assert all(run["name"].startswith("demo 20") for run in runs)
    names = {run["name"] for run in post(server, "task_runs/filter")}
    assert {"ingest shard 1/1", "gvf shard 1/1", "export shard 1/1", *STAGE_NAMES} <= names
    assert {f"{stage} plan" for stage in STAGE_NAMES} <= names


def check_artifacts(server: PrefectServer) -> None:
    found = {item["key"]: item for item in post(server, "artifacts/filter", limit=200)}
    tables = ("ingest-videos", "annotate-classes", "pretrain-epochs")
    progress = ("ingest-progress", "gvf-progress", "export-progress", "pretrain-work")
    for key in tables:
        assert found[f"demo-{key}"]["type"] == "table", found.keys()
    for key in progress:
        assert found[f"demo-{key}"]["type"] == "progress"
        assert found[f"demo-{key}"]["data"] == 100.0
    assert len(json.loads(found["demo-ingest-videos"]["data"])) == 3
    report = found["demo-report"]
    assert report["type"] == "markdown"
    assert report["data"].count("](data:image/svg+xml;base64,") >= 2
    assert ".svg)" not in report["data"]
    assert "## Timings of this run" in report["data"]
    assert "report.html](file:///" in found["demo-report-link"]["data"]


def check_logs(server: PrefectServer) -> None:
    messages = [item["message"] for item in post(server, "logs/filter", limit=200)]
    assert any(message.startswith("pretrain: done in") for message in messages)
