"""Which frame of a video a decoded frame is, and its pixels at the size that clips have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.video.decode import PictureConverter, frame_pts
from tsp_core.video.sampling import FrameTimeline
from tsp_core.video.transforms import BilinearResize


class FrameResizer:
    """Converts and resizes frames; a change of their size midway is no trouble.

    Args:
        clip: Sizes and colour conversion.
        rotation_degrees: Counter-clockwise turn that makes the picture upright.
        window: Top, left, height and width of the part that is wanted; all of it by default.
    """

    def __init__(
        self,
        clip: ClipConfig,
        rotation_degrees: int,
        window: tuple[int, int, int, int] | None = None,
    ) -> None:
        self._convert = PictureConverter(color=clip.color, rotation_degrees=rotation_degrees)
        self._target = (clip.resize_height, clip.resize_width)
        self._window = window
        self._source = (0, 0)

    def __call__(self, frame: VideoFrame) -> NDArray[np.float32]:
        """Return float32 [h, w, 4] in [0, 255], valid until the next call."""
        picture = self._convert(frame)
        source = (picture.shape[0], picture.shape[1])
        if source != self._source:
            self._resize = BilinearResize(source=source, target=self._target, window=self._window)
            self._source = source
        return self._resize(picture)


class FrameFinder:
    """Tells which frame of a timeline a decoded frame is; start afresh with the file."""

    def __init__(self, timeline: FrameTimeline, path: Path) -> None:
        self._pts = timeline.pts
        self._counted: dict[int, int] | None = {} if timeline.has_unordered_pts else None
        self._path = path

    def index_of(self, frame: VideoFrame) -> int:
        """Return the frame's index in the timeline.

        Raises:
            VideoError: corrupted, when the timeline has no frame with this timestamp.
        """
        pts = frame_pts(frame)
        index = int(np.searchsorted(self._pts, pts))
        if index == len(self._pts) or self._pts[index] != pts:
            raise VideoError(
                "corrupted",
                f"{self._path.name!r}: a frame with timestamp {pts} was not there at ingest; "
                "run ingest again if the file changed",
            )
        if self._counted is not None:
            return self._counted.setdefault(pts, len(self._counted))
        return index
