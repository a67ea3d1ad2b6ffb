"""Runs training in processes of its own.

The launcher passes updates on, ends the processes when it is interrupted (and the kernel ends them
when it dies), and raises the error that ended them. Where several machines train together, this is
what the flow's does (`tsp_core.training.nodes` has the rest).
"""

from __future__ import annotations

import logging
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
from tsp_core.training.processes import run_processes
from tsp_core.training.suspects import collect_suspects

logger = logging.getLogger(__name__)

_MAX_DEATHS = 5
"""Of processes while they decode, in one attempt; who launches again continues with the rest."""


def launch(job: TrainingJob, on_update: Callable[[TrainingUpdate], None]) -> TrainingResult:
    """Train to the end, or to an error; an interrupted run is continued.

    When a process dies while it decodes a video, training goes on from its last checkpoint, and
    that video is read apart (`tsp_core.training.suspects`).

    Args:
        job: What to train; its folder must hold the clip index.
        on_update: Called as training goes on.

    Raises:
        TspError: What a training process raised: `TrainingError`, `WeightsError`, ...
        WorkerLostError: A training process was killed or crashed; a retry continues the run.
    """
    for _ in range(_MAX_DEATHS):
        try:
            return _launch(job, on_update)
        except WorkerLostError as error:
            found = collect_suspects(job)
            if not found:
                raise
            logger.warning(
                "a process died while it decoded %s; training goes on from its last checkpoint and "
                "decodes that in processes of its own from now on (%s)",
                *(", ".join(map(repr, sorted(found))), error),
            )
    return _launch(job, on_update)


def _launch(job: TrainingJob, on_update: Callable[[TrainingUpdate], None]) -> TrainingResult:
    job.path(RESULT_FILE).unlink(missing_ok=True)
    failures.forget(job)
    with hosted(job) as meeting:
        status, tail = run_processes(job, on_update, meeting=meeting)
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
