"""What infra/worker.sh calls, and in which order, before it serves the work pool."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.servers import REPOSITORY

TEMPLATE = json.loads((REPOSITORY / "infra/kubernetes/base-job-template.json").read_text())
FAKE = """\
#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
    *--base-job-template*) cp "$7" "$COPY" ;;
    "$FAILS") exit 1 ;;
esac
"""


def run_script(folder: Path, **environment: str) -> list[str]:
    """Run the script with fakes for all that it calls; return the calls."""
    fakes = folder / "bin"
    fakes.mkdir()
    for name in ("prefect", "python", "tsp"):
        (fakes / name).write_text(FAKE)
        (fakes / name).chmod(0o755)
    calls = folder / "calls"
    own = {
        "PATH": f"{fakes}:/usr/bin:/bin",
        "CALLS": str(calls),
        "COPY": str(folder / "template.json"),
        "FAILS": "nothing",
    }
    script = REPOSITORY / "infra" / "worker.sh"
    subprocess.run(["sh", script], env=own | environment, check=False)
    return calls.read_text().splitlines()


SERVED = [
    "prefect work-pool create --overwrite --type process tsp",
    "python infra/deploy.py",
    "tsp automations apply",
    "python infra/serve.py prefect worker start --pool tsp --type process --with-healthcheck",
]


def test_pool_deployments_and_automation_come_before_the_work(tmp_path: Path) -> None:
    assert run_script(tmp_path) == SERVED


def test_a_worker_works_without_the_automation(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_script(tmp_path, FAILS="automations apply") == SERVED
    assert "worker.sh: no automation marks lost runs" in capfd.readouterr().err


def test_a_worker_does_not_work_on_what_was_not_deployed(tmp_path: Path) -> None:
    assert run_script(tmp_path, FAILS="infra/deploy.py") == SERVED[:2]


def test_the_folder_for_temporary_files_is_made(tmp_path: Path) -> None:
    run_script(tmp_path, TMPDIR=str(tmp_path / "home" / "tmp"))
    assert (tmp_path / "home" / "tmp").is_dir()


def test_the_image_has_what_the_script_calls() -> None:
    script = (REPOSITORY / "infra" / "worker.sh").read_text()
    copied = (REPOSITORY / "infra" / "Dockerfile").read_text()
    called = re.findall(r"infra/[\w/.-]+\.\w+", script)
    assert set(called) >= {"infra/deploy.py", "infra/serve.py"}
    assert [name for name in called if name not in copied] == []


@pytest.mark.parametrize(
    ("given", "image"),
    [({}, "tsp:cuda"), ({"TSP_IMAGE": "hub.lan/a/tsp:2"}, "hub.lan/a/tsp:2")],
)
def test_runs_use_the_image_that_the_worker_is_told(
    given: dict[str, str], image: str, tmp_path: Path
) -> None:
    run_script(tmp_path, TSP_POOL_TYPE="kubernetes", **given)
    found: dict[str, Any] = json.loads((tmp_path / "template.json").read_text())
    assert found["variables"]["properties"]["image"].pop("default") == image
    expected = json.loads(json.dumps(TEMPLATE))
    del expected["variables"]["properties"]["image"]["default"]
    assert found == expected
