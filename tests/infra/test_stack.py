"""The services of infra/compose.yaml, started without containers, run the whole pipeline."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.automations import LOST
from infra import serve
from tests.flows.test_s3 import client_of, stored_objects
from tests.flows.test_server import post, run_deployment
from tests.infra.compose import (
    READ_ONLY,
    SECRETS,
    Backend,
    Stack,
    backend,
    services,
    stack,
    writable,
)
from tests.servers import REPOSITORY
from tsp_core.config import STAGE_NAMES
from tsp_core.demo import make_demo


@pytest.mark.cluster
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
def test_the_stack_runs_the_pipeline(tmp_path: Path) -> None:
    config = make_demo(tmp_path / "demo", minutes=0.2)
    text = re.sub(r"root: store.*", "root: s3://tsp/runs", config.read_text())
    text = re.sub(r"epochs: .*", "epochs: 1", text)
    config.write_text(re.sub(r"milestones: .*", "milestones: []", text))
    with stack(tmp_path) as running:
        for path in config.parent.rglob("*"):
            if path.is_file():
                name = path.relative_to(config.parent).as_posix()
                client_of(running.store).upload_file(str(path), "tsp", f"kitchen/{name}")
        run_deployment(
            running.server, "tsp/full-pipeline", config=f"s3://tsp/kitchen/{config.name}"
        )
        completed = "select count(*) from flow_run where state_type = 'COMPLETED'"
        assert running.query(completed) == "1"
        check_runs(running)
        check_objects(running)
        check_worker(running)


def check_runs(running: Stack) -> None:
    runs = post(running.server, "flow_runs/filter")
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"], runs
    (pool,) = post(running.server, "work_pools/filter")
    assert (pool["name"], pool["type"], pool["status"]) == ("tsp", "process", "READY")
    declared = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    assert running.query("select count(*) from deployment") == str(len(declared))


def check_worker(running: Stack) -> None:
    """Lost runs are told from long ones, and temporary files are not in memory."""
    automations = [item["name"] for item in post(running.server, "automations/filter")]
    assert automations.count(LOST) == 1
    assert (running.folder / "home/tsp/tmp").is_dir()


def check_objects(running: Stack) -> None:
    objects = stored_objects(running.store)
    made = [name for name in objects if name.startswith("runs/") and name.endswith("artifact.json")]
    assert sorted(name.split("/")[1] for name in made) == sorted(STAGE_NAMES)
    secret = SECRETS["AWS_SECRET_ACCESS_KEY"].encode()
    assert [name for name, data in objects.items() if secret in data] == []


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("path", ["", "v2/"])  # both versions of the UI
def test_the_server_serves_its_pages(path: str, served: Backend) -> None:
    root = served.server.api_url.removesuffix("api")
    with urllib.request.urlopen(root + path, timeout=30) as response:
        page = response.read().decode()
    assert '<div id="app">' in page or '<div id="root">' in page


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/home/tsp/tmp", "HERE/home/tsp/tmp"),
        ("/tmp/x", "HERE/tmp/x"),
        ("/configs/x", READ_ONLY),  # mounted to be read
        ("/opt/venv/x", READ_ONLY),
        ("/home", READ_ONLY),
    ],
)
def test_containers_write_to_what_is_mounted_only(path: str, where: str) -> None:
    worker = services(SECRETS)["worker"]
    assert writable(worker, path, Path("HERE")) == where


def test_temporary_files_of_runs_are_on_a_volume() -> None:
    worker = services(SECRETS)["worker"]
    assert not worker["environment"]["TMPDIR"].startswith(tuple(worker["tmpfs"]))
    volumes = dict(text.split(":")[:2][::-1] for text in worker["volumes"])
    assert worker["environment"]["TMPDIR"].startswith("/home/tsp/")
    assert volumes["/home/tsp"] == "home"


def test_runs_have_time_to_end_with_the_worker() -> None:
    assert services(SECRETS)["worker"]["stop_grace_period"] == "1m"
    assert serve.SECONDS < 60


def test_no_secret_has_a_default() -> None:
    for name in SECRETS:
        given = {key: value for key, value in SECRETS.items() if key != name}
        with pytest.raises(AssertionError, match=f"{name} is not set: set it in infra/.env"):
            services(given)
