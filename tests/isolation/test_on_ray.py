"""Decoding processes of a Ray worker: a crash costs the file, and none outlives the worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.ray_cluster import ray_cluster
from tests.servers import REPOSITORY
from tests.video.crashing import crash, process_id
from tsp_core.config import RuntimeConfig
from tsp_core.errors import VideoError
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
LIMITS = DecodingLimits.of(RuntimeConfig())


def decode(name: str) -> tuple[int, int | str]:
    """This process, and that of the decoder or why the file cannot be decoded."""
    function: Any = crash if name == "bad.mp4" else process_id
    try:
        return os.getpid(), int(run_sandboxed(function, Path(name), LIMITS))
    except VideoError as error:
        return os.getpid(), str(error)


@pytest.mark.timeout(900)  # a Ray cluster on a busy machine
def test_a_crash_in_a_ray_worker_costs_the_file_and_no_decoder_outlives_it() -> None:
    with ray_cluster() as cluster:
        import ray

        environment = {"env_vars": {"PYTHONPATH": str(REPOSITORY)}}
        ray.init(address=cluster.address, log_to_driver=False, runtime_env=environment)
        task = ray.remote(max_retries=0)(decode)
        bad_worker, reason = ray.get(task.remote("bad.mp4"))
        worker, decoder = ray.get(task.remote("good.mp4"))
        assert bad_worker != os.getpid()
        assert "crashed: 'bad.mp4': the decoder crashes on it, twice" in str(reason)
        assert decoder not in (worker, os.getpid())
        os.kill(int(decoder), 0)  # it waits for the next file
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 240
        while is_alive(int(decoder)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_alive(int(decoder))


def is_alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return fields[0] not in "ZX"
