"""infra/serve.py: a worker that is stopped lets its runs end first; the server hears of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.test_server import post
from tests.servers import REPOSITORY, prefect_server, running, wait_until

SERVE = [sys.executable, str(REPOSITORY / "infra" / "serve.py")]
WORKER = """
import signal, subprocess, sys
def told(*_):
    print("worker told", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, told)
run = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
run.wait()
signal.pause()
"""
RUN = """
import signal, sys, time
def told(*_):
    time.sleep(0.5)  # it takes its time
    print("run ended", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print("run begun", flush=True)
signal.pause()
"""
FLOW = """
import time
from prefect import flow

@flow
def sleepy():
    time.sleep(600)

if __name__ == "__main__":
    source = flow.from_source(source=__file__.rsplit("/", 1)[0], entrypoint="sleepy.py:sleepy")
    source.deploy(name="long", work_pool_name="tsp", ignore_warnings=True)
"""


def test_runs_end_before_their_worker() -> None:
    command = [*SERVE, sys.executable, "-c", WORKER, RUN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        assert served.stdout.readline() == "run begun\n"
        served.send_signal(signal.SIGTERM)
        assert served.stdout.read().splitlines() == ["run ended", "worker told"]
        assert served.wait() == 3


def test_a_worker_that_ends_by_itself_ends_the_service() -> None:
    done = subprocess.run([*SERVE, sys.executable, "-c", "raise SystemExit(4)"], check=False)
    assert done.returncode == 4


@pytest.mark.cluster
@pytest.mark.server
@pytest.mark.slow
def test_the_server_hears_of_runs_that_end_with_their_worker(tmp_path: Path) -> None:
    (tmp_path / "sleepy.py").write_text(FLOW)
    log = tmp_path / "worker.log"
    with prefect_server(tmp_path) as server:

        def state() -> str:
            return " ".join(run["state"]["type"] for run in post(server, "flow_runs/filter"))

        server.prefect("--no-prompt", "work-pool", "create", "--type", "process", "tsp")
        environment = dict(server.environment)
        subprocess.run([sys.executable, tmp_path / "sleepy.py"], env=environment, check=True)
        worker = [*SERVE, sys.executable, "-m", "prefect", "worker", "start", "--pool", "tsp"]
        with running(worker, environment, log) as process:
            server.prefect("deployment", "run", "sleepy/long")
            wait_until(lambda: state() == "RUNNING", process, log)
            process.terminate()
            process.wait(timeout=60)
        deadline = time.monotonic() + 120
        while state() == "RUNNING" and time.monotonic() < deadline:
            time.sleep(0.5)
        assert state() == "CRASHED"
