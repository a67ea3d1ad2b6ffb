"""The frames of a video that are needed, decoded in one pass from start to end.

Every frame is matched to the timeline by its presentation timestamp (or, where a file's timestamps
go back and forth, by its place in the decoder's output), so what a caller gets is the frame it
asked for or a `VideoError`, never a neighbour.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from tsp_core.errors import VideoError
from tsp_core.isolation import heartbeat
from tsp_core.video.decode import cause, opened_video
from tsp_core.video.frames import MAX_REORDER_FRAMES, FrameFinder, decode_needed
from tsp_core.video.sampling import FrameTimeline


def needed_frames(
    path: Path,
    timeline: FrameTimeline,
    needed: NDArray[np.int64],
    threads: int,
    *,
    leave_out: bool = True,
) -> Generator[VideoFrame, None, None]:
    """Decode a video and yield the needed frames, int64 [N], ascending, each once.

    Args:
        path: Local file.
        timeline: Its frames, as measured at ingest.
        needed: Which are wanted.
        threads: Decoding threads.
        leave_out: Have the decoder leave out what is not needed, as far as the rest allows.

    Raises:
        VideoError: The file is not what the timeline says, or cannot be decoded.
    """
    num_given = 0
    if leave_out:
        # If leaving frames out upsets the decoder, the rest comes without.
        with contextlib.suppress(VideoError):
            for frame in _one_pass(path, timeline, needed, threads, leave_out=True):
                yield frame
                num_given += 1
    if num_given < len(needed):
        yield from _one_pass(path, timeline, needed[num_given:], threads, leave_out=False)


def _one_pass(
    path: Path,
    timeline: FrameTimeline,
    needed: NDArray[np.int64],
    threads: int,
    *,
    leave_out: bool,
) -> Iterator[VideoFrame]:
    is_needed = np.zeros(timeline.num_frames, dtype=np.bool_)
    is_needed[needed] = True
    waiting: dict[int, VideoFrame] = {}
    num_yielded = 0
    decoded = _decoded(path, timeline, threads, is_needed.item if leave_out else None)
    with contextlib.closing(decoded):
        for index, frame in decoded:
            if is_needed[index] and index >= needed[num_yielded]:
                waiting.setdefault(index, frame)
            while (wanted := int(needed[num_yielded])) in waiting:
                yield waiting.pop(wanted)
                num_yielded += 1
                if num_yielded == len(needed):
                    return
            if index > wanted + MAX_REORDER_FRAMES:
                break
    raise VideoError(
        "corrupted",
        f"{path.name!r}: frame {needed[num_yielded]} of {timeline.num_frames} was not decoded; "
        "the file is damaged or changed after ingest",
    )


def _decoded(
    path: Path,
    timeline: FrameTimeline,
    threads: int,
    is_needed: Callable[[int], bool] | None,
) -> Generator[tuple[int, VideoFrame], None, None]:
    """Decode a video from its start; yield the index of each frame and the frame."""
    with opened_video(path, threads=threads) as (container, stream):
        finder = FrameFinder(timeline, path)
        try:
            for frame in decode_needed(container, stream, finder, is_needed):
                heartbeat()
                if frame.is_corrupt:
                    message = f"{path.name!r}: a damaged frame at {frame.time} s"
                    raise VideoError("corrupted", message)
                yield finder.index_of(frame), frame
        except av.FFmpegError as error:
            message = f"{path.name!r}: decoding fails: {cause(error)}"
            raise VideoError("corrupted", message) from None
