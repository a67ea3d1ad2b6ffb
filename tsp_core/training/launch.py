"""Runs training under torchrun, in processes of its own.

The launcher passes updates on, ends the processes when it is interrupted (and the kernel ends them
when it dies), and raises the error that ended them. Where several machines train together, this is
what the flow's does (`tsp_core.training.nodes` has the rest).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tsp_core import errors
from tsp_core.errors import TrainingError, TspError, WorkerLostError
from tsp_core.training import failures
from tsp_core.training.job import (
    RESULT_FILE,
    TrainingFailure,
    TrainingJob,
    TrainingResult,
    TrainingUpdate,
)
from tsp_core.training.nodes import hosted
from tsp_core.training.torchrun import run_torchrun


def launch(job: TrainingJob, on_update: Callable[[TrainingUpdate], None]) -> TrainingResult:
    """Train to the end, or to an error; an interrupted run is continued.

    Args:
        job: What to train; its folder must hold the clip index.
        on_update: Called as training goes on.

    Raises:
        TspError: What a training process raised: `TrainingError`, `WeightsError`, ...
        WorkerLostError: A training process was killed or crashed; a retry continues the run.
    """
    job.path(RESULT_FILE).unlink(missing_ok=True)
    failures.forget(job)
    with hosted(job) as meeting:
        status, tail = run_torchrun(job, on_update, meeting=meeting)
    if status != 0 or not job.path(RESULT_FILE).exists():
        raise _error(failures.recorded(job), status, tail)
    return TrainingResult.model_validate_json(job.path(RESULT_FILE).read_text(encoding="utf-8"))


def _error(known: Sequence[TrainingFailure], status: int, tail: str) -> TspError:
    """The error to raise: a process's own before one that only lost contact to the others."""
    if not known:
        return WorkerLostError(
            f"training ended with status {status} without giving a reason; a process was killed "
            f"(out of memory?) or crashed. The end of its output:\n{tail}"
        )
    lost = WorkerLostError.__name__
    failure = next((item for item in known if item.type != lost), known[0])
    kind = getattr(errors, failure.type, TrainingError)
    error: TspError = kind(failure.message)
    error.add_note(f"The end of the training's output:\n{tail}")
    return error
