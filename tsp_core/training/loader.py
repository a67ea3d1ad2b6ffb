"""Delivers planned clips to the model: read by loader processes, finished on the model's device.

Loader processes deliver cropped and mirrored uint8 frames; they become normalised floats on the
device, in the process that trains, so that a quarter of the bytes travel.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import multiprocessing.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from tsp_core.config import ClipConfig
from tsp_core.errors import WorkerLostError
from tsp_core.model.losses import IGNORED_LABEL
from tsp_core.tether import die_with_parent
from tsp_core.training.data import ClipDataset, RawBatch, Request
from tsp_core.training.failures import LOADER_LOST
from tsp_core.training.index import ClipIndex
from tsp_core.training.samplers import ClipPlan
from tsp_core.video.sandbox import DecodingLimits
from tsp_core.video.transforms import normalise_clips

logger = logging.getLogger(__name__)
_LAST = -1000  # of what a process does at its end


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips on the model's device, with their labels.

    Attributes:
        clips: float32 [B, 3, L, S, S], normalised.
        gvf: float32 [B, F], or None without global video features.
        action_labels: int64 [B]; -1 is ignored by the loss.
        region_labels: int64 [B].
        positions: int64 [B], positions in the plan (on the CPU).
        failed: Why clips could not be read, by their positions in the plan.
    """

    clips: torch.Tensor
    gvf: torch.Tensor | None
    action_labels: torch.Tensor
    region_labels: torch.Tensor
    positions: NDArray[np.int64]
    failed: dict[int, str]

    def __len__(self) -> int:
        return len(self.positions)

    def or_blank(self) -> Batch:
        """This batch or, when none of its clips could be read, one black clip without labels.

        A model cannot run on nothing, and every training process must take part in the exchange
        of gradients; the blank clip's loss and gradients are 0.
        """
        if len(self) > 0:
            return self
        ignored = torch.full((1,), IGNORED_LABEL, device=self.clips.device)
        return replace(
            self,
            clips=self.clips.new_zeros((1, *self.clips.shape[1:])),
            gvf=None if self.gvf is None else self.gvf.new_zeros((1, self.gvf.shape[1])),
            action_labels=ignored,
            region_labels=ignored,
        )


class ClipLoader:
    """Delivers a plan's clips batch by batch, from loader processes that live on between plans.

    Args:
        index: The clip index.
        clip: What a clip is.
        device: Where the batches go.
        num_workers: Loader processes; 0 reads in this process.
        cache_dir: Local folder for videos of remote stores.
        limits: What decoding may take; None sets no limits.
        apart: Videos (rows of the index's) that are decoded in processes of their own.
    """

    def __init__(
        self,
        index: ClipIndex,
        clip: ClipConfig,
        *,
        device: torch.device,
        num_workers: int,
        cache_dir: str | None,
        limits: DecodingLimits | None = None,
        apart: frozenset[int] = frozenset(),
    ) -> None:
        self.index, self.clip, self.device = index, clip, device
        self._dataset = ClipDataset(index.folder, clip, cache_dir, limits, apart)
        self._requests = _Requests()
        self._loader = DataLoader(
            self._dataset,
            batch_sampler=self._requests,
            num_workers=num_workers,
            collate_fn=_as_is,
            pin_memory=device.type == "cuda",
            persistent_workers=num_workers > 0,
            # Spawned: forking a process with threads is unsafe, and a fork server's children
            # cannot tell that the trainer was killed.
            multiprocessing_context="spawn" if num_workers else None,
            worker_init_fn=functools.partial(_begin_process, os.getpid()),
            generator=torch.Generator(),  # the global one is the trainer's
        )

    def batches(
        self,
        plan: ClipPlan,
        positions: Iterable[NDArray[np.int64]],
        left_out: Mapping[int, str] = MappingProxyType({}),
    ) -> Iterator[Batch]:
        """Yield the plan's clips at each array of positions.

        Args:
            plan: The clips.
            positions: Of the clips of each batch.
            left_out: Videos (rows of the index's) whose clips are not tried, and why.

        Raises:
            WorkerLostError: A loader process died.
            TransientError: The store of a remote video does not answer.
        """
        videos = self.index.video_indices[plan.rows]
        is_tried = ~np.isin(videos, list(left_out))
        wanted = list(positions)
        self._requests.positions = [batch[is_tried[batch]] for batch in wanted]
        self._requests.plan = plan
        raw_batches = iter(self._loader)
        for batch, tried in zip(wanted, self._requests.positions, strict=True):
            untried = batch[~is_tried[batch]]
            failed = {int(place): left_out[int(videos[place])] for place in untried}
            yield self._to_device(plan, tried, self._next(raw_batches), failed)

    def close(self) -> None:
        """End the loader processes and close the videos."""
        iterator = self._loader._iterator
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            with contextlib.suppress(RuntimeError):  # one that is killed just now ends, too
                iterator._shutdown_workers()
        self._loader._iterator = None
        self._dataset.close()

    def _next(self, raw_batches: Iterator[RawBatch]) -> RawBatch:
        try:
            return next(raw_batches)
        except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
            if self._loader.num_workers > 0 and _is_loss(error):
                message = f"a loader process of the training died: {error!r}"
                raise WorkerLostError(message) from error
            raise

    def _to_device(
        self, plan: ClipPlan, wanted: NDArray[np.int64], raw: RawBatch, left_out: dict[int, str]
    ) -> Batch:
        """Normalise on the device; add labels and global video features."""
        index, device = self.index, self.device
        failed = {int(wanted[clip.place]): clip.reason for clip in raw.failed}
        for position, reason in failed.items():
            clip_name = index.describe(int(plan.rows[position]), float(plan.ratios[position]))
            logger.warning("clip left out: %s: %s", clip_name, reason)
        positions = wanted[raw.places]
        rows = plan.rows[positions]
        gvf = None
        if index.gvf is not None:
            gvf = torch.from_numpy(index.gvf[index.video_indices[rows]]).to(device)
        return Batch(
            clips=normalise_clips(raw.frames.to(device, non_blocking=True)),
            gvf=gvf,
            action_labels=torch.from_numpy(index.label_indices[rows].astype(np.int64)).to(device),
            region_labels=torch.from_numpy(index.regions[rows].astype(np.int64)).to(device),
            positions=positions,
            failed=left_out | failed,
        )


class _Requests(Sampler[list[Request]]):
    """The batches of requests that the loader works through next."""

    def __init__(self) -> None:
        self.plan: ClipPlan | None = None
        self.positions: list[NDArray[np.int64]] = []

    def __iter__(self) -> Iterator[list[Request]]:
        assert self.plan is not None
        for wanted in self.positions:
            plan = self.plan
            columns = (plan.rows, plan.ratios, plan.tops, plan.lefts, plan.flips)
            values = (column[wanted].tolist() for column in columns)
            yield list(itertools.starmap(Request, zip(*values, strict=True)))

    def __len__(self) -> int:
        return len(self.positions)


def _begin_process(trainer: int, worker: int) -> None:  # noqa: ARG001 - the loader's number
    die_with_parent(trainer)
    multiprocessing.util.Finalize(None, _leave, exitpriority=_LAST)


def _leave() -> None:
    """End a loader process without taking the interpreter down around its threads.

    One of them may be sending a batch that nobody waits for: it would be stopped within PyTorch's
    code, which ends the process with an abort and, where that is configured, a core dump.
    """
    if sys.exc_info()[0] is not None:
        return  # it ends because of an error, which is told
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def _as_is(batch: Any) -> Any:
    """The dataset delivers whole batches; there is nothing to collate."""
    return batch


def _is_loss(error: Exception) -> bool:
    """Whether a loader process died, rather than met an error and told of it.

    PyTorch says so in a RuntimeError. Only when the process dies while its batch is fetched from
    it, through its socket, and is not yet known to be dead, is the connection's own error raised;
    with a GPU that is in a thread, which ends by it.
    """
    if isinstance(error, RuntimeError):
        return any(sign in str(error) for sign in LOADER_LOST)
    return "in DataLoader worker process" not in str(error)
