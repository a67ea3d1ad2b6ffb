"""Reads clips as cropped uint8 frames, in this process or in loader processes.

Frames are resized, cropped and mirrored as bytes where they are decoded, so that what is cropped
away is neither computed nor sent; a clip is then a twelfth of the bytes that it has in floats.
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.schemas import BOUND_TO_LIMITS
from tsp_core.training.index import ClipIndex, open_index
from tsp_core.training.suspects import ReadingNote
from tsp_core.video.apart import ApartReader, Window, clip_reader
from tsp_core.video.files import called_by_name, local_video
from tsp_core.video.proxy_files import local_proxy
from tsp_core.video.proxy_reader import PictureDecoder, ProxyReader
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import clip_frames, timeline_from_row
from tsp_core.video.sandbox import DecodingLimits
from tsp_core.video.transforms import mirrored
from tsp_core.video.trouble import MachineTroubleError, patiently

OPEN_VIDEOS, OPEN_PROXIES = 16, 256
"""Videos and proxies that one loader process keeps open: an open decoder holds a few megabytes, an
open proxy some kilobytes, and opening it is a good part of reading a clip."""


class Request(NamedTuple):
    """A clip to read.

    Attributes:
        row: Row of the clip index.
        ratio: Where the clip starts, between its first (0) and its last start (1).
        top: First row of the crop, in pixels of the resized frame.
        left: First column of the crop, in the frame as it was before it was mirrored.
        flip: Whether to mirror it left to right.
    """

    row: int
    ratio: float
    top: int
    left: int
    flip: bool


@dataclass(frozen=True, kw_only=True)
class FailedClip:
    """A clip that could not be read: its place in the batch, and why."""

    place: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RawBatch:
    """What the loader delivers for one list of requests.

    Attributes:
        frames: uint8 [B, L, S, S, 3], the clips that could be read, in the order of the requests.
        places: int64 [B], place of each among the requests.
        failed: The others.
    """

    frames: torch.Tensor
    places: NDArray[np.int64]
    failed: tuple[FailedClip, ...]

    def pin_memory(self) -> RawBatch:
        """Move the frames to page-locked memory; called by the data loader."""
        return replace(self, frames=self.frames.pin_memory())


class ClipDataset(Dataset[RawBatch]):
    """Reads lists of requests; a few videos stay open between them.

    A copy in a loader process maps the same index files and opens its own videos.

    Args:
        folder: Where `write_index` wrote the index.
        clip: What a clip is.
        cache_dir: Local folder for videos of remote stores.
        limits: What decoding may take; a clip that hangs longer ends this process. None sets no
            limits, and reads everything here.
        apart: Videos (rows of the index's) that are read in worker processes.
    """

    def __init__(
        self,
        folder: Path,
        clip: ClipConfig,
        cache_dir: str | None,
        limits: DecodingLimits | None = None,
        apart: frozenset[int] = frozenset(),
    ) -> None:
        self._folder, self._clip, self._cache_dir = folder, clip, cache_dir
        self._limits, self._apart = limits, apart
        self._index: ClipIndex | None = None
        self._note: ReadingNote | None = None
        self._open: OrderedDict[int, _OpenVideo] = OrderedDict()
        self._open_proxies: OrderedDict[int, _OpenVideo] = OrderedDict()
        self._decoder = PictureDecoder()
        # Each clip of a video that hangs would take as long, while other processes wait.
        self._given_up: dict[int, VideoError] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self._folder, self._clip, self._cache_dir, self._limits, self._apart)
        return ClipDataset, arguments

    def __getitem__(self, request: Request) -> RawBatch:
        return self.__getitems__([request])

    def __getitems__(self, requests: Sequence[Request]) -> RawBatch:
        """Read a batch; a clip whose video fails is reported in it, not raised.

        Raises:
            TransientError: The machine, or where the videos are kept, is in trouble, time after
                time; that says nothing about a video.
        """
        size = self._clip.crop_size
        frames = np.empty((len(requests), self._clip.length, size, size, 3), dtype=np.uint8)
        places: list[int] = []
        failed: list[FailedClip] = []
        for place, request in enumerate(requests):
            try:
                frames[len(places)] = patiently(functools.partial(self._read_or_close, request))
                places.append(place)
            except VideoError as error:
                if error.code in BOUND_TO_LIMITS:
                    self._given_up[self._video_of(request)] = error
                failed.append(FailedClip(place=place, reason=str(error)))
        return RawBatch(
            frames=torch.from_numpy(frames[: len(places)]),
            places=np.array(places, dtype=np.int64),
            failed=tuple(failed),
        )

    def close(self) -> None:
        """Close the videos that are open in this process."""
        for kept in (self._open, self._open_proxies):
            while kept:
                kept.popitem()[1].close()
        if self._note is not None:
            self._note.close()
            self._note = None

    def _read_or_close(self, request: Request) -> NDArray[np.uint8]:
        """Read a clip; a video that is in trouble is opened anew the next time."""
        try:
            return self._read(request)
        except MachineTroubleError:
            number = self._video_of(request)
            for kept in (self._open_proxies, self._open):
                if number in kept:
                    kept.pop(number).close()
            raise

    def _read(self, request: Request) -> NDArray[np.uint8]:
        if self._index is None:
            self._index = open_index(self._folder)
        number = self._video_of(request)
        if number in self._given_up:
            raise self._given_up[number]
        start = self._index.start(request.row, request.ratio)
        size = self._clip.crop_size
        video = self._video(number)
        frames = video.read(start, (request.top, request.left, size, size))
        return mirrored(frames) if request.flip else frames

    def _video_of(self, request: Request) -> int:
        assert self._index is not None
        return int(self._index.video_indices[request.row])

    def _video(self, video_index: int) -> _OpenVideo:
        for kept in (self._open_proxies, self._open):
            if video_index in kept:
                kept.move_to_end(video_index)
                return kept[video_index]
        assert self._index is not None
        row = self._index.video_row(video_index)
        is_proxy = row["proxy"] is not None
        kept, limit = (self._open_proxies, OPEN_PROXIES) if is_proxy else (self._open, OPEN_VIDEOS)
        while len(kept) >= limit:
            kept.popitem(last=False)[1].close()
        video = kept[video_index] = self._opened(row, video_index)
        return video

    def _opened(self, row: dict[str, Any], video_index: int) -> _OpenVideo:
        if row["proxy"] is not None:  # our own making, so there is nothing to guard against
            return _proxy(row, self._clip, self._cache_dir, self._decoder)
        here = functools.partial(clip_reader, row=row, clip=self._clip)
        if self._limits is None or not self._limits.isolate:
            return _video(row, self._clip, self._cache_dir, here)
        if video_index in self._apart:
            apart = functools.partial(ApartReader, row=row, clip=self._clip, limits=self._limits)
            return _video(row, self._clip, self._cache_dir, apart)
        if self._note is None:
            self._note = ReadingNote(self._folder, self._limits.stall_seconds)
        noted = functools.partial(self._note.of, video_index)
        return _video(row, self._clip, self._cache_dir, here, noted)


_Guard = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class _OpenVideo:
    """A video that is open for reading clips.

    Attributes:
        read: Takes the start of a clip in seconds and a window; gives the window of its frames,
            uint8 [L, height, width, 3].
        close: Closes it.
    """

    read: Callable[[float, Window], NDArray[np.uint8]]
    close: Callable[[], None]


def _proxy(
    row: dict[str, Any], clip: ClipConfig, cache_dir: str | None, decoder: PictureDecoder
) -> _OpenVideo:
    """Open a video's proxy."""
    path = local_proxy(row["proxy"], cache_dir)
    reader = ProxyReader(path, timeline_from_row(row), clip, decoder)

    def read(start_seconds: float, window: Window) -> NDArray[np.uint8]:
        return reader.read(reader.frames_at(start_seconds), window)

    return _OpenVideo(read=read, close=reader.close)


def _video(
    row: dict[str, Any],
    clip: ClipConfig,
    cache_dir: str | None,
    opened: Callable[[Path], ClipReader | ApartReader],
    guard: _Guard = contextlib.nullcontext,
) -> _OpenVideo:
    """Open a video's file; what this process decodes of it is decoded under a guard."""
    timeline = timeline_from_row(row)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(local_video(row["uri"], row["content_hash"], cache_dir))
        with guard():
            reader = opened(path)
        stack.callback(reader.close)

        def read(start_seconds: float, window: Window) -> NDArray[np.uint8]:
            frames = clip_frames(timeline, clip, start_seconds)
            with guard(), called_by_name(path, row["uri"]):
                return reader.read(frames, window)

        return _OpenVideo(read=read, close=stack.pop_all().close)
