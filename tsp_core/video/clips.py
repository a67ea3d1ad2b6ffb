"""All clips of one video in one sequential pass.

Every frame is matched to the timeline by its presentation timestamp (or, where a file's timestamps
go back and forth, by its place in the decoder's output), so what a caller gets is the frame it
asked for or a `VideoError`, never a neighbour.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.video.buffers import FrameBuffers
from tsp_core.video.decode import cause, opened_video
from tsp_core.video.frames import MAX_REORDER_FRAMES, FrameFinder, FrameResizer, decode_needed
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import ClipGrid, FrameTimeline
from tsp_core.video.transforms import centre_crop_offsets

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

    Raises:
        VideoError: The file is not what the timeline says, or cannot be decoded.
    """
    size = clip.crop_size
    top, left = centre_crop_offsets(clip.resize_height, clip.resize_width, size)
    resizer = FrameResizer(clip, rotation_degrees, window=(top, left, size, size), normalise=True)
    needed, places = np.unique(grid.frame_indices, return_inverse=True)
    places = places.reshape(grid.frame_indices.shape)
    frames = _needed_frames(path, timeline, needed, threads)
    buffers = FrameBuffers(size)
    held, held_from = buffers.empty(0), 0
    for first_index in range(0, len(grid), batch_size):
        shown = places[first_index : first_index + batch_size]
        first, end = int(shown.min()), int(shown.max()) + 1
        kept = held[first - held_from :]
        held, held_from = buffers.empty(end - first), first
        held[: len(kept)] = kept
        for picture in held[len(kept) :]:
            resizer(next(frames), out=picture)
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


def _needed_frames(
    path: Path, timeline: FrameTimeline, needed: NDArray[np.int64], threads: int
) -> Iterator[VideoFrame]:
    """Decode a video and yield the needed frames in order, each once."""
    num_given = 0
    try:
        for frame in _one_pass(path, timeline, needed, threads, leave_out=True):
            yield frame
            num_given += 1
    except VideoError:
        pass  # if leaving frames out has upset the decoder, the rest comes without
    if num_given < len(needed):
        yield from _one_pass(path, timeline, needed[num_given:], threads, leave_out=False)


def _one_pass(
    path: Path,
    timeline: FrameTimeline,
    needed: NDArray[np.int64],
    threads: int,
    *,
    leave_out: bool,
) -> Iterator[VideoFrame]:
    is_needed = np.zeros(timeline.num_frames, dtype=np.bool_)
    is_needed[needed] = True
    waiting: dict[int, VideoFrame] = {}
    num_yielded = 0
    decoded = _decoded(path, timeline, threads, is_needed.item if leave_out else None)
    with contextlib.closing(decoded):
        for index, frame in decoded:
            if is_needed[index] and index >= needed[num_yielded]:
                waiting.setdefault(index, frame)
            while (wanted := int(needed[num_yielded])) in waiting:
                yield waiting.pop(wanted)
                num_yielded += 1
                if num_yielded == len(needed):
                    return
            if index > wanted + MAX_REORDER_FRAMES:
                break
    raise VideoError(
        "corrupted",
        f"{path.name!r}: frame {needed[num_yielded]} of {timeline.num_frames} was not decoded; "
        "the file is damaged or changed after ingest",
    )


def _decoded(
    path: Path,
    timeline: FrameTimeline,
    threads: int,
    is_needed: Callable[[int], bool] | None,
) -> Generator[tuple[int, VideoFrame], None, None]:
    """Decode a video from its start; yield the index of each frame and the frame."""
    with opened_video(path, threads=threads) as (container, stream):
        finder = FrameFinder(timeline, path)
        try:
            for frame in decode_needed(container, stream, finder, is_needed):
                if frame.is_corrupt:
                    message = f"{path.name!r}: a damaged frame at {frame.time} s"
                    raise VideoError("corrupted", message)
                yield finder.index_of(frame), frame
        except av.FFmpegError as error:
            message = f"{path.name!r}: decoding fails: {cause(error)}"
            raise VideoError("corrupted", message) from None
