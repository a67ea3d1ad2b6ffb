"""Reads clips of one video in worker processes, so that a crash or hang costs these clips alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import timeline_from_row
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

Window = tuple[int, int, int, int]


class ApartReader:
    """Reads clips as a `ClipReader` does, each in a worker process.

    Args:
        path: Local video file.
        row: Of the videos table.
        clip: What a clip is.
        limits: What reading one clip may take.
    """

    def __init__(
        self, path: Path, row: dict[str, Any], clip: ClipConfig, limits: DecodingLimits
    ) -> None:
        self._path, self._row, self._clip, self._limits = path, row, clip, limits

    def read(self, frame_indices: NDArray[np.int64], window: Window) -> NDArray[np.uint8]:
        """Read the window of frames, uint8 [L, height, width, 3].

        Raises:
            VideoError: crashed, limits, or as the reader raises it.
        """
        return run_sandboxed(
            read_clip, self._path, self._limits, self._row, self._clip, frame_indices, window
        )

    def close(self) -> None:
        """Nothing is open in this process."""


def clip_reader(path: Path, row: dict[str, Any], clip: ClipConfig) -> ClipReader:
    """Open a local file as a row of the videos table describes it."""
    return ClipReader(path, timeline_from_row(row), row["keyframes"], row["rotation_degrees"], clip)


def read_clip(
    path: Path,
    row: dict[str, Any],
    clip: ClipConfig,
    frame_indices: NDArray[np.int64],
    window: Window,
) -> NDArray[np.uint8]:
    """Read a window of frames; the video of the last call is still open."""
    global _open
    key = (path, str(row["content_hash"]), clip)
    if _open is None or _open[0] != key:
        if _open is not None:
            _open[1].close()
            _open = None
        _open = key, clip_reader(path, row, clip)
    return _open[1].read(frame_indices, window)


_open: tuple[tuple[Path, str, ClipConfig], ClipReader] | None = None
