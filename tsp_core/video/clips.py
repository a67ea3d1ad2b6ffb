"""Clips of one video: all of them in one sequential pass, or any of them at random.

Every frame is matched to the timeline by its presentation timestamp (or, where a file's timestamps
go back and forth, by its place in the decoder's output), so what a caller gets is the frame it
asked for or a `VideoError`, never a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.video.decode import cause, opened_video
from tsp_core.video.frames import FrameFinder, FrameResizer
from tsp_core.video.sampling import ClipGrid, FrameTimeline
from tsp_core.video.transforms import centre_crop_offsets, normalised, rounded

_MAX_REORDER_FRAMES = 32
"""A frame comes at most this many frames later than its place (16 in H.264, and files that lie)."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Consecutive clips of a grid.

    Attributes:
        clips: float32 [B, 3, L, S, S], normalised, centre crop.
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
    top, left = centre_crop_offsets(clip.resize_height, clip.resize_width, clip.crop_size)
    resizer = FrameResizer(
        clip, rotation_degrees, window=(top, left, clip.crop_size, clip.crop_size)
    )
    needed = np.unique(grid.frame_indices)
    frames = _needed_frames(path, timeline, needed, threads)
    held: dict[int, NDArray[np.float32]] = {}
    for first_index in range(0, len(grid), batch_size):
        indices = grid.frame_indices[first_index : first_index + batch_size]
        for outdated in [index for index in held if index < indices[0, 0]]:
            del held[outdated]
        last = int(indices.max())
        while not held or next(reversed(held)) < last:
            index, frame = next(frames)
            held[index] = normalised(resizer(frame))
        yield ClipBatch(clips=_assemble(held, indices, clip), first_index=first_index)


class ClipReader:
    """Reads clips of one video at any position; a context manager that keeps the file open.

    A read seeks to the keyframe before the first frame it needs, or decodes on from where the last
    read ended when no keyframe lies in between. One reader serves one thread.

    Args:
        path: Local video file.
        timeline: The file's frames, as measured at ingest.
        keyframes: Indices of the frames that decoding can start at, ascending.
        rotation_degrees: Counter-clockwise turn that makes the picture upright.
        clip: Clip sizes and colour conversion.
        threads: Decoding threads.

    Raises:
        VideoError: The file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        timeline: FrameTimeline,
        keyframes: Sequence[int] | NDArray[np.integer],
        rotation_degrees: int,
        clip: ClipConfig,
        *,
        threads: int = 1,
    ) -> None:
        self._path = path
        self._timeline = timeline
        self._keyframes = np.union1d(np.asarray(keyframes, dtype=np.int64), [0])
        self._size = (clip.resize_height, clip.resize_width)
        self._resizer = FrameResizer(clip, rotation_degrees)
        self._threads = threads
        self._stack = ExitStack()
        self._open()

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def read(self, frame_indices: NDArray[np.int64]) -> torch.Tensor:
        """Read the frames of one clip.

        Args:
            frame_indices: int64 [L], ascending, repetitions allowed.

        Returns:
            uint8 [L, resize_height, resize_width, 3].

        Raises:
            VideoError: A frame cannot be decoded from any keyframe before it.
        """
        wanted, places = np.unique(frame_indices, return_inverse=True)
        pictures = np.empty((len(wanted), *self._size, 3), dtype=np.uint8)
        for _ in self._starting_points(int(wanted[0])):
            if self._collect(wanted, pictures):
                return torch.from_numpy(pictures[places])
        raise VideoError(
            "corrupted",
            f"{self._path.name!r}: frames {wanted[0]} to {wanted[-1]} cannot be decoded from any "
            f"keyframe before them ({self._trouble}); the file is damaged or changed after ingest",
        )

    def _open(self) -> None:
        self._stack.close()
        self._container, self._stream = self._stack.enter_context(
            opened_video(self._path, threads=self._threads)
        )
        self._frames = self._container.decode(self._stream)
        self._finder = FrameFinder(self._timeline, self._path)
        self._position = -1
        self._is_placed = True

    def _starting_points(self, first: int) -> Iterator[None]:
        """Bring the decoder before a frame: cheaply at first, then by surer ways."""
        before = int(np.searchsorted(self._keyframes, first, side="right")) - 1
        if self._keyframes[before] <= self._position + 1 <= first:
            yield
        can_seek = not self._timeline.has_unordered_pts  # else frames are counted from the start
        for keyframe in self._keyframes[max(before - 1, 0) : before + 1][::-1] if can_seek else ():
            try:
                self._container.seek(int(self._timeline.pts[keyframe]), stream=self._stream)
            except av.FFmpegError:
                continue
            self._frames = self._container.decode(self._stream)
            self._is_placed = False
            yield
        self._open()
        yield

    def _collect(self, wanted: NDArray[np.int64], pictures: NDArray[np.uint8]) -> bool:
        """Decode forward, filling in the wanted pictures; tell whether all of them came."""
        missing = {int(index): place for place, index in enumerate(wanted)}
        end = int(wanted[-1]) + _MAX_REORDER_FRAMES
        try:
            for frame in self._frames:
                self._position = index = self._finder.index_of(frame)
                if not self._is_placed:
                    # Some demuxers guess timestamps after a seek: go by those of a keyframe only.
                    self._is_placed = frame.key_frame and index in self._keyframes
                place = missing.pop(index, None) if self._is_usable(frame) else None
                if place is not None:
                    pictures[place] = rounded(self._resizer(frame))
                if not missing:
                    return True
                if index > end:
                    break
            self._trouble = "the decoder does not give them"
        except av.FFmpegError as error:
            self._trouble = cause(error)
        except VideoError as error:  # another starting point may do all the same
            self._trouble = error.reason
        self._position = self._timeline.num_frames  # not known: the next read seeks
        return False

    def _is_usable(self, frame: VideoFrame) -> bool:
        return self._is_placed and not frame.is_corrupt


def _needed_frames(
    path: Path, timeline: FrameTimeline, needed: NDArray[np.int64], threads: int
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode a video from its start and yield the needed frames in ascending order."""
    waiting: dict[int, VideoFrame] = {}
    num_yielded = 0
    with opened_video(path, threads=threads) as (container, stream):
        for index, frame in _decoded(container, stream, timeline, path):
            place = int(np.searchsorted(needed, index))
            if place >= num_yielded and place < len(needed) and needed[place] == index:
                waiting.setdefault(index, frame)
            while num_yielded < len(needed) and int(needed[num_yielded]) in waiting:
                wanted = int(needed[num_yielded])
                yield wanted, waiting.pop(wanted)
                num_yielded += 1
            if num_yielded == len(needed):
                return
            if index > needed[num_yielded] + _MAX_REORDER_FRAMES:
                break
    raise VideoError(
        "corrupted",
        f"{path.name!r}: frame {needed[num_yielded]} of {timeline.num_frames} was not decoded; "
        "the file is damaged or changed after ingest",
    )


def _decoded(
    container: InputContainer, stream: VideoStream, timeline: FrameTimeline, path: Path
) -> Iterator[tuple[int, VideoFrame]]:
    finder = FrameFinder(timeline, path)
    try:
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise VideoError("corrupted", f"{path.name!r}: a damaged frame at {frame.time} s")
            yield finder.index_of(frame), frame
    except av.FFmpegError as error:
        raise VideoError("corrupted", f"{path.name!r}: decoding fails: {cause(error)}") from None


def _assemble(
    frames: dict[int, NDArray[np.float32]], indices: NDArray[np.int64], clip: ClipConfig
) -> torch.Tensor:
    """Copy frames [3, S, S] into clips [B, 3, L, S, S]."""
    clips = np.empty(
        (len(indices), 3, clip.length, clip.crop_size, clip.crop_size), dtype=np.float32
    )
    for target, clip_indices in zip(clips, indices.tolist(), strict=True):
        for position, index in enumerate(clip_indices):
            target[:, position] = frames[index]
    return torch.from_numpy(clips)
