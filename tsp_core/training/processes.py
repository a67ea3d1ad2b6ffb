"""Runs the training processes of this machine and ends them with their caller, however that ends.

One process alone is started as it is, several by torchrun.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from tsp_core.tether import tied
from tsp_core.training.job import JOB_FILE, Meeting, TrainingJob, TrainingUpdate, write_json
from tsp_core.training.main import UPDATE_PREFIX

logger = logging.getLogger(__name__)

_SECONDS_TO_END = 10.0
_TAIL_CHARACTERS = 2000


def run_processes(
    job: TrainingJob, on_update: Callable[[TrainingUpdate], None], *, meeting: Meeting | None
) -> tuple[int, str]:
    """Run the training processes of this machine; return the exit status and the output's end.

    Args:
        job: What to train; its folder must hold the clip index.
        on_update: Called as training goes on; the first machine alone hears of it.
        meeting: Where the machines meet; None when this one trains alone.
    """
    write_json(job.path(JOB_FILE), job)
    errors_file = job.path("stderr.txt")
    with errors_file.open("wb") as stderr:
        process = subprocess.Popen(
            _command(job, meeting),
            env=_environment(job, meeting),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        try:
            _pass_on_updates(process, on_update)
            status = process.wait()
        finally:
            _end(process)
    text = errors_file.read_text(encoding="utf-8", errors="replace")
    return status, text[-_TAIL_CHARACTERS:].strip()


def _command(job: TrainingJob, meeting: Meeting | None) -> list[str]:
    program = ["-m", "tsp_core.training.main", str(job.path(JOB_FILE))]
    if _is_alone(job):
        return [sys.executable, *program]
    torchrun = ["-m", "torch.distributed.run", *_rendezvous(job, meeting)]
    processes = ["--nproc-per-node", str(job.pretrain.processes)]
    return [sys.executable, "-m", "tsp_core.tether", *torchrun, *processes, *program]


def _is_alone(job: TrainingJob) -> bool:
    return job.pretrain.processes * job.pretrain.nodes == 1


def _rendezvous(job: TrainingJob, meeting: Meeting | None) -> list[str]:
    """One machine meets on loopback, several at the first; torchrun restarts what is lost."""
    if meeting is None:
        return ["--standalone", "--local-addr", "127.0.0.1"]
    seconds = round(60 * job.pretrain.join_minutes)
    return [
        *("--nnodes", str(job.pretrain.nodes), "--max-restarts", str(job.pretrain.max_restarts)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", meeting.endpoint),
        *("--rdzv-id", meeting.run_id, "--local-addr", own_address(meeting.host)),
        *("--rdzv-conf", f"is_host={int(job.node == 0)},join_timeout={seconds}"),
    ]


def own_address(host: str) -> str:
    """Address of this machine's interface that faces a host; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:  # no way there: there is no network
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _environment(job: TrainingJob, meeting: Meeting | None) -> dict[str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.num_threads), "PYTHONUNBUFFERED": "1"}
    if _is_alone(job):  # whatever started the flow may have numbers of its own here
        environment |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    # Each round of a rendezvous gets a store of its own: the shared one may have died with a node.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if job.device == "cpu":
        # Threads that wait by spinning take the cores from the loader processes: with two cores,
        # two threads and two loaders, training a tiny encoder was five times slower.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if meeting is None or _is_loopback(meeting.host):
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    return tied(environment)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pass_on_updates(
    process: subprocess.Popen[str], on_update: Callable[[TrainingUpdate], None]
) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(UPDATE_PREFIX):
            on_update(TrainingUpdate.model_validate_json(line.removeprefix(UPDATE_PREFIX)))
        elif line.strip():
            logger.info("training: %s", line.rstrip())


def _end(process: subprocess.Popen[str]) -> None:
    """End the process, or torchrun and with it its processes; kill it if it does not end."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
