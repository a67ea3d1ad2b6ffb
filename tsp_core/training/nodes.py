"""Several machines train together: how they find each other, and how one joins.

The flow's machine, node 0, lays what the others need into the store and leaves a note there that
says where it is; `tsp join` on another machine waits for the note, fetches the data, and starts
torchrun with the same rendezvous. Node 0 hosts the rendezvous, so when it is lost the others end
too, and join again when the flow's task is retried. When another one is lost, the rest wait for it
or for its replacement, and all go on from the last checkpoint.
"""

from __future__ import annotations

import logging
import socket
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from tsp_core import storage
from tsp_core.errors import ConfigError, ObjectNotFoundError, WorkerLostError
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
        WorkerLostError: The training ended with errors, and did not begin again.
    """
    attempts: Counter[str] = Counter()
    given_up: set[str] = set()
    while (meeting := _awaited(uri, wait_seconds, given_up)) is not None:
        status = _take_part(meeting, node=node, cache_dir=cache_dir)
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


def _awaited(uri: str, seconds: float, without: Container[str]) -> Meeting | None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            meeting = Meeting.model_validate_json(storage.read_bytes(uri))
            if meeting.run_id not in without:
                return meeting
        except ObjectNotFoundError:
            pass
        if time.monotonic() > deadline:
            return None
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _take_part(meeting: Meeting, *, node: int, cache_dir: str | None) -> int:
    """Fetch the data and run torchrun; return its status."""
    with tempfile.TemporaryDirectory(prefix="tsp-join-") as folder:
        try:
            for item in storage.list_objects(meeting.data_uri):
                storage.download(item.uri, Path(folder, item.uri.rsplit("/", 1)[1]))
            text = Path(folder, JOB_FILE).read_text(encoding="utf-8")
        except (ObjectNotFoundError, FileNotFoundError):
            return 1  # the training ended just now
        job = _own_job(TrainingJob.model_validate_json(text), node, folder, cache_dir)
        status, tail = run_processes(job, _ignore, meeting=meeting)
        if status != 0:
            logger.warning("the end of the training's output:\n%s", tail)
        return status


def _own_job(job: TrainingJob, node: int, folder: str, cache_dir: str | None) -> TrainingJob:
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
            "folder": folder,
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
