"""The pictures that clips show, decoded and resized in order, in a worker process or in this one.

A worker writes them into memory that both processes see, a few ahead of what is asked for, so
isolation costs one copy of each resized picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from tsp_core import isolation
from tsp_core.config import ClipConfig
from tsp_core.isolation import WorkerDiedError
from tsp_core.video.frames import FrameResizer
from tsp_core.video.passes import needed_frames
from tsp_core.video.sampling import FrameTimeline
from tsp_core.video.sandbox import DecodingLimits, verdicts
from tsp_core.video.transforms import centre_crop_offsets

_AHEAD = 4
_PICTURES_AT_A_TIME = 8  # one message for so many; 1.2 MB at 112x112, which caches hold

Fill = Callable[[NDArray[np.float32]], None]
"""Fills float32 [n, S, S, 3] with the next n pictures."""


@dataclass(frozen=True, kw_only=True)
class PictureJob:
    """Which pictures of a video are wanted.

    Attributes:
        path: Local file.
        timeline: Its frames, as measured at ingest.
        rotation_degrees: Counter-clockwise turn that makes the picture upright.
        clip: Sizes and colour conversion; pictures are normalised centre crops.
        needed: int64 [N], indices of the frames, ascending.
        threads: Decoding threads.
        leave_out: Spare the decoder frames that are not needed, where it can be spared.
    """

    path: Path
    timeline: FrameTimeline
    rotation_degrees: int
    clip: ClipConfig
    needed: NDArray[np.int64]
    threads: int = 1
    leave_out: bool = True


@contextmanager
def opened_pictures(job: PictureJob, limits: DecodingLimits | None) -> Iterator[Fill]:
    """Decode a video; yields the function that gives its pictures.

    Args:
        job: The pictures.
        limits: Decode in a worker process with these; None decodes in this one.

    Raises:
        VideoError: The file is not what the timeline says, cannot be decoded, crashes the decoder
            or reaches a limit. The function raises it, where the damage is reached.
    """
    if limits is None or not limits.isolate:
        with contextlib.closing(_frames_of(job)) as frames:
            resizer = _resizer(job)

            def decode(out: NDArray[np.float32]) -> None:
                for picture in out:
                    resizer(next(frames), out=picture)

            yield decode
        return
    with contextlib.closing(_from_workers(job, limits)) as pictures:

        def receive(out: NDArray[np.float32]) -> None:
            for picture in out:
                np.copyto(picture, next(pictures))

        yield receive


def send_pictures(memory: memoryview, job: PictureJob) -> Generator[tuple[int, int], None, None]:
    """Decode in a worker: fill one part of the memory after the other; yields part and count."""
    resizer = _resizer(job)
    with contextlib.closing(_frames_of(job)) as frames:
        for number in range(len(job.needed) // _PICTURES_AT_A_TIME + 1):
            part = number % _AHEAD
            count = 0
            for picture, frame in zip(_parts(memory, job.clip)[part], frames, strict=False):
                resizer(frame, out=picture)
                count += 1
            yield part, count


def _from_workers(
    job: PictureJob, limits: DecodingLimits
) -> Generator[NDArray[np.float32], None, None]:
    """Yield each picture, valid until the next.

    After a crash the rest comes from a fresh worker, which decodes all frames, as ingest did.
    """
    num_given = 0

    def stream(*, leave_out: bool) -> Iterator[NDArray[np.float32]]:
        nonlocal num_given
        rest = replace(job, needed=job.needed[num_given:], leave_out=leave_out)
        size = 4 * _AHEAD * _PICTURES_AT_A_TIME * 3 * job.clip.crop_size**2
        file_limits = limits.for_file(job.path)
        with isolation.stream(
            send_pictures, file_limits, rest, ahead=_AHEAD, shared_bytes=size
        ) as running:
            parts = _parts(running.memory, job.clip)
            for part, count in running.items:
                for picture in parts[part, :count]:
                    yield picture
                    num_given += 1

    with verdicts(job.path):
        try:
            yield from stream(leave_out=job.leave_out)
        except WorkerDiedError:
            yield from stream(leave_out=False)


def _parts(memory: memoryview, clip: ClipConfig) -> NDArray[np.float32]:
    shape = (_AHEAD, _PICTURES_AT_A_TIME, clip.crop_size, clip.crop_size, 3)
    return np.frombuffer(memory, dtype=np.float32, count=int(np.prod(shape))).reshape(shape)


def _frames_of(job: PictureJob) -> Generator[VideoFrame, None, None]:
    return needed_frames(job.path, job.timeline, job.needed, job.threads, leave_out=job.leave_out)


def _resizer(job: PictureJob) -> FrameResizer:
    clip, size = job.clip, job.clip.crop_size
    top, left = centre_crop_offsets(clip.resize_height, clip.resize_width, size)
    window = (top, left, size, size)
    return FrameResizer(clip, job.rotation_degrees, window=window, normalise=True)
