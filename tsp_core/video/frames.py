"""Which frame of a video a decoded frame is, and its pixels at the size that clips have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.video.decode import PictureConverter, frame_pts, read_packets
from tsp_core.video.sampling import FrameTimeline
from tsp_core.video.transforms import BilinearResize

MAX_REORDER_FRAMES = 32
"""A frame comes at most this many frames later than its place (16 in H.264, and files that lie)."""


class FrameResizer:
    """Converts and resizes frames; a change of their size midway is no trouble.

    Args:
        clip: Sizes and colour conversion.
        rotation_degrees: Counter-clockwise turn that makes the picture upright.
        window: Top, left, height and width of the part that is wanted; all of it by default.
        normalise: Whether to give normalised values instead of levels from 0 to 255.
    """

    def __init__(
        self,
        clip: ClipConfig,
        rotation_degrees: int,
        window: tuple[int, int, int, int] | None = None,
        *,
        normalise: bool = False,
    ) -> None:
        self._convert = PictureConverter(color=clip.color, rotation_degrees=rotation_degrees)
        self._target = (clip.resize_height, clip.resize_width)
        self._window = window
        self._normalise = normalise
        self._source = (0, 0)

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of the part of the resized frames that is computed."""
        return self._window or (0, 0, *self._target)

    @window.setter
    def window(self, window: tuple[int, int, int, int]) -> None:
        if window != self.window:
            self._window, self._source = window, (0, 0)

    def __call__(self, frame: VideoFrame, out: NDArray[np.float32]) -> None:
        """Write the frame to `out`, float32 [h, w, 3], contiguous."""
        picture = self._convert(frame)
        source = (picture.shape[0], picture.shape[1])
        if source != self._source:
            self._resize = BilinearResize(
                source=source, target=self._target, window=self._window, normalise=self._normalise
            )
            self._source = source
        self._resize(picture, out)


class FrameFinder:
    """Tells which frame of a timeline a decoded frame is; start afresh with the file."""

    def __init__(self, timeline: FrameTimeline, path: Path) -> None:
        self._pts = timeline.pts
        self._first, self._step = int(timeline.pts[0]), _even_step(timeline.pts)
        self._counted: dict[int, int] | None = {} if timeline.has_unordered_pts else None
        self._path = path

    @property
    def counts(self) -> bool:
        """Whether frames are told by their order, so that none may be left out."""
        return self._counted is not None

    def find(self, pts: int) -> int | None:
        """Return the place of a timestamp in the timeline, or None."""
        if self._step:
            index, rest = divmod(pts - self._first, self._step)
            return index if rest == 0 and 0 <= index < len(self._pts) else None
        index = int(self._pts.searchsorted(pts))
        return index if index < len(self._pts) and self._pts[index] == pts else None

    def index_of(self, frame: VideoFrame) -> int:
        """Return the frame's index in the timeline.

        Raises:
            VideoError: corrupted, when the timeline has no frame with this timestamp.
        """
        pts = frame_pts(frame)
        index = self.find(pts)
        if index is None:
            raise VideoError(
                "corrupted",
                f"{self._path.name!r}: a frame with timestamp {pts} was not there at ingest; "
                "run ingest again if the file changed",
            )
        if self._counted is not None:
            return self._counted.setdefault(pts, len(self._counted))
        return index


def decode_needed(
    container: InputContainer,
    stream: VideoStream,
    finder: FrameFinder,
    is_needed: Callable[[int], bool] | None,
) -> Iterator[VideoFrame]:
    """Decode from where the container stands, leaving out what is needed neither now nor later.

    In H.264 many frames (most B-frames) are marked as no reference for any other. Those that are
    not needed are not decoded, which changes no bit of the others; at 30 frames per second clips
    at 15 show every second frame. Other frames that are not needed are decoded and given as well.

    Args:
        container: The open file.
        stream: Its video stream.
        finder: Tells frames by their timestamps.
        is_needed: Whether the frame with this index is needed, asked as packets are read; None
            decodes all.

    Raises:
        av.FFmpegError: Decoding fails.
    """
    context = stream.codec_context
    can_leave_out = is_needed is not None and context.name == "h264" and not finder.counts
    skipped: bool | None = None
    for packet in read_packets(container, stream):
        if is_needed is not None and can_leave_out and packet.pts is not None:
            index = finder.find(packet.pts)
            if index is not None:  # else it may be the second field of the frame before
                skips = not is_needed(index)
                if skips != skipped:  # telling the decoder takes as long as decoding a small frame
                    context.skip_frame = "NONREF" if skips else "DEFAULT"
                    skipped = skips
        yield from packet.decode()


def _even_step(pts: NDArray[np.int64]) -> int:
    """Ticks between all frames, or 0 where they vary."""
    steps = np.diff(pts)
    return int(steps[0]) if len(steps) and (steps == steps[0]).all() else 0
