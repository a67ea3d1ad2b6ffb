"""The program of every training process: `main.py JOB.json`.

Updates go to standard output, one JSON record per line behind a prefix; the error that ended a
process goes into a file, by the name of its type, so that the launcher can raise it again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from pathlib import Path

from tsp_core.errors import TrainingError, TspError, WorkerLostError
from tsp_core.tether import die_with_parent
from tsp_core.training import failures
from tsp_core.training.job import (
    BEST_FILE,
    RESULT_FILE,
    TrainingFailure,
    TrainingJob,
    TrainingResult,
    TrainingUpdate,
    write_json,
)

UPDATE_PREFIX = "tsp-update "
_SECONDS_BETWEEN_UPDATES = 0.5

_OUT_OF_MEMORY = (
    "OutOfMemory",
    "out of memory",
    "_ALLOC_FAILED",
    "DefaultCPUAllocator",
    "MemoryError",
)
_LOST = (
    "DistBackendError",
    "DistNetworkError",
    "DistStoreError",
    "gloo",
    "Connection",
    *failures.LOADER_LOST,
)
"""Signs in errors of torch that another training process or a loader process is gone."""


def main(job_file: str) -> int:
    """Train as the job file says; return the exit status."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    job = TrainingJob.model_validate_json(Path(job_file).read_text(encoding="utf-8"))
    try:
        if job.pretrain.nodes > 1 and failures.is_hopeless(job):
            return 1  # torchrun restarts all processes after any error; this ends that at once
        train(job)
    except Exception as error:
        traceback.print_exc()
        failures.record(job, _failure(error), rank=os.environ.get("LOCAL_RANK", "0"))
        _end_among_others()
        return 1
    return 0


def _end_among_others() -> None:
    """Leave the other processes after an error; on GPUs by ending at once.

    There what takes the process group down may wait for processes that wait for this one; torchrun
    ends them when this one has ended.
    """
    if "torch" not in sys.modules:
        return
    from tsp_core.training.distributed import leave_world, uses_nccl

    if not uses_nccl():
        leave_world()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def train(job: TrainingJob) -> None:
    """Train in this process; the first process leaves the result and the best checkpoint."""
    import torch

    from tsp_core.training.distributed import join_world, leave_world
    from tsp_core.training.loop import Trainer
    from tsp_core.training.result import save_best

    torch.set_num_threads(job.num_threads)
    torch.backends.cudnn.benchmark = True
    world = join_world(job.device, node=job.node, num_nodes=job.pretrain.nodes)
    trainer = Trainer(job, world, _Reporter())
    position = trainer.run()
    if world.is_first:
        save_best(job, position, job.path(BEST_FILE))
        result = TrainingResult(
            best_epoch=position.best_epoch,
            rows=tuple(position.rows),
            quarantined=tuple(position.quarantine.values()),
        )
        write_json(job.path(RESULT_FILE), result)
    leave_world()


class _Reporter:
    """Prints updates: every one that ends an epoch's phase, a few a second of the others."""

    def __init__(self) -> None:
        self._printed_at = 0.0

    def __call__(self, update: TrainingUpdate) -> None:
        now = time.monotonic()
        if update.is_epoch_end or now - self._printed_at > _SECONDS_BETWEEN_UPDATES:
            self._printed_at = now
            print(UPDATE_PREFIX + update.model_dump_json(), flush=True)


def _failure(error: Exception) -> TrainingFailure:
    """Sort an error into the project's own."""
    if isinstance(error, TspError):
        return TrainingFailure(type=type(error).__name__, message=str(error))
    text = f"{type(error).__name__}: {error}"
    line = text.splitlines()[0]
    if any(sign in text for sign in _OUT_OF_MEMORY):
        message = f"out of memory ({line}); lower pretrain.batch_size"
        return TrainingFailure(type=TrainingError.__name__, message=message)
    if any(sign in text for sign in _LOST):
        message = f"a process of the training was lost: {line}"
        return TrainingFailure(type=WorkerLostError.__name__, message=message)
    return TrainingFailure(type=TrainingError.__name__, message=f"unexpected {text}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
