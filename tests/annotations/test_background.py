from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsp_core.annotations.background import background_segments

Intervals = list[tuple[float, float]]


def intervals(*, overlapping: bool = True) -> st.SearchStrategy[Intervals]:
    """Actions in tenths of a second, some beyond the end of a video of 60 s."""
    times = st.integers(-20, 700)
    if overlapping:
        pair = st.tuples(times, st.integers(0, 200)).map(lambda p: (p[0] / 10, (p[0] + p[1]) / 10))
        return st.lists(pair, min_size=1, max_size=12)
    bounds = st.lists(times, min_size=2, max_size=24, unique=True).map(sorted)
    return bounds.map(lambda b: [(b[i] / 10, b[i + 1] / 10) for i in range(0, len(b) - 1, 2)])


def covered(spans: Intervals, time: float) -> bool:
    return any(start <= time < end for start, end in spans)


@settings(max_examples=150, deadline=None)
@given(intervals(), st.sampled_from([0.0, 0.3, 60.0]))
def test_actions_and_gaps_part_the_video(actions: Intervals, min_seconds: float) -> None:
    gaps = background_segments(actions, 60.0, min_seconds=min_seconds)
    moments = [0.05 + step / 10 for step in range(600)]
    assert not any(covered(actions, time) and covered(gaps, time) for time in moments)
    if min_seconds == 0.0:
        assert all(covered(actions, time) or covered(gaps, time) for time in moments)
    assert all(end - start >= min_seconds - 1e-9 for start, end in gaps)
    assert gaps == sorted(gaps)


@settings(max_examples=100, deadline=None)
@given(intervals(overlapping=False), st.floats(0, 10))
def test_modes_agree_where_no_actions_overlap(actions: Intervals, min_seconds: float) -> None:
    assert background_segments(actions, 60.0, min_seconds=min_seconds) == background_segments(
        actions, 60.0, min_seconds=min_seconds, official=True
    )


@settings(max_examples=100, deadline=None)
@given(intervals(), st.floats(0, 10))
def test_the_official_gaps_contain_the_true_ones(actions: Intervals, min_seconds: float) -> None:
    true = background_segments(actions, 60.0, min_seconds=min_seconds)
    official = background_segments(actions, 60.0, min_seconds=min_seconds, official=True)
    for start, end in true:
        assert any(first <= start and end <= last for first, last in official)


@pytest.mark.parametrize(
    ("actions", "true", "official"),
    [
        ([], [], []),
        ([(2.0, 4.0)], [(0.0, 2.0), (4.0, 10.0)], [(0.0, 2.0), (4.0, 10.0)]),
        # an action inside a longer one: the released gap opens inside the longer one
        ([(0.0, 8.0), (1.0, 2.0)], [(8.0, 10.0)], [(2.0, 10.0)]),
        # starting together: the order of the annotations decides in the official mode
        ([(1.0, 6.0), (1.0, 3.0)], [(0.0, 1.0), (6.0, 10.0)], [(0.0, 1.0), (3.0, 10.0)]),
        ([(1.0, 3.0), (1.0, 6.0)], [(0.0, 1.0), (6.0, 10.0)], [(0.0, 1.0), (6.0, 10.0)]),
        # beyond the video: nothing after the end, but a gap that a later action closes stays
        ([(4.0, 12.0)], [(0.0, 4.0)], [(0.0, 4.0)]),
        ([(4.0, 8.0), (11.0, 12.0)], [(0.0, 4.0), (8.0, 11.0)], [(0.0, 4.0), (8.0, 11.0)]),
        # before the video, and an empty action, which parts the gap
        ([(-3.0, -1.0), (4.0, 5.0)], [(0.0, 4.0), (5.0, 10.0)], [(0.0, 4.0), (5.0, 10.0)]),
        ([(4.0, 4.0)], [(0.0, 4.0), (4.0, 10.0)], [(0.0, 4.0), (4.0, 10.0)]),
    ],
)
def test_by_hand(actions: Intervals, true: Intervals, official: Intervals) -> None:
    assert background_segments(actions, 10.0, min_seconds=0.5) == true
    assert background_segments(actions, 10.0, min_seconds=0.5, official=True) == official


@pytest.mark.parametrize("end", [8.0, 8.9, 47.3, 65.6])
def test_a_gap_of_exactly_the_least_length_counts(end: float) -> None:
    duration = end + 16 / 15
    for rounded in (duration, round(duration, 12), duration - 1e-12):
        gaps = background_segments([(0.0, end)], rounded, min_seconds=16 / 15)
        assert gaps == [(end, rounded)]
    assert background_segments([(0.0, end)], duration - 1e-3, min_seconds=16 / 15) == []
