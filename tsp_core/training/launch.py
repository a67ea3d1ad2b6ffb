"""Runs training under torchrun, in processes of its own, on this machine.

The launcher passes updates on, ends the processes when it is interrupted (and the kernel ends them
when it dies), and raises the error that ended them.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tsp_core import errors
from tsp_core.config import PretrainConfig
from tsp_core.errors import TrainingError, TspError, WorkerLostError
from tsp_core.training.job import (
    JOB_FILE,
    RESULT_FILE,
    TrainingFailure,
    TrainingJob,
    TrainingResult,
    TrainingUpdate,
    write_json,
)
from tsp_core.training.main import UPDATE_PREFIX

logger = logging.getLogger(__name__)

_SECONDS_TO_END = 10.0
_TAIL_CHARACTERS = 2000
_MAX_LOADERS = 12


def launch(job: TrainingJob, on_update: Callable[[TrainingUpdate], None]) -> TrainingResult:
    """Train to the end, or to an error; an interrupted run is continued.

    Args:
        job: What to train; its folder must hold the clip index.
        on_update: Called as training goes on.

    Raises:
        TspError: What a training process raised: `TrainingError`, `WeightsError`, ...
        WorkerLostError: A training process was killed or crashed; a retry continues the run.
    """
    for old in (*Path(job.folder).glob("error-*.json"), job.path(RESULT_FILE)):
        old.unlink(missing_ok=True)
    write_json(job.path(JOB_FILE), job)
    errors_file = job.path("stderr.txt")
    with errors_file.open("wb") as stderr:
        process = subprocess.Popen(
            _command(job),
            env=_environment(job),
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
    if status != 0 or not job.path(RESULT_FILE).exists():
        raise _error(Path(job.folder), status, _tail(errors_file))
    return TrainingResult.model_validate_json(job.path(RESULT_FILE).read_text(encoding="utf-8"))


def share_of_cores(pretrain: PretrainConfig, device: Literal["cpu", "cuda"]) -> tuple[int, int]:
    """Threads and loader processes of each training process, from this machine's cores.

    On the CPU both share the cores: with a large encoder the loaders mostly wait, with a tiny one
    the trainer does. With one core the trainer reads the clips itself.
    """
    mine = max(1, _num_cores() // pretrain.processes)
    by_default = min(mine, _MAX_LOADERS) if device == "cuda" or mine > 1 else 0
    return mine, by_default if pretrain.workers is None else pretrain.workers


def _num_cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS, where it is set, is obeyed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores or 1, int(limit)) if limit.isdigit() and int(limit) else cores or 1


def _command(job: TrainingJob) -> list[str]:
    """Start torchrun with its rendezvous on loopback."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    processes = ["--nproc-per-node", str(job.pretrain.processes)]
    program = ["-m", "tsp_core.training.main", str(job.path(JOB_FILE))]
    return [sys.executable, "-m", "tsp_core.tether", *torchrun, *processes, *program]


def _environment(job: TrainingJob) -> dict[str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.num_threads), "PYTHONUNBUFFERED": "1"}
    if job.device == "cpu":
        # Threads that wait by spinning take the cores from the loader processes: with two cores,
        # two threads and two loaders, training a tiny encoder was five times slower.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    return environment


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
    """End torchrun, which ends its processes; kill it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _error(folder: Path, status: int, tail: str) -> TspError:
    """The error to raise: a process's own before one that only lost contact to the others."""
    failures = [
        TrainingFailure.model_validate_json(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("error-*.json"))
    ]
    if not failures:
        return WorkerLostError(
            f"training ended with status {status} without giving a reason; a process was killed "
            f"(out of memory?) or crashed. The end of its output:\n{tail}"
        )
    lost = WorkerLostError.__name__
    failure = next((item for item in failures if item.type != lost), failures[0])
    kind = getattr(errors, failure.type, TrainingError)
    error: TspError = kind(failure.message)
    error.add_note(f"The end of the training's output:\n{tail}")
    return error


def _tail(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    return text[-_TAIL_CHARACTERS:].strip()
