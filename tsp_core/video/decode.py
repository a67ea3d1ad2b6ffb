"""Opens videos and decodes them, one frame at a time, into upright RGB pictures.

Colours: the released code, and with it every published weight, saw YUV converted to RGB by BT.601
coefficients whatever the file's tags say, because the PyAV of its time ignored them, and took
values as full range only where the pixel format says so (`yuvj420p`, grey). Newer releases honour
the tags, so the conversion is told explicitly what to assume
(docs/decisions/0011-colour-and-rotation.md).
"""

from __future__ import annotations

import errno
import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tsp_core.errors import VideoError
from tsp_core.video.endings import lacks_index
from tsp_core.video.trouble import plainly, refuse_trouble

MAX_PIXELS = 8192 * 8192
"""Largest frame that is decoded, in pixels."""

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,rm,gif,wtv,mxf,nut,"
    "dv,ivf,h264,hevc,m4v,mp3,wav,flac,aac,amr,aiff"
)
"""Containers that are opened: no playlists (they name other files), pictures or terminal text."""

_MOST_CALLS = 1 << 20
"""A bound for demuxers that ask to be called again: that many blocks of 64 kB."""

_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
"""Tags of the colours' matrix (2 is none) that FFmpeg's scaler can go by."""

_BARE = {"h264": "H.264", "hevc": "H.265"}
"""Streams without a container. They hold no timestamps, so when a frame is shown is not known."""


_log = logging.getLogger(__name__)


@contextmanager
def opened_video(path: Path, *, threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video file and its first video stream that is no cover picture.

    Args:
        path: Local file.
        threads: Decoding threads; 1 is fastest per core where several videos are decoded at once.

    Raises:
        VideoError: missing, empty, unreadable, no_video_stream, or limits.
        MachineTroubleError: The file cannot be read now for a reason that is none of the file's.
    """
    _check_is_file(path)
    try:
        container = av.open(
            str(path.absolute()), options={"format_whitelist": _FORMATS}, metadata_errors="replace"
        )
    except (av.FFmpegError, ValueError, OSError) as error:
        refuse_trouble(error, path)
        raise VideoError(
            "unreadable",
            f"{path.name!r} is no video file that can be opened: {_why_not_opened(error, path)}",
        ) from None
    with container:
        _check_is_contained(container, path)
        stream = _video_stream(container, path)
        pixels = stream.codec_context.width * stream.codec_context.height
        if pixels > MAX_PIXELS:
            raise VideoError(
                "limits",
                f"{path.name!r} declares frames of {stream.codec_context.width}x"
                f"{stream.codec_context.height} pixels; at most {MAX_PIXELS} pixels are decoded",
            )
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        yield container, stream


def read_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet[Any]]:
    """Demux a file, going on where FFmpeg's own programs do.

    - Packets without data, which stand for dropped frames, are left out; most decoders refuse them.
    - A demuxer that asks to be called again, as that of MPEG-TS does in 64 kB of padding, is.
    - Where a stream appears after the file was opened (a DVD's second sound track), PyAV fails when
      it flushes that stream at the end, with an IndexError. The others are flushed before.

    Args:
        container: The file.
        *streams: The streams whose packets are wanted; all by default.

    Raises:
        av.FFmpegError: The file is damaged.
    """
    for _ in range(_MOST_CALLS):
        try:
            for packet in container.demux(*streams):
                if packet.size > 0 or packet.dts is None:  # None: it flushes the decoder
                    yield packet
        except BlockingIOError:
            continue
        except IndexError:
            pass
        return


def frame_pts(frame: VideoFrame) -> int:
    """Return a frame's presentation timestamp; old containers give a decoding timestamp only.

    Raises:
        VideoError: The frame has neither.
    """
    pts = frame.pts if frame.pts is not None else frame.dts
    if pts is None:
        raise VideoError(
            "corrupted",
            "a frame has no timestamp, as in MPEG program streams with H.264; encode the file anew "
            "(ffmpeg -i IN OUT.mp4)",
        )
    return pts


class PictureConverter:
    """Converts the frames of one stream to upright RGB pictures, keeping its scaler.

    Args:
        color: "bt601" converts as the published weights saw it, "tags" as the file says; where it
            names a matrix that FFmpeg's scaler does not know (YCgCo, ...), by BT.601.
        rotation_degrees: Counter-clockwise turn that makes the picture upright.
    """

    def __init__(self, *, color: Literal["bt601", "tags"], rotation_degrees: int) -> None:
        self._color = color
        self._quarter_turns = rotation_degrees // 90
        self._scaler = VideoReformatter()
        self._has_warned = False

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return uint8 [H, W, 3]; rows may be padded, pixels of a row are contiguous.

        Raises:
            VideoError: unreadable: FFmpeg cannot convert pictures of this format.
        """
        colorspace = color_range = None
        if self._color == "bt601":
            colorspace = Colorspace.ITU601
            color_range = _released_range(frame.format.name)
        elif int(frame.colorspace) not in _MATRICES:
            colorspace = Colorspace.ITU601
            self._warn_of(frame)
        if frame.interlaced_frame:
            frame = _unflagged(frame)
        try:
            # Not to 32-bit RGB, of which FFmpeg leaves columns unwritten at some widths.
            converted = self._scaler.reformat(
                frame,
                format="rgb24",
                src_colorspace=colorspace,
                src_color_range=color_range,
                threads=1,
            )
        except av.FFmpegError as error:
            raise VideoError(
                "unreadable",
                f"pictures of the format {frame.format.name!r} cannot be converted: {cause(error)}",
            ) from None
        plane = converted.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        pixels = rows[: frame.height, : frame.width * 3].reshape(frame.height, frame.width, 3)
        if self._quarter_turns:
            return np.ascontiguousarray(np.rot90(pixels, self._quarter_turns))
        return pixels

    def _warn_of(self, frame: VideoFrame) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "the colour matrix %d of a video's tags is not supported; BT.601 is taken for it",
                int(frame.colorspace),
            )


def _unflagged(frame: VideoFrame) -> VideoFrame:
    """Copy a frame's pixels and colour tags, but not the mark that its rows are of two fields.

    FFmpeg's `sws_scale_frame` converts the fields of marked frames each by itself, which gives
    other colours than `sws_scale` gave the released code.
    """
    plain = VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, plain.planes, strict=True):
        given, taken = (
            np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, -1)
            for plane in (source, target)
        )
        rows = given if source.line_size >= 0 else given[::-1]  # stored from the bottom up
        num_bytes = min(rows.shape[1], taken.shape[1])
        taken[:, :num_bytes] = rows[:, :num_bytes]
    plain.colorspace, plain.color_range = frame.colorspace, frame.color_range
    return plain


def _released_range(pixel_format: str) -> ColorRange:
    is_full = pixel_format.startswith(("yuvj", "gray", "ya"))
    return ColorRange.JPEG if is_full else ColorRange.MPEG


def _check_is_file(path: Path) -> None:
    with plainly(path):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise VideoError(
                "unreadable", f"{path.name!r} is a folder, not a video file; name the files in it"
            )
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for somebody to write
            raise VideoError(
                "unreadable", f"{path.name!r} is a pipe, socket or device, not a video file"
            )
        if found.st_size == 0:
            raise VideoError("empty", f"{path.name!r} has no content (0 bytes)")
        with path.open("rb", buffering=0) as file:
            file.read(1)


def _why_not_opened(error: Exception, path: Path) -> str:
    with plainly(path):
        if lacks_index(path):
            return (
                "it lacks the index ('moov' box) of an MP4 file, so it was cut short or is still "
                "being written; fetch it again, or wait"
            )
    return cause(error)


def _check_is_contained(container: InputContainer, path: Path) -> None:
    if codec := _BARE.get(container.format.name):
        raise VideoError(
            "unreadable",
            f"{path.name!r} is a bare {codec} stream, which says of no frame when it is shown; "
            "encode it into a container (ffmpeg -framerate RATE -i IN OUT.mp4, RATE being its "
            "frames per second)",
        )


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise VideoError("unreadable", f"{path.name!r} is coded in a way that is not supported")
        return stream
    kinds = sorted({str(stream.type) for stream in container.streams}) or ["nothing"]
    raise VideoError("no_video_stream", f"{path.name!r} holds no video, but {', '.join(kinds)}")


def cause(error: Exception) -> str:
    """Give the decoder's own words, without the path that it may add; see `refuse_trouble` too.

    Raises:
        MemoryError: That was the error, which says nothing about the file.
    """
    if isinstance(error, MemoryError):
        raise MemoryError(*error.args)
    if getattr(error, "errno", None) == errno.EIO:  # the disk's own are found before
        return "its content ends in the middle of a part, or is damaged there"
    return str(getattr(error, "strerror", None) or type(error).__name__)
