"""Reads clips from a proxy."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.schemas import PROXY, check_metadata
from tsp_core.video.decode import cause, frame_pts
from tsp_core.video.proxy import (
    ROWS_PER_BATCH,
    SETTINGS_KEY,
    proxied_clip_frames,
    stored_frames,
)
from tsp_core.video.sampling import FrameTimeline
from tsp_core.video.trouble import plain_trouble


class PictureDecoder:
    """Decodes pictures of proxies, of any number of them in turn.

    Made anew for each, decoder and scaler take as long to set up as four pictures to decode.
    """

    def __init__(self) -> None:
        self._contexts: dict[str, VideoCodecContext] = {}
        self._reformat = VideoReformatter().reformat

    def start(self, codec: str) -> Callable[[Packet[Any] | None], Sequence[VideoFrame]]:
        """Return the function that decodes packets, of a stream that starts at a keyframe."""
        if codec not in self._contexts:
            context = CodecContext.create(codec, "r")
            assert isinstance(context, VideoCodecContext)
            context.thread_count = 1
            self._contexts[codec] = context
        self._contexts[codec].flush_buffers()
        return self._contexts[codec].decode

    def rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The picture as it was before coding, apart from the loss; its size is even."""
        # What `clip.color` says about the colours of the video was done before.
        converted = self._reformat(
            frame,
            format="rgb24",
            src_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG,
            threads=1,
        )
        plane = converted.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        picture: NDArray[np.uint8] = rows[:, : 3 * converted.width].reshape(len(rows), -1, 3)
        return picture


class ProxyReader:
    """Reads clips of one video from its proxy, which is mapped into memory.

    Args:
        path: Local file of the proxy.
        timeline: The video's frames, as measured at ingest.
        clip: What a clip is; as it was when the proxy was made, except for length and crop.
        decoder: One that other readers of the same thread use too.

    Raises:
        VideoError: missing, or corrupted: it is not the proxy of this video.
        ArtifactError: It is of an unknown version.
    """

    def __init__(
        self,
        path: Path,
        timeline: FrameTimeline,
        clip: ClipConfig,
        decoder: PictureDecoder | None = None,
    ) -> None:
        self._path, self._timeline, self._clip = path, timeline, clip
        self._decoder = decoder or PictureDecoder()
        try:
            self._map = pa.memory_map(str(path))
            self._file = pa.ipc.open_file(self._map)
        except FileNotFoundError:
            raise VideoError("missing", f"{path}: no such proxy; run ingest again") from None
        except pa.ArrowInvalid as error:
            raise self._damaged(str(error)) from None
        except OSError as error:
            raise plain_trouble(error, path) from error
        facts = self._file.schema.metadata or {}
        check_metadata(facts, str(path), PROXY.name, PROXY.version)
        settings = json.loads(facts[SETTINGS_KEY])
        self._stored = stored_frames(timeline, clip, settings["frames"])
        self._interval = settings["keyframe_interval"]
        self._codec = settings["codec"]

    def close(self) -> None:
        """Close the file."""
        self._map.close()

    def frames_at(self, start_seconds: float) -> NDArray[np.int64]:
        """Return the frames, int64 [L], of the clip that starts at a time."""
        return proxied_clip_frames(self._timeline, self._clip, start_seconds, self._stored)

    def read(
        self,
        frame_indices: NDArray[np.int64],
        window: tuple[int, int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Read the frames of one clip.

        Args:
            frame_indices: int64 [L], ascending, repetitions allowed, each in the proxy.
            window: Top, left, height and width of the part that is wanted; all by default.

        Returns:
            uint8 [L, height, width, 3].

        Raises:
            VideoError: corrupted: a frame cannot be decoded.
        """
        whole = (0, 0, self._clip.resize_height, self._clip.resize_width)
        top, left, height, width = window or whole
        places = np.searchsorted(self._stored, frame_indices)
        is_first = np.diff(places, prepend=-1) > 0
        pictures = np.empty((np.count_nonzero(is_first), height, width, 3), dtype=np.uint8)
        decoded = self._decoded(int(places[0]), int(places[-1]))
        for place, picture in zip(places[is_first].tolist(), pictures, strict=True):
            frame = next(frame for found, frame in decoded if found == place)
            picture[:] = self._decoder.rgb(frame)[top : top + height, left : left + width]
        return pictures if is_first.all() else pictures[np.cumsum(is_first) - 1]

    def _decoded(self, first: int, last: int) -> Iterator[tuple[int, VideoFrame]]:
        """Decode from the keyframe before a place to another; yield place and frame."""
        decode = self._decoder.start(self._codec)
        try:
            for place, packet in self._packets(first - first % self._interval, last):
                for frame in decode(packet):
                    yield frame_pts(frame), frame
                if place == last:
                    for frame in decode(None):
                        yield frame_pts(frame), frame
        except av.FFmpegError as error:
            raise self._damaged(cause(error)) from None
        raise self._damaged(f"frame {self._stored[last]} is not there")

    def _packets(self, first: int, last: int) -> Iterator[tuple[int, Packet[Any]]]:
        for begin in range(first - first % ROWS_PER_BATCH, last + 1, ROWS_PER_BATCH):
            try:
                frames, checksums, coded = self._file.get_batch(begin // ROWS_PER_BATCH).columns
            except pa.ArrowInvalid as error:
                raise self._damaged(str(error)) from None
            stored = self._stored[begin : begin + ROWS_PER_BATCH]
            if not np.array_equal(frames.to_numpy(), stored):
                raise self._damaged("it holds other frames than its video has")
            _, offsets, values = coded.buffers()
            assert offsets is not None, "a column without nulls has all its buffers"
            assert values is not None
            ends, coded_bytes = memoryview(offsets).cast("q"), memoryview(values)
            for place in range(max(first, begin), min(last + 1, begin + len(stored))):
                row = place - begin
                data = bytes(coded_bytes[ends[row] : ends[row + 1]])
                if zlib.crc32(data) != checksums[row].as_py():
                    raise self._damaged(f"frame {stored[row]} has another checksum")
                packet = Packet(data)
                packet.pts = packet.dts = place
                yield place, packet

    def _damaged(self, why: str) -> VideoError:
        return VideoError(
            "corrupted", f"{self._path}: damaged proxy ({why}); delete it and run ingest again"
        )
