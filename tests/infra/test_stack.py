"""The services of infra/compose.yaml, started without containers, run the whole pipeline."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.flows.test_s3 import client_of, stored_objects
from tests.flows.test_server import post, run_deployment
from tests.infra.compose import SECRETS, Stack, services, stack
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
        check_runs(running)
        check_objects(running)


def check_runs(running: Stack) -> None:
    runs = post(running.server, "flow_runs/filter")
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"], runs
    (pool,) = post(running.server, "work_pools/filter")
    assert (pool["name"], pool["type"], pool["status"]) == ("tsp", "process", "READY")
    assert running.query("select count(*) from flow_run where state_type = 'COMPLETED'") == "1"
    declared = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    assert running.query("select count(*) from deployment") == str(len(declared))


def check_objects(running: Stack) -> None:
    objects = stored_objects(running.store)
    made = [name for name in objects if name.startswith("runs/") and name.endswith("artifact.json")]
    assert sorted(name.split("/")[1] for name in made) == sorted(STAGE_NAMES)
    secret = SECRETS["AWS_SECRET_ACCESS_KEY"].encode()
    assert [name for name, data in objects.items() if secret in data] == []


def test_no_secret_has_a_default() -> None:
    for name in SECRETS:
        given = {key: value for key, value in SECRETS.items() if key != name}
        with pytest.raises(AssertionError, match=f"{name} is not set: set it in infra/.env"):
            services(given)
