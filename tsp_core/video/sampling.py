"""Which frames make up which clip: the released code's choice, reproduced to the digit.

For constant frame rates the frames are those of the method's released code, including its
arithmetic: frame positions in float32, clip starts in float64, and `torchvision.io.read_video`'s
rounding of a start time to the stream's time base (which shifts a clip by one frame where the
product falls just below a frame's timestamp, for instance at 30000/1001 fps). For variable frame
rates, which the released code does not support, position j of a clip that starts at time t shows
the frame on screen at t + j / frame_rate.

Times are in seconds from the first frame; timestamps (`pts`) are in ticks of the stream's time
base. Pure NumPy: no decoder and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.config import ClipConfig

_TICK_TOLERANCE = 1e-6
"""Part of a tick by which a computed time may fall short of a timestamp it stands for."""

_LONGEST_TAIL_SECONDS = 1
"""How long the last frame of a variable rate is shown at most, unless most are shown longer. Slides
and cameras that wait for motion have gaps whose mean says nothing of the last one."""


@dataclass(frozen=True, kw_only=True)
class FrameTimeline:
    """When each frame of a video is shown.

    Attributes:
        pts: int64 [num_frames], strictly increasing timestamps in presentation order, in ticks of
            `time_base`, as in the file (the first need not be 0).
        time_base: Seconds per tick.
        frame_rate: Frames per second, measured; for a variable rate the mean.
        is_variable: Whether the frames are not evenly spaced (rounding to ticks aside).
        has_unordered_pts: The file's own timestamps go back and forth (AVI with B-frames), while
            the decoder gives the frames in the right order; `pts` are sorted, and frames are told
            by their order instead of their timestamps.
    """

    pts: NDArray[np.int64]
    time_base: Fraction
    frame_rate: Fraction
    is_variable: bool
    has_unordered_pts: bool = False

    def __post_init__(self) -> None:
        if self.pts.ndim != 1 or len(self.pts) == 0:
            raise ValueError(f"pts: expected at least one timestamp, got shape {self.pts.shape}")
        if np.any(np.diff(self.pts) <= 0):
            raise ValueError("pts: timestamps must be strictly increasing")
        if self.time_base <= 0 or self.frame_rate <= 0:
            raise ValueError(
                f"time_base {self.time_base} and frame_rate {self.frame_rate} must be positive"
            )

    @property
    def num_frames(self) -> int:
        """Decoded frames."""
        return len(self.pts)

    @property
    def duration_seconds(self) -> float:
        """From the first frame's start to the last frame's end, as `exact_duration`."""
        return float(self.exact_duration)

    @property
    def exact_duration(self) -> Fraction:
        """The duration in seconds: the last frame lasts as long as frames do in the mean.

        Where the rate varies and the mean is more than a second, it lasts a second, or as long as
        most frames do.
        """
        mean = 1 / self.frame_rate
        if self.num_frames == 1 or not self.is_variable or mean <= _LONGEST_TAIL_SECONDS:
            return self.num_frames * mean
        gaps = np.sort(np.diff(self.pts))
        median = int(gaps[(len(gaps) - 1) // 2]) * self.time_base
        tail = min(mean, max(median, Fraction(_LONGEST_TAIL_SECONDS)))
        return int(self.pts[-1] - self.pts[0]) * self.time_base + tail


@dataclass(frozen=True, kw_only=True)
class ClipGrid:
    """The clips of a whole video.

    Attributes:
        frame_indices: int64 [N, L], indices into the timeline.
        starts_seconds: float64 [N].
        ends_seconds: float64 [N], start + L / clip frame rate (exclusive).
        is_padded: bool [N]; True for the one clip of a video that is shorter than a clip, which
            repeats its last frame.
    """

    frame_indices: NDArray[np.int64]
    starts_seconds: NDArray[np.float64]
    ends_seconds: NDArray[np.float64]
    is_padded: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.frame_indices)


def timeline_from_row(row: Mapping[str, Any]) -> FrameTimeline:
    """Build the timeline of one row (a dictionary) of the videos table."""
    if row["ticks_per_frame"] is not None:
        steps = np.arange(row["num_frames"], dtype=np.int64)
        pts = row["first_pts"] + steps * row["ticks_per_frame"]
    else:
        pts = np.asarray(row["pts"], dtype=np.int64)
    return FrameTimeline(
        pts=pts,
        time_base=Fraction(row["time_base_num"], row["time_base_den"]),
        frame_rate=Fraction(row["frame_rate_num"], row["frame_rate_den"]),
        is_variable=row["is_variable_rate"],
        has_unordered_pts=bool(row["has_unordered_pts"]),
    )


def clip_grid(timeline: FrameTimeline, clip: ClipConfig, stride: int) -> ClipGrid:
    """Cut a whole video into clips, `stride` sampled frames apart.

    For constant rates the number of clips and their frames are the released code's. Where its
    rounding asks for a frame beyond the last one, the last is repeated.
    """
    if stride < 1:
        raise ValueError(f"stride: expected at least 1, got {stride}")
    if timeline.is_variable:
        starts = _variable_rate_starts(timeline, clip, stride)
    else:
        starts = _constant_rate_starts(timeline, clip, stride)
    is_short = len(starts) == 0
    if is_short:
        starts = np.zeros(1)
    return ClipGrid(
        frame_indices=_frames_at(timeline, clip, starts),
        starts_seconds=starts,
        ends_seconds=starts + clip.length / clip.frame_rate,
        is_padded=np.full(len(starts), is_short),
    )


def clip_frames(
    timeline: FrameTimeline, clip: ClipConfig, start_seconds: float
) -> NDArray[np.int64]:
    """Return the frames, int64 [L], of one clip that starts at any time (training, validation)."""
    frames = _frames_at(timeline, clip, np.array([start_seconds], dtype=np.float64))
    return frames.reshape(clip.length)


def sampled_frames(timeline: FrameTimeline, clip: ClipConfig) -> NDArray[np.int64]:
    """Return the frames of a whole video at the clips' frame rate, int64 [num_samples].

    Sample i is shown at i / frame_rate; a video shorter than one sample gives its first frame.
    """
    if timeline.is_variable:
        total = _num_samples(timeline, clip)
        times = np.arange(max(total, 1)) / clip.frame_rate
        return _frames_shown(timeline, times * float(1 / timeline.time_base) + _TICK_TOLERANCE)
    fps = float(timeline.frame_rate)
    step = fps / clip.frame_rate
    if step.is_integer():
        return np.arange(timeline.num_frames, dtype=np.int64)[:: int(step)]
    total = int(timeline.num_frames * (clip.frame_rate / fps))
    return _resampled(max(total, 1), step)


def _constant_rate_starts(
    timeline: FrameTimeline, clip: ClipConfig, stride: int
) -> NDArray[np.float64]:
    """Start times in seconds as the released code's `EvalVideoDataset` computes them."""
    sampled = sampled_frames(timeline, clip)
    starts = sampled[: max(len(sampled) - clip.length + 1, 0) : stride] / float(timeline.frame_rate)
    return np.asarray(starts, dtype=np.float64)


def _variable_rate_starts(
    timeline: FrameTimeline, clip: ClipConfig, stride: int
) -> NDArray[np.float64]:
    """Multiples of stride / frame_rate at which a whole clip fits into the duration."""
    total = _num_samples(timeline, clip)
    starts = np.arange(0, max(total - clip.length + 1, 0), stride) / clip.frame_rate
    return np.asarray(starts, dtype=np.float64)


def _num_samples(timeline: FrameTimeline, clip: ClipConfig) -> int:
    """How many whole periods of the clips' frame rate fit into the duration."""
    return int(timeline.exact_duration * Fraction(str(clip.frame_rate)))


def _frames_at(
    timeline: FrameTimeline, clip: ClipConfig, starts_seconds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Frames, int64 [N, L], of the clips that start at the given times."""
    if timeline.is_variable:
        times = starts_seconds[:, None] + np.arange(clip.length) / clip.frame_rate
        return _frames_shown(timeline, times * float(1 / timeline.time_base) + _TICK_TOLERANCE)
    # read_video multiplies by the inverse time base in floating point, without a tolerance.
    first = _frames_shown(timeline, starts_seconds * float(1 / timeline.time_base))
    step = float(timeline.frame_rate) / clip.frame_rate
    offsets = (
        np.arange(clip.length, dtype=np.int64) * int(step)
        if step.is_integer()
        else _resampled(clip.length, step)
    )
    wanted = first[:, None] + offsets
    return wanted.clip(max=timeline.num_frames - 1)


def _frames_shown(timeline: FrameTimeline, ticks: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the last frame that is not later than each time; the first one before it."""
    offsets = timeline.pts - timeline.pts[0]
    shown = np.searchsorted(offsets, np.floor(ticks).astype(np.int64), side="right") - 1
    return np.asarray(shown, dtype=np.int64).clip(min=0)


def _resampled(count: int, step: float) -> NDArray[np.int64]:
    """Positions floor(i * step), in float32 as the released code computes them with torch."""
    positions = np.arange(count, dtype=np.float32) * np.float32(step)
    return np.asarray(np.floor(positions), dtype=np.int64)
