"""The frames of a video that are needed, decoded in one pass from start to end.

Every frame is matched to the timeline by its presentation timestamp (or, where a file's timestamps
go back and forth, by its place in the decoder's output), so what a caller gets is the frame it
asked for or a `VideoError`, never a neighbour.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tsp_core.errors import VideoError
from tsp_core.isolation import heartbeat
from tsp_core.video.decode import cause, opened_video
from tsp_core.video.frames import MAX_REORDER_FRAMES, FrameFinder, decode_needed
from tsp_core.video.sampling import FrameTimeline
from tsp_core.video.trouble import refuse_trouble

_BYTES_AT_A_TIME = 3_600_000  # of frames as RGB; 16 frames of 320x240
_CODECS_THAT_KEEP_FRAMES = frozenset({"h264", "hevc", "vp9"})
"""Their decoders leave frames alone that were given. FFmpeg's for MJPEG, fed with damaged data,
draws the next picture over the last one."""


def needed_frames(
    path: Path,
    timeline: FrameTimeline,
    needed: NDArray[np.int64],
    threads: int,
    *,
    leave_out: bool = True,
) -> Generator[VideoFrame, None, None]:
    """Decode a video and yield the needed frames, int64 [N], ascending, each once.

    Use a frame before taking the next: a decoder may draw over it.

    Args:
        path: Local file.
        timeline: Its frames, as measured at ingest.
        needed: Which are wanted.
        threads: Decoding threads.
        leave_out: Have the decoder leave out what is not needed, as far as the rest allows.

    Raises:
        VideoError: The file is not what the timeline says, or cannot be decoded.
        MachineTroubleError: It cannot be read now.
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


def several_at_a_time(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Take small frames in groups before giving them on.

    A decoder leaves little else in the processor's caches, so that what is done with one frame
    between two others takes longer than what is done with many in a row.
    """
    group: list[VideoFrame] = []
    damage = None
    try:
        for frame in frames:
            group.append(frame)
            if 3 * frame.width * frame.height * len(group) >= _BYTES_AT_A_TIME:
                yield from group
                group.clear()
    except VideoError as error:
        damage = error
    yield from group  # what came before the damage is good
    if damage is not None:
        raise damage


def _one_pass(
    path: Path,
    timeline: FrameTimeline,
    needed: NDArray[np.int64],
    threads: int,
    *,
    leave_out: bool,
) -> Iterator[VideoFrame]:
    with opened_video(path, threads=threads) as (container, stream):
        frames = _in_order(path, container, stream, timeline, needed, leave_out=leave_out)
        can_be_kept = stream.codec_context.name in _CODECS_THAT_KEEP_FRAMES
        yield from several_at_a_time(frames) if can_be_kept else frames


def _in_order(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    timeline: FrameTimeline,
    needed: NDArray[np.int64],
    *,
    leave_out: bool,
) -> Iterator[VideoFrame]:
    is_needed = np.zeros(timeline.num_frames, dtype=np.bool_)
    is_needed[needed] = True
    waiting: dict[int, VideoFrame] = {}
    num_yielded = 0
    finder = FrameFinder(timeline, path)
    try:
        for frame in decode_needed(
            container, stream, finder, is_needed.item if leave_out else None
        ):
            heartbeat()
            if frame.is_corrupt:
                raise VideoError("corrupted", f"{path.name!r}: a damaged frame at {frame.time} s")
            index = finder.index_of(frame)
            if is_needed[index] and index >= needed[num_yielded]:
                waiting.setdefault(index, frame)
            while (wanted := int(needed[num_yielded])) in waiting:
                yield waiting.pop(wanted)
                num_yielded += 1
                if num_yielded == len(needed):
                    return
            if index > wanted + MAX_REORDER_FRAMES:
                break
    except av.FFmpegError as error:
        refuse_trouble(error, path)
        raise VideoError("corrupted", f"{path.name!r}: decoding fails: {cause(error)}") from None
    raise VideoError(
        "corrupted",
        f"{path.name!r}: frame {needed[num_yielded]} of {timeline.num_frames} was not decoded; "
        "the file is damaged or changed after ingest",
    )
