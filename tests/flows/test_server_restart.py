"""A Prefect server that is killed and started again under a run, with its database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.flows.test_server import post
from tests.servers import REPOSITORY, free_port, prefect_home, prefect_server

pytestmark = [pytest.mark.server, pytest.mark.slow]


@contextmanager
def run_on_fakes(api_url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    config = folder / "config.yaml"
    config.write_text(f"name: fake\nroot: {folder}/store\n")
    command = [sys.executable, "-m", "tests.flows.run_with_fakes", str(config), str(folder)]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(prefect_home(folder / "client")),
        "PREFECT_API_URL": api_url,
        # Requests are not repeated, so that the first one shows that the server is away.
        "PREFECT_CLIENT_MAX_RETRIES": "0",
    }
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_run_goes_on_when_the_server_is_back(tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack:
        with prefect_server(tmp_path, port=port) as server:
            process = stack.enter_context(run_on_fakes(server.api_url, tmp_path))
            wait_for(tmp_path / "waits", process)
        (tmp_path / "go on").touch()  # the next stages begin while there is no server
        time.sleep(5)
        with prefect_server(tmp_path, port=port):
            output, _ = process.communicate(timeout=400)
            assert process.returncode == 0, output
            (run,) = post(server, "flow_runs/filter")
    assert run["state"]["type"] == "COMPLETED"
    assert "the Prefect server does not answer; waiting for it" in output
    assert "'evaluate': ['plan', 'finish']" in output
    assert (tmp_path / "store/runs/fake.json").exists()


def wait_for(marker: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not marker.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
