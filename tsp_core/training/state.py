"""Checkpoints from which an interrupted run continues as if it had never stopped.

A checkpoint is one object, replaced atomically: there is never a moment without a whole one. It
holds what cannot be derived from (seed, epoch, iteration): weights, momentum, the loss scaler, the
position, and the figures so far; and, at its end, its SHA-256, because `torch.load` takes damaged
numbers for good ones. Clips, crops, flips, learning rates and torch's generator are
functions of (seed, epoch, iteration) and are not stored.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tsp_core import storage
from tsp_core.errors import ArtifactError, ObjectNotFoundError, StorageError
from tsp_core.training import metrics
from tsp_core.training.job import BadVideo, MetricRow
from tsp_core.training.metrics import Sums
from tsp_core.training.quarantine import Quarantine

STATE_VERSION = 4
_READABLE = (2, 3, STATE_VERSION)
_DIGEST_BYTES = 32
_CHUNK_BYTES = 8 << 20
_SPACE_TO_EXPECT_BYTES = 16 << 20
_DOWNLOADS = 3  # damage on the way is gone at another one
StateDict = dict[str, Any]


@dataclass(kw_only=True)
class Position:
    """How far a run is, and what came of it so far.

    Attributes:
        epoch: Current epoch, from 0.
        next_batch: Batches of it that are done; all of them when only its validation is left.
        iteration: Optimiser steps since the start.
        sums: Over this epoch's batches so far.
        rows: Metrics of the epochs that are done.
        best_epoch: Epoch with the highest mean validation accuracy; -1 before the first.
        best_accuracy: That accuracy, over the videos that could be read then.
        best_counts: What it follows from, float64 [V, 4] as of `metrics.add_counts`; empty
            after a checkpoint of version 2 or 3, until an epoch is better.
        best_model: The model's state after that epoch, on the CPU.
        quarantine: Videos that could not be read.
    """

    epoch: int = 0
    next_batch: int = 0
    iteration: int = 0
    sums: Sums = field(default_factory=Sums)
    rows: list[MetricRow] = field(default_factory=list)
    best_epoch: int = -1
    best_accuracy: float = -1.0
    best_counts: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 4), compare=False)
    best_model: StateDict = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=dict)

    def keep_if_best(self, counts: torch.Tensor, unread: Iterable[int], model: nn.Module) -> None:
        """Remember the model if it is better than all before; ties go to the earliest epoch.

        Epochs are compared on the videos that both could read: an epoch that a hard video was
        left out of is no better for that.

        Args:
            counts: Of this epoch's validation, float64 [V, 4] on the CPU.
            unread: Rows of the videos that cannot be read.
            model: Not wrapped by DistributedDataParallel.
        """
        left_out = torch.tensor(list(unread), dtype=torch.int64)
        counts = counts.index_fill(0, left_out, 0)
        accuracy, best = metrics.accuracy_of_counts(counts), self.best_accuracy
        if len(self.best_counts):
            best = metrics.accuracy_of_counts(self.best_counts.index_fill(0, left_out, 0))
        if self.best_epoch < 0 or accuracy > best:
            self.best_epoch, self.best_accuracy, self.best_counts = self.epoch, accuracy, counts
            self.best_model = {
                name: value.detach().to("cpu", copy=True)
                for name, value in model.state_dict().items()
            }


def save_state(
    uri: str,
    position: Position,
    *,
    aside: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Store a checkpoint, replacing the one before.

    Args:
        uri: Where to.
        position: How far the run is.
        aside: Local file to write first.
        model: Not wrapped by DistributedDataParallel.
        optimizer: With its momentum.
        scaler: The loss scaler.

    Raises:
        StorageError: There is no space for the local file.
    """
    content = {
        "version": STATE_VERSION,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "position": {
            **vars(position),
            "sums": list(position.sums),
            "rows": [list(row) for row in position.rows],
            "quarantine": [list(bad) for bad in position.quarantine.values()],
        },
    }
    try:
        torch.save(content, aside)
        with aside.open("r+b") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(digest)
    except (OSError, RuntimeError) as error:
        _refuse_full_disk(error, aside)
        raise
    storage.upload(aside, uri)
    aside.unlink()


def _refuse_full_disk(error: Exception, path: Path) -> None:
    """Raise what helps, if a file could not be written whole because the disk is full.

    torch says only that the file is shorter than it should be.
    """
    is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    is_short = isinstance(error, RuntimeError) and "inline_container" in str(error)
    free = shutil.disk_usage(path.parent).free
    if not (is_full or (is_short and free < _SPACE_TO_EXPECT_BYTES)):
        return
    written = path.stat().st_size if path.exists() else 0
    path.unlink(missing_ok=True)
    raise StorageError(
        f"{path.parent}: no space left for a checkpoint ({written >> 20} MB of it fitted); free "
        "some, or let TMPDIR name a folder on a larger disk, and start the run again: it goes on "
        "from the checkpoint before"
    )


def fetch_state(uri: str, path: Path) -> bool:
    """Download a checkpoint to a local file; False when there is none.

    Raises:
        ArtifactError: It is damaged.
    """
    for _ in range(_DOWNLOADS):
        try:
            storage.download(uri, path)
        except ObjectNotFoundError:
            return False
        if _is_whole(path):
            return True
    raise ArtifactError(
        f"{storage.redact(uri)}: the training checkpoint does not match its checksum; delete it "
        "to start anew"
    )


def _is_whole(path: Path) -> bool:
    left = path.stat().st_size - _DIGEST_BYTES
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
        return file.read() == digest.digest()


def load_state(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Position:
    """Bring model, optimiser and scaler to where a checkpoint left them; return the position.

    Raises:
        ArtifactError: The checkpoint is damaged, or of an unknown version.
    """
    with _explained(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = content.get("version")
    if version not in _READABLE:
        known = ", ".join(map(str, _READABLE))
        raise ArtifactError(
            f"{path.name}: version {version!r} of the training checkpoint is unknown to this "
            f"release, which reads versions {known}; delete it to start anew"
        )
    with _explained(path):
        return _restore(content, model, optimizer, scaler)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the restricted unpickler fails in many ways on damaged files
        line = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ArtifactError(
            f"{path.name}: damaged training checkpoint ({line}); delete it to start anew"
        ) from error


def _restore(
    content: StateDict,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Position:
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    scaler.load_state_dict(content["scaler"])
    values = copy.copy(content["position"])
    values["sums"] = Sums(*values["sums"])
    values["rows"] = [MetricRow(*row) for row in values["rows"]]
    bad = [BadVideo(*video) for video in values.get("quarantine", [])]  # none in version 2
    values["quarantine"] = {video.video: video for video in bad}
    return Position(**values)
