"""Measures a video file by decoding all of it: nothing is taken from the header on trust."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tsp_core import storage
from tsp_core.errors import VideoError
from tsp_core.isolation import heartbeat
from tsp_core.video.continuity import check_order
from tsp_core.video.decode import (
    MAX_PIXELS,
    PictureConverter,
    cause,
    frame_pts,
    opened_video,
    read_packets,
)
from tsp_core.video.endings import cut_part
from tsp_core.video.orientation import upright_degrees
from tsp_core.video.sampling import FrameTimeline
from tsp_core.video.timing import measure_frame_rate
from tsp_core.video.trouble import plainly, refuse_trouble

MAX_DURATION_SECONDS = 48 * 3600
"""Longest video; a longer one is most likely one damaged timestamp."""

_SHORTFALL_SECONDS = 0.25
_SHORTFALL_FRACTION = 0.02
_LAST_FRAME_GAPS = 2.1
"""How long the last frame of FLV and WMV may be shown, in longest times between frames."""
_DURATION_IN_HEADER = ("mov", "matroska", "flv", "asf", "mxf")
"""Containers, beside AVI, that state their duration."""

_COLOR_SPACES = {
    **{0: "rgb", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m"},
    **{8: "ycgco", 9: "bt2020nc", 10: "bt2020c"},
}
_COLOR_RANGES = {1: "tv", 2: "pc"}


@dataclass(frozen=True, kw_only=True)
class VideoProbe:
    """What is known of a video file after decoding it; the columns of the videos table.

    Attributes:
        timeline: The decoded frames with distinct timestamps.
        keyframes: int32, indices of the frames that decoding can start at.
        row: The other columns, by name.
    """

    timeline: FrameTimeline
    keyframes: NDArray[np.int32]
    row: dict[str, Any]

    def as_row(self) -> dict[str, Any]:
        """All measured columns of the videos table as plain values."""
        timeline = self.timeline
        steps = np.unique(np.diff(timeline.pts))
        ticks_per_frame = None if len(steps) > 1 else int(steps[0]) if len(steps) else 1
        return self.row | {
            "time_base_num": timeline.time_base.numerator,
            "time_base_den": timeline.time_base.denominator,
            "num_frames": timeline.num_frames,
            "duration_seconds": timeline.duration_seconds,
            "frame_rate_num": timeline.frame_rate.numerator,
            "frame_rate_den": timeline.frame_rate.denominator,
            "is_variable_rate": timeline.is_variable,
            "first_pts": int(timeline.pts[0]),
            "ticks_per_frame": ticks_per_frame,
            "pts": timeline.pts.tolist() if ticks_per_frame is None else None,
            "has_unordered_pts": timeline.has_unordered_pts,
            "keyframes": self.keyframes.tolist(),
        }


@dataclass(kw_only=True)
class _Observation:
    """What decoding showed so far."""

    decoded: array[int] = field(default_factory=lambda: array("q"))  # timestamps of all frames
    pts: array[int] = field(default_factory=lambda: array("q"))  # each once
    keyframes: array[int] = field(default_factory=lambda: array("i"))
    first_frame: VideoFrame | None = None
    num_pixels: int = 0
    end_seconds: float = 0.0  # where the packets of all streams end, from the container's start
    damage: str | None = None
    is_encrypted: bool = False  # in part


def probe(
    path: Path,
    *,
    keep_truncated: bool = False,
    max_pixels: int | None = None,
    threads: int = 1,
) -> VideoProbe:
    """Decode a video file from start to end and describe it.

    The first picture is converted to RGB too, as later stages will do.

    Args:
        path: Local file.
        keep_truncated: Take a file whose decoding stops early for the frames before the damage.
        max_pixels: Most pixels that may be decoded, all frames together; any number by default.
        threads: Decoding threads.

    Raises:
        VideoError: missing, unreadable, no_video_stream, empty, truncated, corrupted or limits.
        MachineTroubleError: The file cannot be read now for a reason that is none of the file's.
    """
    with opened_video(path, threads=threads) as (container, stream):
        seen = _observe(container, stream, max_pixels, path)
        if seen.first_frame is None:
            reason = seen.damage or "the stream holds none"
            raise VideoError("empty", f"{path.name!r}: no frame can be decoded: {reason}")
        assert stream.time_base is not None, "streams of files have a time base"
        order = np.array(seen.decoded, dtype=np.int64)
        check_order(order, stream.time_base, container.format.name, path.name)
        timeline, keyframes = _timeline(seen, stream, stream.time_base)
        stopped = seen.damage or _shortfall(seen, container, stream, path)
        if stopped and not keep_truncated:
            raise VideoError(
                "truncated", _stopped_early(path, timeline, container, stream, stopped)
            )
        if timeline.duration_seconds > MAX_DURATION_SECONDS:
            raise VideoError(
                "limits",
                f"{path.name!r}: timestamps span {timeline.duration_seconds:.0f} s; at most "
                f"{MAX_DURATION_SECONDS} s are taken",
            )
        PictureConverter(color="bt601", rotation_degrees=0)(seen.first_frame)
        row = _header_row(container, stream) | _picture_row(seen.first_frame)
    with plainly(path):
        return VideoProbe(timeline=timeline, keyframes=keyframes, row=row | identify(path))


def identify(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as columns of the videos table."""
    digest = storage.sha256_of_file(path, on_chunk=heartbeat)
    return {"size_bytes": path.stat().st_size, "content_hash": digest}


def _observe(
    container: InputContainer, stream: VideoStream, max_pixels: int | None, path: Path
) -> _Observation:
    """Demux all streams and decode the video, up to the first damage."""
    seen = _Observation()
    try:
        _decode(container, stream, max_pixels, seen)
    except av.FFmpegError as error:
        refuse_trouble(error, path)
        seen.damage = cause(error)
    if seen.damage and seen.is_encrypted:
        seen.damage = f"it is encrypted (DRM); use a copy that is not ({seen.damage})"
    return seen


def _decode(
    container: InputContainer, stream: VideoStream, max_pixels: int | None, seen: _Observation
) -> None:
    known: set[int] = set()
    origin = (container.start_time or 0) / av.time_base
    if container.format.name.startswith(("matroska", "asf")):
        origin = min(origin, 0.0)  # their headers' duration counts from 0, not from the first frame
    for packet in read_packets(container):
        heartbeat()
        if packet.pts is not None and packet.size:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            seen.end_seconds = max(seen.end_seconds, end - origin)
        if packet.stream.index != stream.index:
            continue
        seen.is_encrypted |= packet.has_sidedata("encryption_info")
        for frame in stream.codec_context.decode(packet):
            if frame.is_corrupt:
                seen.damage = "a frame is damaged"
                return
            _note(frame, seen, known)
            if max_pixels is not None and seen.num_pixels > max_pixels:
                raise VideoError("limits", _too_much(len(seen.pts), max_pixels))


def _note(frame: VideoFrame, seen: _Observation, known: set[int]) -> None:
    if frame.width * frame.height > MAX_PIXELS:
        raise VideoError("limits", f"a frame of {frame.width}x{frame.height} pixels is too large")
    seen.num_pixels += frame.width * frame.height
    pts = frame_pts(frame)
    seen.decoded.append(pts)
    if pts in known:
        return
    known.add(pts)
    if seen.first_frame is None:
        seen.first_frame = frame
    if frame.key_frame:
        seen.keyframes.append(len(seen.pts))
    seen.pts.append(pts)


def _too_much(num_frames: int, max_pixels: int) -> str:
    return (
        f"decodes to more than {max_pixels / 1e9:g} gigapixels (after {num_frames} frames), far "
        "more than a file of this size holds; raise runtime.decoder_gigapixels if the file is sound"
    )


def _timeline(
    seen: _Observation, stream: VideoStream, time_base: Fraction
) -> tuple[FrameTimeline, NDArray[np.int32]]:
    """Decoders give frames in presentation order, so the sorted timestamps are theirs in turn."""
    decoded = np.array(seen.pts, dtype=np.int64)
    pts = np.sort(decoded)
    header_rates = (stream.average_rate, stream.guessed_rate)
    frame_rate, is_variable = measure_frame_rate(pts, time_base, header_rates)
    is_unordered = not np.array_equal(decoded, pts)
    timeline = FrameTimeline(
        pts=pts,
        time_base=time_base,
        frame_rate=frame_rate,
        is_variable=is_variable,
        has_unordered_pts=is_unordered,
    )
    # Where timestamps do not tell frames apart, frames are counted from the start of the file.
    keyframes = [0] if is_unordered else seen.keyframes
    return timeline, np.array(keyframes, dtype=np.int32)


def _shortfall(
    seen: _Observation, container: InputContainer, stream: VideoStream, path: Path
) -> str | None:
    """Tell whether the data end before what the header promises, though no error shows.

    Matroska, FLV and fragmented MP4 files that break off end without an error. A header that
    promises too long a duration while every frame that it lists is there is no damage.
    """
    if 0 < stream.frames <= len(seen.pts):
        return None
    promised = _header_seconds(container, stream)
    if promised is not None:
        allowed = max(_SHORTFALL_SECONDS, _SHORTFALL_FRACTION * promised)
        if container.format.name.startswith(("flv", "asf")):
            # They say of no frame how long it is shown, so of the last one neither.
            gap = float(np.diff(np.sort(np.array(seen.pts))).max(initial=0) * stream.time_base)
            allowed = max(allowed, _LAST_FRAME_GAPS * gap)
        if promised - seen.end_seconds > allowed:
            return "the file ends before what its header promises"
    part = cut_part(path, container.format.name)
    return f"the file ends in the middle of a {part}" if part else None


def _header_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Duration that the header states; None where FFmpeg only estimates it from the data."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(
            stream.frames / stream.average_rate
        )  # FFmpeg's own scales with the file's size
    if container.duration is None or not container.format.name.startswith(_DURATION_IN_HEADER):
        return None
    return container.duration / av.time_base


def _stopped_early(
    path: Path,
    timeline: FrameTimeline,
    container: InputContainer,
    stream: VideoStream,
    reason: str,
) -> str:
    frames = f"{timeline.num_frames} of {stream.frames}" if stream.frames else timeline.num_frames
    promised = _header_seconds(container, stream)
    seconds = f"{timeline.duration_seconds:.2f}" + (f" of {promised:.2f}" if promised else "")
    return (
        f"{path.name!r}: decoding stops after {frames} frames ({seconds} s): {reason}; "
        "set ingest.truncated (`tsp features`: --truncated) to 'keep' to use what is there"
    )


def _header_row(container: InputContainer, stream: VideoStream) -> dict[str, Any]:
    promised = container.duration / av.time_base if container.duration is not None else None
    return {
        "container": container.format.name,
        "codec": stream.codec_context.name,
        "num_frames_from_header": stream.frames or None,
        "duration_seconds_from_header": promised,
        "frame_rate_from_header": float(stream.average_rate) if stream.average_rate else None,
        "num_audio_streams": len(container.streams.audio),
    }


def _picture_row(frame: VideoFrame) -> dict[str, Any]:
    return {
        "pixel_format": frame.format.name,
        "width": frame.width,
        "height": frame.height,
        "rotation_degrees": upright_degrees(frame),
        "color_space": _COLOR_SPACES.get(int(frame.colorspace)),
        "color_range": _COLOR_RANGES.get(int(frame.color_range)),
    }
