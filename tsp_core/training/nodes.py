"""Several machines train together: how they find each other, and how one joins.

The flow's machine, node 0, lays what the others need into the store and leaves a note there that
says where it is; `tsp join` on another machine waits for the note, fetches the data, and starts
torchrun with the same rendezvous. Node 0 hosts the rendezvous, so when it is lost the others end
too, and join again when the flow's task is retried. When another one is lost, the rest wait for it
or for its replacement, and all go on from the last checkpoint.
"""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from tsp_core import storage
from tsp_core.errors import ConfigError, ObjectNotFoundError, TransientError, WorkerLostError
from tsp_core.training.checks import check_device
from tsp_core.training.cores import share_of_cores
from tsp_core.training.index import INDEX_FILES
from tsp_core.training.job import JOB_FILE, Meeting, TrainingJob, TrainingUpdate
from tsp_core.training.processes import own_address, run_processes

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 2.0
_ELSEWHERE = "198.51.100.1"  # an address of nobody (RFC 5737): the way there is the default route


def meeting_uri(root: str, name: str) -> str:
    """Where the machines of a dataset's training learn of each other."""
    return storage.join(root, "training", "nodes", f"{name}.json")


@contextmanager
def hosted(job: TrainingJob) -> Iterator[Meeting | None]:
    """Invite the other machines while training goes on; None when there are none."""
    if job.pretrain.nodes == 1:
        yield None
        return
    names = [name for name in INDEX_FILES if job.path(name).exists()]
    for name in names:
        storage.upload(job.path(name), storage.join(job.data_uri, name))
    _write(storage.join(job.data_uri, JOB_FILE), job.model_dump_json())
    endpoint = job.pretrain.rendezvous or f"{own_address(_ELSEWHERE)}:{_free_port()}"
    meeting = Meeting(endpoint=endpoint, run_id=uuid.uuid4().hex[:12], data_uri=job.data_uri)
    _write(job.meeting_uri, meeting.model_dump_json())
    logger.info(
        "training on %d machines, which meet at %s; waiting for `tsp join CONFIG --node N` on the "
        "others",
        *(job.pretrain.nodes, endpoint),
    )
    try:
        yield meeting
    finally:
        storage.delete(job.meeting_uri)
        storage.delete(job.data_uri, recursive=True)


def join(uri: str, *, node: int, cache_dir: str | None, wait_seconds: float) -> bool:
    """Take part in a training until it ends.

    Args:
        uri: Where its machines learn of each other.
        node: This machine among them, from 1.
        cache_dir: Local folder for remote videos and weights.
        wait_seconds: How long to wait for a training to begin, or to begin again after an error.

    Returns:
        Whether a training was carried to its end; False when none began.

    Raises:
        ConfigError: The training has no such node, or this machine cannot do its part.
        StorageUnavailableError: The store did not answer, and does not at the end of the wait.
        WorkerLostError: The training ended with errors, and did not begin again.
    """
    attempts: Counter[str] = Counter()
    given_up: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="tsp-join-") as folder:
        while (found := _awaited(uri, wait_seconds, given_up, folder)) is not None:
            meeting, job = found
            status = _take_part(meeting, _own_job(job, node, cache_dir))
            if status == 0:
                return True
            logger.warning("the training at %s ended with status %d here", meeting.endpoint, status)
            attempts[meeting.run_id] += 1
            if attempts[meeting.run_id] > _MAX_ATTEMPTS:
                given_up.add(meeting.run_id)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    if attempts:
        raise WorkerLostError(
            f"node {node}: the training ended with errors and did not begin again within "
            f"{wait_seconds:.0f} s; the flow's run says why"
        )
    return False


_MAX_ATTEMPTS = 3
"""Of one machine at one training; the flow's retry of it is another training."""


def _awaited(
    uri: str, seconds: float, without: Container[str], folder: str
) -> tuple[Meeting, TrainingJob] | None:
    """Wait for a training and fetch its data; None when none begins.

    Raises:
        StorageUnavailableError: The store does not answer at the end of the wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        trouble: TransientError | None = None
        try:
            meeting = Meeting.model_validate_json(storage.read_bytes(uri))
            if meeting.run_id not in without:
                return meeting, _fetched(meeting, folder)
        except (ObjectNotFoundError, FileNotFoundError):
            pass  # none has begun, or it ended just now
        except TransientError as error:
            trouble = error
        left = deadline - time.monotonic()
        if left < 0 and trouble is not None:
            raise trouble
        if left < 0:
            return None
        if trouble is not None:
            logger.warning("%s; going on for %.0f s before giving up", trouble, left)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _fetched(meeting: Meeting, parent: str) -> TrainingJob:
    """Fetch what a training needs into a folder below another; nothing is left of half of it."""
    folder = tempfile.mkdtemp(dir=parent)
    try:
        for item in storage.list_objects(meeting.data_uri):
            storage.download(item.uri, Path(folder, item.uri.rsplit("/", 1)[1]))
        text = Path(folder, JOB_FILE).read_text(encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return TrainingJob.model_validate_json(text).model_copy(update={"folder": folder})


def _take_part(meeting: Meeting, job: TrainingJob) -> int:
    """Run this machine's processes of a training; return their status."""
    try:
        status, tail = run_processes(job, _ignore, meeting=meeting)
    finally:
        shutil.rmtree(job.folder, ignore_errors=True)
    if status != 0:
        logger.warning("the end of the training's output:\n%s", tail)
    return status


def _own_job(job: TrainingJob, node: int, cache_dir: str | None) -> TrainingJob:
    """The job as this machine does it."""
    import torch

    if not 0 < node < job.pretrain.nodes:
        raise ConfigError(
            f"--node {node}: the training has {job.pretrain.nodes} machines (pretrain.nodes), of "
            f"which the flow's is 0; give one of 1 to {job.pretrain.nodes - 1}"
        )
    check_device(job.pretrain, job.device, torch.cuda.device_count())
    num_threads, num_workers = share_of_cores(job.pretrain, job.device)
    return job.model_copy(
        update={
            "node": node,
            "cache_dir": cache_dir,
            "num_threads": num_threads,
            "num_workers": num_workers,
        }
    )


def _ignore(update: TrainingUpdate) -> None:
    """Only node 0 is told; here is nobody to tell."""


def _write(uri: str, text: str) -> None:
    storage.write_bytes(uri, text.encode("utf-8"))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
