from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.video import released_code
from tsp_core.config import ClipConfig
from tsp_core.video.sampling import (
    FrameTimeline,
    clip_frames,
    clip_grid,
    sampled_frames,
    timeline_from_row,
)

RATES = [
    *("10", "12.5", "15", "19.62", "24000/1001", "24", "25", "28"),
    *("30000/1001", "30", "50", "60000/1001", "60", "10900/439"),
]
TIME_BASES = [None, Fraction(1, 90000), Fraction(1, 1000), Fraction(1, 30000), Fraction(1, 12800)]


def constant(rate: Fraction, num_frames: int, time_base: Fraction | None, first: int = 0):
    """A timeline as a container with this time base (None: one tick per frame) would hold it."""
    time_base = time_base or 1 / rate
    pts = np.array([round(i / rate / time_base) for i in range(num_frames)], dtype=np.int64)
    return FrameTimeline(pts=pts + first, time_base=time_base, frame_rate=rate, is_variable=False)


def variable(seconds: list[float], time_base: Fraction = Fraction(1, 1000)) -> FrameTimeline:
    pts = np.array([round(s / time_base) for s in seconds], dtype=np.int64)
    rate = Fraction(len(pts) - 1, int(pts[-1] - pts[0])) / time_base
    return FrameTimeline(pts=pts, time_base=time_base, frame_rate=rate, is_variable=True)


@pytest.mark.parametrize("time_base", TIME_BASES, ids=str)
@pytest.mark.parametrize("rate", RATES)
def test_constant_rates_give_the_released_codes_frames(rate, time_base):
    rate = Fraction(rate)
    for num_frames in (31, 222):
        timeline = constant(rate, num_frames, time_base)
        pts = timeline.pts.tolist()
        for length, frame_rate, stride in (
            (16, 15.0, 16),
            (16, 15.0, 5),
            (8, 10.0, 1),
            (4, 7.5, 3),
        ):
            clip = ClipConfig(length=length, frame_rate=frame_rate)
            grid = clip_grid(timeline, clip, stride)
            fps = float(rate)
            starts = released_code.clip_starts(num_frames, fps, frame_rate, length, stride)
            if not starts:
                assert grid.is_padded.tolist() == [True]
                continue
            assert grid.starts_seconds.tolist() == starts
            for frames, start in zip(grid.frame_indices.tolist(), starts, strict=True):
                expected = released_code.clip(
                    pts, timeline.time_base, fps, frame_rate, length, start
                )
                # Where the released code stops for want of a last frame, the last is repeated.
                assert len(expected) == length or frames[-1] == num_frames - 1
                assert frames == expected + [num_frames - 1] * (length - len(expected))


@pytest.mark.parametrize("rate", RATES)
def test_clips_at_any_time_follow_the_released_training_rule(rate):
    timeline = constant(Fraction(rate), 300, Fraction(1, 90000))
    clip = ClipConfig()
    last_start = timeline.duration_seconds - clip.seconds
    for start in np.random.default_rng(0).uniform(0, last_start, 50):
        expected = released_code.clip(
            timeline.pts.tolist(), timeline.time_base, float(Fraction(rate)), 15.0, 16, start
        )
        frames = clip_frames(timeline, clip, start).tolist()
        assert frames[: len(expected)] == expected
        assert len(expected) >= 15


def test_rounding_below_a_timestamp_shifts_a_clip_as_in_the_released_code():
    # At 30000/1001 fps with one tick per frame, some start times times the inverse time base fall
    # just below the frame they stand for, and read_video then begins one frame earlier.
    timeline = constant(Fraction(30000, 1001), 1000, None)
    grid = clip_grid(timeline, ClipConfig(), 1)
    meant = np.round(grid.starts_seconds * 30000 / 1001).astype(int)
    shifts = meant - grid.frame_indices[:, 0]
    assert set(shifts.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("rate", "num_frames", "stride", "num_clips"),
    [(30, 420, 16, 13), (30, 420, 4, 49), (28, 280, 16, 9)],
)
def test_number_of_clips_of_the_reference_videos(rate, num_frames, stride, num_clips):
    assert (
        len(clip_grid(constant(Fraction(rate), num_frames, None), ClipConfig(), stride))
        == num_clips
    )


def test_long_videos_keep_the_released_codes_float32_positions():
    rate = Fraction(30000, 1001)
    num_frames = 3_000_000
    timeline = FrameTimeline(
        pts=np.arange(num_frames, dtype=np.int64),
        time_base=1 / rate,
        frame_rate=rate,
        is_variable=False,
    )
    grid = clip_grid(timeline, ClipConfig(), 100_000)
    starts = released_code.clip_starts(num_frames, float(rate), 15.0, 16, 100_000)
    assert grid.starts_seconds.tolist() == starts


@pytest.mark.parametrize("is_variable", [False, True])
def test_times_count_from_the_first_frame(is_variable):
    clip = ClipConfig(length=4)
    plain, shifted = (constant(Fraction(25), 60, Fraction(1, 90000), first) for first in (0, -7777))
    if is_variable:
        plain, shifted = (
            FrameTimeline(
                pts=timeline.pts,
                time_base=timeline.time_base,
                frame_rate=Fraction(25),
                is_variable=True,
            )
            for timeline in (plain, shifted)
        )
    for stride in (1, 4):
        one, other = clip_grid(plain, clip, stride), clip_grid(shifted, clip, stride)
        assert np.array_equal(one.frame_indices, other.frame_indices)
        assert np.array_equal(one.starts_seconds, other.starts_seconds)
    assert clip_frames(shifted, clip, 0.5).tolist() == clip_frames(plain, clip, 0.5).tolist()


def test_variable_rates_show_the_frame_that_is_on_screen():
    rng = np.random.default_rng(1)
    seconds = np.cumsum(rng.choice([0.02, 0.033, 0.1, 0.5], 200)).round(3)
    timeline = variable(seconds.tolist())
    clip = ClipConfig(length=8, frame_rate=10)
    grid = clip_grid(timeline, clip, 3)
    elapsed = seconds - seconds[0]
    for number, frames in enumerate(grid.frame_indices):
        start = number * 3 / 10
        assert grid.starts_seconds[number] == pytest.approx(start)
        for position, frame in enumerate(frames):
            shown = max(i for i in range(200) if elapsed[i] <= start + position / 10 + 1e-9)
            assert frame == shown
    assert grid.ends_seconds[-1] <= timeline.duration_seconds + 1e-9
    assert grid.ends_seconds[-1] + 0.3 > timeline.duration_seconds
    assert not grid.is_padded.any()


@pytest.mark.parametrize(
    ("seconds", "duration"),
    [
        ([0, 0.04, 10], 11),  # a mean of 5 s
        ([0, 3, 6, 9, 90], 93),  # slides, most of them shown for 3 s
        ([0, 20, 21, 42, 63], 63 + 63 / 4),  # most are shown longer than the mean
        ([0, 0.1, 0.2, 1.0], 1.0 + 1 / 3),  # of ordinary rates the mean counts
    ],
)
def test_the_last_frame_of_a_slow_variable_rate_is_not_shown_for_the_mean(seconds, duration):
    timeline = variable(seconds)
    assert timeline.duration_seconds == pytest.approx(duration)
    clip = ClipConfig(length=2)
    assert clip_grid(timeline, clip, 1).ends_seconds[-1] <= duration + 1e-9
    assert len(sampled_frames(timeline, clip)) == int(timeline.exact_duration * 15)


def test_evenly_spaced_frames_are_sampled_alike_by_either_rule_up_to_one_frame():
    even = constant(Fraction(25), 250, Fraction(1, 1000))
    uneven = FrameTimeline(
        pts=even.pts, time_base=even.time_base, frame_rate=even.frame_rate, is_variable=True
    )
    clip = ClipConfig()
    one, other = (clip_grid(timeline, clip, 16) for timeline in (even, uneven))
    assert one.frame_indices.shape == other.frame_indices.shape
    assert np.abs(one.frame_indices - other.frame_indices).max() <= 1


@pytest.mark.parametrize("is_variable", [False, True])
def test_a_video_shorter_than_a_clip_gives_one_padded_clip(is_variable):
    timeline = FrameTimeline(
        pts=np.arange(5),
        time_base=Fraction(1, 30),
        frame_rate=Fraction(30),
        is_variable=is_variable,
    )
    grid = clip_grid(timeline, ClipConfig(), 16)
    assert grid.frame_indices.tolist() == [[0, 2] + [4] * 14]
    assert grid.is_padded.tolist() == [True]
    assert (grid.starts_seconds[0], grid.ends_seconds[0]) == (0.0, pytest.approx(16 / 15))


def test_one_frame_fills_a_clip():
    timeline = FrameTimeline(
        pts=np.array([7]), time_base=Fraction(1, 30), frame_rate=Fraction(30), is_variable=False
    )
    assert clip_grid(timeline, ClipConfig(length=3), 1).frame_indices.tolist() == [[0, 0, 0]]


def test_clips_that_begin_outside_the_video_are_clamped():
    timeline = constant(Fraction(30), 60, None)
    clip = ClipConfig(length=3)
    assert clip_frames(timeline, clip, -1.0).tolist() == [0, 2, 4]
    assert clip_frames(timeline, clip, 9.0).tolist() == [59, 59, 59]


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_below_one_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride: expected at least 1, got {stride}"):
        clip_grid(constant(Fraction(30), 60, None), ClipConfig(), stride)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pts": np.array([], dtype=np.int64)}, "at least one timestamp"),
        ({"pts": np.array([0, 2, 2])}, "strictly increasing"),
        ({"frame_rate": Fraction(0)}, "must be positive"),
        ({"time_base": Fraction(-1, 30)}, "must be positive"),
    ],
)
def test_impossible_timelines_are_refused(changes, message):
    fields = {"pts": np.arange(3), "time_base": Fraction(1, 30), "frame_rate": Fraction(30)}
    with pytest.raises(ValueError, match=message):
        FrameTimeline(**(fields | changes), is_variable=False)


def test_timelines_come_from_rows_of_the_videos_table():
    row = {"time_base_num": 1, "time_base_den": 90, "frame_rate_num": 30, "frame_rate_den": 1}
    row |= {"is_variable_rate": False, "num_frames": 3, "first_pts": 5, "has_unordered_pts": True}
    even = timeline_from_row(row | {"ticks_per_frame": 3, "pts": None})
    listed = timeline_from_row(row | {"ticks_per_frame": None, "pts": [5, 8, 11]})
    for timeline in (even, listed):
        assert timeline.pts.tolist() == [5, 8, 11]
        assert (timeline.time_base, timeline.frame_rate) == (Fraction(1, 90), Fraction(30))
        assert (timeline.is_variable, timeline.has_unordered_pts) == (False, True)
        assert timeline.duration_seconds == pytest.approx(0.1)
