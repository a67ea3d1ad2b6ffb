"""Proxies: a video's sampled frames, resized and coded so that any clip is read in a moment.

A proxy is an Arrow file of the schema `PROXY`, one row per frame, named by the SHA-256 of its video
and by the settings that determine it. It holds the frames that training would see without it, as
`ClipReader` resizes them, at a small loss of coding. What clips show is decided here too
(docs/decisions/0013-proxies.md).
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.schemas import PROXY
from tsp_core.video.encoding import X264_REPEATABLE
from tsp_core.video.frames import FrameResizer
from tsp_core.video.passes import needed_frames
from tsp_core.video.sampling import FrameTimeline, clip_frames, sampled_frames, timeline_from_row
from tsp_core.video.transforms import rounded

ROWS_PER_BATCH = 256
"""Frames that are read and written at a time: a few seconds, a few megabytes."""

SETTINGS_KEY = b"tsp.settings"
"""Where a proxy keeps the settings it was made with, as JSON."""

_TICK_TOLERANCE = 1e-6  # part of a sample by which a start may fall short of the sample it means


@dataclass(frozen=True, kw_only=True)
class _Codec:
    encoder: str
    pixel_format: str


_CODECS = {
    # Half the colours across only: halved downwards too, small pictures lose what can be seen.
    "mjpeg": _Codec(encoder="mjpeg", pixel_format="yuvj422p"),
    "h264": _Codec(encoder="libx264", pixel_format="yuvj420p"),
}


def stored_frames(
    timeline: FrameTimeline, clip: ClipConfig, frames: Literal["sampled", "all"]
) -> NDArray[np.int64]:
    """Return the frames that a proxy holds, int64, ascending, each once."""
    if frames == "all":
        return np.arange(timeline.num_frames, dtype=np.int64)
    samples = sampled_frames(timeline, clip)
    each_once: NDArray[np.int64] = samples[np.diff(samples, prepend=-1) > 0]
    return each_once


def proxied_clip_frames(
    timeline: FrameTimeline,
    clip: ClipConfig,
    start_seconds: float,
    stored: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the frames, int64 [L], that a clip shows when it is read from a proxy.

    Where the proxy holds all frames that the clip shows without it, it shows those. Else it shows
    consecutive samples of the video, from the one on screen at its start: it begins less than one
    sample earlier.

    Args:
        timeline: The video's frames.
        clip: Length and frame rate.
        start_seconds: As for `clip_frames`.
        stored: From `stored_frames`.
    """
    exact = clip_frames(timeline, clip, start_seconds)
    places = np.searchsorted(stored, exact).clip(max=len(stored) - 1)
    if np.array_equal(stored[places], exact):
        return exact
    samples = sampled_frames(timeline, clip)
    first = int(start_seconds * clip.frame_rate + _TICK_TOLERANCE)
    shown: NDArray[np.int64] = samples[(first + np.arange(clip.length)).clip(max=len(samples) - 1)]
    return shown


def write_proxy(
    path: Path, row: Mapping[str, Any], clip: ClipConfig, settings: Mapping[str, Any], target: Path
) -> None:
    """Decode a video once and write its proxy to a local file.

    Args:
        path: Local video file.
        row: Its row of the videos or probes table.
        clip: Sizes, frame rate and colours.
        settings: From `proxy_settings`.
        target: File to write; it is no proxy to anybody before it has its name in the store.

    Raises:
        VideoError: A frame cannot be decoded.
    """
    timeline = timeline_from_row(row)
    stored = stored_frames(timeline, clip, settings["frames"])
    schema = PROXY.with_metadata()
    facts = {SETTINGS_KEY: json.dumps(settings, sort_keys=True)}
    schema = schema.with_metadata({**schema.metadata, **facts})
    packets = _encoded(_pictures(path, row, timeline, clip, stored), settings)
    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for first in range(0, len(stored), ROWS_PER_BATCH):
            frames = stored[first : first + ROWS_PER_BATCH]
            data = list(itertools.islice(packets, len(frames)))
            checksums = [zlib.crc32(packet) for packet in data]
            columns: list[Any] = [
                frames,
                pa.array(checksums, pa.uint32()),
                pa.array(data, pa.large_binary()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _pictures(
    path: Path,
    row: Mapping[str, Any],
    timeline: FrameTimeline,
    clip: ClipConfig,
    stored: NDArray[np.int64],
) -> Iterator[NDArray[np.uint8]]:
    """The stored frames in order, uint8 [H, W, 3] each."""
    resize = FrameResizer(clip, row["rotation_degrees"])
    resized = np.empty((clip.resize_height, clip.resize_width, 3), dtype=np.float32)
    for frame in needed_frames(path, timeline, stored, threads=1):
        resize(frame, out=resized)
        yield rounded(resized)


def _encoded(pictures: Iterable[NDArray[np.uint8]], settings: Mapping[str, Any]) -> Iterator[bytes]:
    """One packet per picture, in order."""
    codec = _CODECS[settings["codec"]]
    context = _encoder(codec, settings)
    reformat = VideoReformatter().reformat
    for place, picture in enumerate(pictures):
        frame = reformat(
            VideoFrame.from_ndarray(_even(picture), format="rgb24"),
            format=codec.pixel_format,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        frame.pts, frame.time_base = place, context.time_base
        yield from map(bytes, _checked(context.encode(frame), settings))
    yield from map(bytes, _checked(context.encode(None), settings))


def _encoder(codec: _Codec, settings: Mapping[str, Any]) -> VideoCodecContext:
    height, width = settings["size"]
    context = CodecContext.create(codec.encoder, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = width + width % 2, height + height % 2
    context.pix_fmt = codec.pixel_format
    context.color_range = ColorRange.JPEG
    context.framerate = Fraction(str(settings["frame_rate"]))
    context.time_base = 1 / context.framerate
    context.thread_count = 1  # for the same bytes everywhere
    quality, interval = str(settings["quality"]), settings["keyframe_interval"]
    if codec.encoder == "mjpeg":
        context.options = {"flags": "+qscale", "qmin": quality, "qmax": quality}
    else:
        context.max_b_frames = 0
        groups = f"keyint={interval}:min-keyint={interval}:scenecut=0"
        parameters = f"{groups}:{X264_REPEATABLE}"
        context.options = {"crf": quality, "tune": "fastdecode", "x264-params": parameters}
    return context


def _checked(packets: Iterable[Packet[Any]], settings: Mapping[str, Any]) -> Iterator[Packet[Any]]:
    """Make sure of what readers rely on: no reordering, keyframes at even distances."""
    for packet in packets:
        assert packet.pts == packet.dts
        assert packet.is_keyframe == (packet.pts % settings["keyframe_interval"] == 0)
        yield packet


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row and column where their number is odd: pairs share their colours."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
