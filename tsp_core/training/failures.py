"""The errors that ended training processes, left in files for whoever has to raise them.

In the folder of the run; where several machines train, also in the store, for the first one.
"""

from __future__ import annotations

import logging
from pathlib import Path

from tsp_core import errors, storage
from tsp_core.errors import PermanentError, TspError
from tsp_core.training.job import TrainingFailure, TrainingJob, write_json

logger = logging.getLogger(__name__)
_PATTERN = "error-*.json"
LOADER_LOST = ("DataLoader worker (pid", "Pin memory thread exited")
"""Signs in errors of torch that a loader process is gone."""


def record(job: TrainingJob, failure: TrainingFailure, *, rank: str) -> None:
    """Leave the error of a process; a store that does not answer costs the others' knowledge."""
    name = _PATTERN.replace("*", f"{job.node}-{rank}")
    write_json(job.path(name), failure)
    if job.pretrain.nodes > 1:
        try:
            uri = storage.join(job.failures_uri, name)
            storage.write_bytes(uri, failure.model_dump_json().encode("utf-8"))
        except TspError as error:
            logger.warning("the other machines do not learn of %s: %s", failure.type, error)


def recorded(job: TrainingJob) -> list[TrainingFailure]:
    """All errors of this run that are known here."""
    texts = [path.read_bytes() for path in sorted(Path(job.folder).glob(_PATTERN))]
    if job.pretrain.nodes > 1:
        items = storage.list_objects(job.failures_uri)
        texts += [storage.read_bytes(item.uri) for item in items]
    return [TrainingFailure.model_validate_json(text) for text in texts]


def is_hopeless(job: TrainingJob) -> bool:
    """Tell whether a process ended by what another attempt would meet again."""
    kinds = (getattr(errors, failure.type, None) for failure in recorded(job))
    return any(isinstance(kind, type) and issubclass(kind, PermanentError) for kind in kinds)


def forget(job: TrainingJob) -> None:
    """Remove what an earlier attempt left."""
    for path in Path(job.folder).glob(_PATTERN):
        path.unlink()
    if job.pretrain.nodes > 1:
        storage.delete(job.failures_uri, recursive=True)
