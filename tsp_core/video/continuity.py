"""Tells timestamps that follow one order of time from those that start over."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tsp_core.errors import VideoError
from tsp_core.video.frames import MAX_REORDER_FRAMES

_MAX_RETURNS = 4
_MAX_RETURNED_FRACTION = 0.01
"""Frames that may go back to the time of another, by number and as part of all: what a joint costs
that was mended by remuxing, or a stray packet."""

_MAX_HIDDEN_FRACTION = 0.5
"""Frames that may share their time with the one before, as part of all. Half of them do where the
container's clock is half as fast as the frames."""

_MPEG = ("mpegts", "mpeg")
_MPEG_CLOCK_SECONDS = 2**33 / 90_000
"""When MPEG's clock starts over. FFmpeg takes a jump far back for that, and adds a whole round."""

_REMUX = "remux it (ffmpeg -fflags +genpts -i IN -c copy OUT.mp4), which gives it one clock"
_ENCODE = "encode it anew with even times (ffmpeg -i IN -vf setpts=N/FRAME_RATE/TB -an OUT.mp4)"


def check_order(decoded: NDArray[np.int64], time_base: Fraction, container: str, name: str) -> None:
    """Refuse a file whose timestamps neither tell frames apart nor put them in order.

    Recordings that were joined byte by byte (`cat a.ts b.ts`), or restarted, have several frames
    for one time, or the past after the future. Timestamps that go back and forth by a few frames
    (AVI) are no such trouble, nor are some frames that have the time of the one before, which are
    shown for no time at all; where most do, the file has no times worth the name.

    Args:
        decoded: int64 [N], timestamp of each decoded frame as the decoder gives them, in ticks.
        time_base: Seconds per tick.
        container: FFmpeg's name for the container.
        name: The file's.

    Raises:
        VideoError: corrupted.
    """
    is_mpeg = container in _MPEG
    trouble = _trouble(decoded, time_base, is_mpeg=is_mpeg)
    if trouble is not None:
        fix = _REMUX if is_mpeg else _ENCODE
        raise VideoError(
            "corrupted", f"{name!r}: {trouble}, as in recordings joined into one file; {fix}"
        )
    num_hidden = len(decoded) - len(np.unique(decoded))
    if num_hidden > _MAX_HIDDEN_FRACTION * len(decoded):
        raise VideoError(
            "corrupted",
            f"{name!r}: {num_hidden} of {len(decoded)} frames share presentation times with "
            f"others, so that they would never be shown; {_ENCODE}",
        )


def _trouble(decoded: NDArray[np.int64], time_base: Fraction, *, is_mpeg: bool) -> str | None:
    times = decoded if np.all(np.diff(decoded) > 0) else np.unique(decoded)
    longest = float(np.diff(times).max(initial=0) * time_base)
    if is_mpeg and longest > _MPEG_CLOCK_SECONDS / 2:
        return "its clock jumps back"
    return None if times is decoded else _disorder(decoded, times, time_base)


def _disorder(
    decoded: NDArray[np.int64], times: NDArray[np.int64], time_base: Fraction
) -> str | None:
    """Judge timestamps that do not only increase, given the distinct ones in order."""
    ranks = np.searchsorted(times, decoded)
    latest = np.maximum.accumulate(ranks)
    is_late = latest - ranks > MAX_REORDER_FRAMES
    if is_late.any():
        frame = int(is_late.argmax())
        seconds = float((times[latest[frame]] - decoded[frame]) * time_base)
        return f"its clock jumps back by {seconds:.2f} s at frame {frame}"
    is_repeated = np.ones(len(decoded), dtype=np.bool_)
    is_repeated[np.unique(decoded, return_index=True)[1]] = False
    num_returns = int(np.count_nonzero(is_repeated & (ranks < latest)))
    if num_returns > max(_MAX_RETURNS, _MAX_RETURNED_FRACTION * len(decoded)):
        return f"its clock jumps back: {num_returns} of {len(decoded)} frames repeat earlier times"
    return None
