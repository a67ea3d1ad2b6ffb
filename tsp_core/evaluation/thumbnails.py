"""Small pictures of a video's frames, decoded from the original file."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tsp_core.config import ClipConfig
from tsp_core.errors import ObjectNotFoundError, VideoError
from tsp_core.video.files import local_video
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import timeline_from_row
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed
from tsp_core.video.trouble import MachineTroubleError

logger = logging.getLogger(__name__)

_HEIGHT, _MAX_WIDTH, _QUALITY = 72, 192, 78


def video_thumbnails(
    row: Mapping[str, Any],
    *,
    count: int = 10,
    cache_dir: str | None,
    limits: DecodingLimits,
) -> tuple[bytes, ...]:
    """Decode the frames in the middle of equally long parts of a video.

    Args:
        row: Of the videos table.
        count: How many.
        cache_dir: Local folder for videos of remote stores.
        limits: What decoding one video may take.

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
    try:
        with local_video(row["uri"], row["content_hash"], cache_dir) as path:
            return run_sandboxed(draw_thumbnails, path, limits, dict(row), size, count)
    except (VideoError, ObjectNotFoundError, MachineTroubleError) as error:  # frames are no figures
        logger.warning("%s: the report shows no frames of it: %s", row["video"], error)
        return ()


def draw_thumbnails(
    path: Path, row: Mapping[str, Any], size: ClipConfig, count: int
) -> tuple[bytes, ...]:
    """Decode the frames of a local file, as `video_thumbnails`."""
    timeline = timeline_from_row(row)
    indices = ((np.arange(count) + 0.5) / count * timeline.num_frames).astype(np.int64)
    with ClipReader(path, timeline, row["keyframes"], row["rotation_degrees"], size) as reader:
        return tuple(_jpeg(reader.read(np.array([index]))[0]) for index in indices)


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()
