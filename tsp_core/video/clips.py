"""All clips of one video in one sequential pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.video.buffers import FrameBuffers
from tsp_core.video.pictures import PictureJob, opened_pictures
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import ClipGrid, FrameTimeline
from tsp_core.video.sandbox import DecodingLimits

__all__ = ["ClipBatch", "ClipReader", "iter_clip_batches"]


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Consecutive clips of a grid.

    Attributes:
        clips: float32 [B, 3, L, S, S], normalised, centre crop; in memory [.., S, S, 3]
            (channels last). Clips that overlap share their frames' memory: do not write to it.
        first_index: Index of the first of them in the grid.
    """

    clips: torch.Tensor
    first_index: int


def iter_clip_batches(
    path: Path,
    timeline: FrameTimeline,
    rotation_degrees: int,
    clip: ClipConfig,
    grid: ClipGrid,
    batch_size: int,
    *,
    threads: int = 1,
    limits: DecodingLimits | None = None,
) -> Iterator[ClipBatch]:
    """Decode a video once and yield its clips in order, in batches.

    Each frame that some clip shows is converted and resized once, whatever the stride; only the
    frames of the clips of one batch are held, so memory does not grow with the video.

    Args:
        path: Local video file.
        timeline: The file's frames, as measured at ingest.
        rotation_degrees: Counter-clockwise turn that makes the picture upright.
        clip: Clip length, sizes and colour conversion.
        grid: The clips to yield.
        batch_size: Clips per batch; the last batch may be smaller.
        threads: Decoding threads.
        limits: Decode in a worker process with these; None decodes in this one.

    Raises:
        VideoError: The file is not what the timeline says, cannot be decoded, crashes the decoder
            or reaches a limit.
    """
    needed, places = np.unique(grid.frame_indices, return_inverse=True)
    places = places.reshape(grid.frame_indices.shape)
    job = PictureJob(
        path=path,
        timeline=timeline,
        rotation_degrees=rotation_degrees,
        clip=clip,
        needed=needed,
        threads=threads,
    )
    buffers = FrameBuffers(clip.crop_size)
    held, held_from = buffers.empty(0), 0
    with opened_pictures(job, limits) as fill:
        for first_index in range(0, len(grid), batch_size):
            shown = places[first_index : first_index + batch_size]
            first, end = int(shown.min()), int(shown.max()) + 1
            kept = held[first - held_from :]
            held, held_from = buffers.empty(end - first), first
            held[: len(kept)] = kept
            fill(held[len(kept) :])
            yield ClipBatch(clips=_assemble(held, shown - first), first_index=first_index)


def _assemble(frames: NDArray[np.float32], places: NDArray[np.int64]) -> torch.Tensor:
    """Make clips, float32 [B, 3, L, S, S], of frames [T, S, S, 3]; places [B, L] are in [0, T).

    Where each clip starts equally far from the one before, clips are views of the frames.
    """
    batch, length = places.shape
    stride = int(places[-1, 0] - places[0, 0]) // max(batch - 1, 1)
    even = stride * np.arange(batch)[:, None] + np.arange(length)
    if np.array_equal(places, even):
        steps = (stride * frames.strides[0], *frames.strides)
        clips = np.lib.stride_tricks.as_strided(frames, (*places.shape, *frames.shape[1:]), steps)
    else:
        # NumPy asks for huge pages, torch for a page fault every 4 kB.
        clips = np.empty((batch, length, *frames.shape[1:]), dtype=np.float32)
        np.take(frames, places, axis=0, out=clips, mode="wrap")
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)
