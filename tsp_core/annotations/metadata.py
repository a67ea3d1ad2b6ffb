"""The released metadata CSV: filename, video-duration, fps, video-frames of each video."""

from __future__ import annotations

import math
import posixpath
from dataclasses import dataclass

from tsp_core.annotations.csv_rows import read_rows
from tsp_core.annotations.records import number_cell, refuse, show, text_field

_COLUMNS = {name: (name,) for name in ("filename", "video-duration", "fps", "video-frames")}


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoMetadata:
    """One video as a metadata CSV describes it: seconds, frames per second, frames."""

    filename: str
    duration_seconds: float
    frame_rate: float
    num_frames: int


def read_metadata(uri: str) -> dict[str, VideoMetadata]:
    """Read a metadata CSV; the keys are file names without folder and ending.

    Raises:
        AnnotationError: A wrong header, a cell that is no positive number, or a video twice.
    """
    found: dict[str, VideoMetadata] = {}
    for row in read_rows(uri, _COLUMNS):
        filename = text_field(row.cells["filename"], "filename", uri, row.place)
        numbers = {}
        for name in ("video-duration", "fps", "video-frames"):
            value = number_cell(row.cells[name], name, uri, row.place)
            if not (math.isfinite(value) and value > 0):
                raise refuse(uri, row.place, f"{name} {value}: expected a number above 0")
            numbers[name] = value
        video = posixpath.splitext(posixpath.basename(filename))[0]
        if video in found:
            raise refuse(uri, row.place, f"the video {show(video)} appears twice; keep one row")
        found[video] = VideoMetadata(
            filename=filename,
            duration_seconds=numbers["video-duration"],
            frame_rate=numbers["fps"],
            num_frames=int(numbers["video-frames"]),
        )
    return found
