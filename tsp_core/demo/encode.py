"""Encodes drawn frames to real video files with PyAV: several containers, codecs and frame rates.

One thread and the bit-exact flags, so that the same frames give the same bytes on a machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tsp_core.video.encoding import X264_REPEATABLE


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """How a demo video is stored."""

    extension: str
    codec: str
    frame_rate: Fraction  # frames per second
    width: int  # pixels
    height: int
    dropped: float = 0.0  # share of the frames left out, which makes the frame rate variable
    options: dict[str, str] = field(default_factory=dict)
    bit_rate: int | None = None


_X264 = {"preset": "veryfast", "crf": "26", "x264-params": X264_REPEATABLE}
_VP8 = {"deadline": "good", "cpu-used": "5"}  # "realtime" depends on the load


def _h264(
    extension: str, rate: Fraction | int, size: tuple[int, int], *, dropped: float = 0.0
) -> VideoFormat:
    return VideoFormat(
        extension=extension,
        codec="libx264",
        frame_rate=Fraction(rate),
        width=size[0],
        height=size[1],
        dropped=dropped,
        options=_X264,
    )


def _at_bit_rate(
    extension: str, codec: str, rate: int, size: tuple[int, int], **options: str
) -> VideoFormat:
    return VideoFormat(
        extension=extension,
        codec=codec,
        frame_rate=Fraction(rate),
        width=size[0],
        height=size[1],
        options=options,
        bit_rate=400_000,
    )


FORMATS = (
    _h264("mp4", Fraction(30000, 1001), (160, 120)),
    _at_bit_rate("avi", "mpeg4", 15, (128, 96)),
    _h264("mkv", 25, (142, 106)),
    _at_bit_rate("webm", "libvpx", 24, (131, 99), **_VP8),  # VP8 takes odd sizes
    _h264("mkv", 30, (160, 120), dropped=0.3),
    _at_bit_rate("mov", "mpeg4", 20, (120, 90)),
    _h264("mp4", 12, (176, 132)),
)
"""Taken in turn. Seven, so that each occurs in each subset."""


def encode(
    path: Path, frames: Iterable[tuple[int, NDArray[np.uint8]]], video_format: VideoFormat
) -> None:
    """Write a video file.

    Args:
        path: The file.
        frames: Frame numbers, which are the timestamps in units of 1 / frame rate, and RGB
            pictures, uint8 [height, width, 3].
        video_format: Codec, frame rate and size.
    """
    container_options = {"fflags": "+bitexact"}  # no random identifiers, no dates
    with av.open(
        str(path), "w", format=_muxer(video_format.extension), options=container_options
    ) as container:
        stream = container.add_stream(
            video_format.codec, rate=video_format.frame_rate, options=dict(video_format.options)
        )
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = video_format.width, video_format.height
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / video_format.frame_rate
        context.thread_count = 1
        context.gop_size = int(2 * video_format.frame_rate)
        context.flags |= Flags.bitexact
        if video_format.bit_rate is not None:
            context.bit_rate = video_format.bit_rate
        for number, picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, 1 / video_format.frame_rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _muxer(extension: str) -> str:
    return {"mkv": "matroska"}.get(extension, extension)
