"""Reads clips of one video at any position, for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.isolation import heartbeat
from tsp_core.video.decode import cause, opened_video
from tsp_core.video.frames import MAX_REORDER_FRAMES, FrameFinder, FrameResizer, decode_needed
from tsp_core.video.sampling import FrameTimeline
from tsp_core.video.transforms import rounded
from tsp_core.video.trouble import refuse_trouble


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
        self._whole = (0, 0, clip.resize_height, clip.resize_width)
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

    def read(
        self,
        frame_indices: NDArray[np.int64],
        window: tuple[int, int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Read the frames of one clip.

        Args:
            frame_indices: int64 [L], ascending, repetitions allowed.
            window: Top, left, height and width of the part of the resized frames that is wanted;
                the rest is not computed. All of it by default.

        Returns:
            uint8 [L, height, width, 3].

        Raises:
            VideoError: A frame cannot be decoded from any keyframe before it.
            MachineTroubleError: The file cannot be read now.
        """
        wanted, places = np.unique(frame_indices, return_inverse=True)
        self._wanted, self._last = frozenset(wanted.tolist()), int(wanted[-1])
        self._resizer.window = window or self._whole
        pictures = np.empty((len(wanted), *self._resizer.window[2:], 3), dtype=np.uint8)
        for _ in self._starting_points(int(wanted[0])):
            if self._collect(wanted, pictures):
                return pictures if len(wanted) == len(places) else pictures[places]
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
        self._finder = FrameFinder(self._timeline, self._path)
        self._frames = self._decode(self._is_needed)
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
            except av.FFmpegError as error:
                refuse_trouble(error, self._path)
                continue
            self._frames = self._decode(self._is_needed)
            self._is_placed = False
            yield
        self._open()
        self._frames = self._decode(None)  # in case that leaving frames out upset the decoder
        yield

    def _decode(self, is_needed: Callable[[int], bool] | None) -> Iterator[VideoFrame]:
        return decode_needed(self._container, self._stream, self._finder, is_needed)

    def _is_needed(self, index: int) -> bool:
        return index in self._wanted or index > self._last  # the next read may go on from here

    def _collect(self, wanted: NDArray[np.int64], pictures: NDArray[np.uint8]) -> bool:
        """Decode forward, filling in the wanted pictures; tell whether all of them came."""
        missing = {int(index): place for place, index in enumerate(wanted)}
        resized = np.empty(pictures.shape[1:], dtype=np.float32)
        end = int(wanted[-1]) + MAX_REORDER_FRAMES
        try:
            for frame in self._frames:
                heartbeat()
                self._position = index = self._finder.index_of(frame)
                if not self._is_placed:
                    # Some demuxers guess timestamps after a seek: go by those of a keyframe only.
                    self._is_placed = frame.key_frame and index in self._keyframes
                place = missing.pop(index, None) if self._is_usable(frame) else None
                if place is not None:
                    self._resizer(frame, out=resized)
                    pictures[place] = rounded(resized)
                if not missing:
                    return True
                if index > end:
                    break
            self._trouble = "the decoder does not give them"
        except av.FFmpegError as error:
            self._position = self._timeline.num_frames
            refuse_trouble(error, self._path)
            self._trouble = cause(error)
        except VideoError as error:  # another starting point may do all the same
            self._trouble = error.reason
        self._position = self._timeline.num_frames  # not known: the next read seeks
        return False

    def _is_usable(self, frame: VideoFrame) -> bool:
        return self._is_placed and not frame.is_corrupt
