"""Reads clips as resized uint8 frames, in this process or in loader processes."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.training.index import ClipIndex, open_index
from tsp_core.video.clips import ClipReader
from tsp_core.video.files import local_video
from tsp_core.video.sampling import FrameTimeline, clip_frames, timeline_from_row

OPEN_VIDEOS = 16
"""Videos that one loader process keeps open; an open decoder holds a few megabytes."""

Request = tuple[int, float]
"""A row of the clip index, and the ratio that places the clip between its first and last start."""


@dataclass(frozen=True, kw_only=True)
class FailedClip:
    """A clip that could not be read: its place in the batch, and why."""

    place: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RawBatch:
    """What the loader delivers for one list of requests.

    Attributes:
        frames: uint8 [B, L, H, W, 3], the clips that could be read, in the order of the requests.
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
    """

    def __init__(self, folder: Path, clip: ClipConfig, cache_dir: str | None) -> None:
        self._folder, self._clip, self._cache_dir = folder, clip, cache_dir
        self._index: ClipIndex | None = None
        self._open: OrderedDict[int, _OpenVideo] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None, "_open": OrderedDict()}

    def __getitem__(self, request: Request) -> RawBatch:
        return self.__getitems__([request])

    def __getitems__(self, requests: Sequence[Request]) -> RawBatch:
        """Read a batch; a clip whose video fails is reported in it, not raised."""
        frames: list[torch.Tensor] = []
        places: list[int] = []
        failed: list[FailedClip] = []
        for place, (row, ratio) in enumerate(requests):
            try:
                frames.append(self._read(row, ratio))
                places.append(place)
            except VideoError as error:
                failed.append(FailedClip(place=place, reason=str(error)))
        return RawBatch(
            frames=torch.stack(frames) if frames else self._no_frames(),
            places=np.array(places, dtype=np.int64),
            failed=tuple(failed),
        )

    def close(self) -> None:
        """Close the videos that are open in this process."""
        while self._open:
            self._open.popitem()[1].close()

    def _read(self, row: int, ratio: float) -> torch.Tensor:
        if self._index is None:
            self._index = open_index(self._folder)
        start = self._index.starts(np.array([row]), np.array([ratio]))[0]
        video = self._video(int(self._index.video_indices[row]))
        return video.reader.read(clip_frames(video.timeline, self._clip, float(start)))

    def _video(self, video_index: int) -> _OpenVideo:
        if video_index in self._open:
            self._open.move_to_end(video_index)
            return self._open[video_index]
        assert self._index is not None
        while len(self._open) >= OPEN_VIDEOS:
            self._open.popitem(last=False)[1].close()
        row = self._index.video_row(video_index)
        video = self._open[video_index] = _OpenVideo(row, self._clip, self._cache_dir)
        return video

    def _no_frames(self) -> torch.Tensor:
        clip = self._clip
        shape = (0, clip.length, clip.resize_height, clip.resize_width, 3)
        return torch.empty(shape, dtype=torch.uint8)


class _OpenVideo:
    """A video that is open for reading clips."""

    def __init__(self, row: dict[str, Any], clip: ClipConfig, cache_dir: str | None) -> None:
        self.timeline: FrameTimeline = timeline_from_row(row)
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(local_video(row["uri"], row["content_hash"], cache_dir))
            self.reader = ClipReader(
                path, self.timeline, row["keyframes"], row["rotation_degrees"], clip
            )
            stack.callback(self.reader.close)
            self.close = stack.pop_all().close
