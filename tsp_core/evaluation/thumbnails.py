"""Small pictures of a video's frames, decoded from the original file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from tsp_core.config import ClipConfig
from tsp_core.errors import ObjectNotFoundError, VideoError
from tsp_core.video.files import local_video
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import timeline_from_row

_HEIGHT, _MAX_WIDTH, _QUALITY = 72, 192, 78


def video_thumbnails(
    row: Mapping[str, Any], *, count: int = 10, cache_dir: str | None
) -> tuple[bytes, ...]:
    """Decode the frames in the middle of equally long parts of a video.

    Args:
        row: Of the videos table.
        count: How many.
        cache_dir: Local folder for videos of remote stores.

    Returns:
        JPEG files; none when the video is not there any more or cannot be decoded.
    """
    upright = (int(row["width"]), int(row["height"]))
    if row["rotation_degrees"] % 180:
        upright = upright[::-1]
    width = min(max(round(_HEIGHT * upright[0] / upright[1]), 16), _MAX_WIDTH)
    size = ClipConfig(
        length=1,
        resize_height=_HEIGHT,
        resize_width=width,
        crop_size=min(width, _HEIGHT),
        color="tags",  # as a player would show it
    )
    timeline = timeline_from_row(row)
    indices = ((np.arange(count) + 0.5) / count * timeline.num_frames).astype(np.int64)
    try:
        with (
            local_video(row["uri"], row["content_hash"], cache_dir) as path,
            ClipReader(path, timeline, row["keyframes"], row["rotation_degrees"], size) as reader,
        ):
            frames = [reader.read(np.array([index]))[0] for index in indices]
    except (VideoError, ObjectNotFoundError):
        return ()
    return tuple(_jpeg(frame) for frame in frames)


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()
