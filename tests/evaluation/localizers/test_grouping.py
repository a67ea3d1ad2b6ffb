from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.detection.oracle import truth
from tsp_core.evaluation.detection.average_precision import mean_average_precision
from tsp_core.evaluation.localizers.grouping import (
    HeadSequence,
    group_rows,
    head_sequence,
    localize_by_heads,
)


def heads_of(probabilities, *, stride=1.0):
    probabilities = np.asarray(probabilities, dtype=np.float64)
    return HeadSequence(
        video="a",
        probabilities=probabilities,
        t_center=(np.arange(len(probabilities)) + 0.5) * stride,
        stride_seconds=stride,
        duration_seconds=len(probabilities) * stride,
    )


def test_groups_are_runs_above_each_level():
    values = np.array([0.1, 0.6, 0.9, 0.6, 0.1, 0.6])
    groups = group_rows(values, levels=(0.5, 0.8), tolerances=(1.0,))
    assert groups.tolist() == [[1, 4], [2, 3], [5, 6]]


def test_basins_are_joined_as_far_as_the_tolerance_allows():
    values = np.array([1, 1, 1, 0, 1, 0, 0, 0, 1], dtype=float)
    # 4 of the first 5 rows are above, 5 of all 9
    assert group_rows(values, levels=(0.5,), tolerances=(0.8,)).tolist() == [[0, 5], [4, 5], [8, 9]]
    assert [0, 9] in group_rows(values, levels=(0.5,), tolerances=(0.5,)).tolist()


def joined_one_by_one(values, level, tolerance):
    """Every basin, extended over those after it while the tolerance allows."""
    rows = np.flatnonzero(values >= level)
    basins = [
        (run[0], run[-1] + 1) for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    ]
    found = set()
    for number, (start, end) in enumerate(basins):
        above = end - start
        for other_start, other_end in basins[number + 1 :]:
            above += other_end - other_start
            if above < tolerance * (other_end - start):
                break
            end = other_end
        found.add((int(start), int(end)))
    return sorted(found)


@pytest.mark.parametrize("tolerance", [0.25, 0.5, 0.6, 0.75, 0.8, 1.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.7, 0.9])
def test_random_basins_are_joined_as_one_by_one(share, tolerance):
    draws = np.random.default_rng(0)
    for size in (1, 2, 5, 20, 100, 400):
        for _ in range(20):
            values = (draws.random(size) < share).astype(float)
            if values.any():
                found = group_rows(values, levels=(0.5,), tolerances=(tolerance,))
                assert [tuple(pair) for pair in found.tolist()] == joined_one_by_one(
                    values, 0.5, tolerance
                )


def test_joining_many_basins_looks_at_few_pairs():
    values = np.tile([1.0, 1.0, 1.0, 0.0], 50_000)  # every basin reaches to the end
    found = group_rows(values, levels=(0.5,), tolerances=(0.6,))
    assert found[0].tolist() == [0, 199_999]
    assert len(found) == 50_000


def test_nothing_above_gives_nothing():
    assert group_rows(np.zeros(5)).shape == (0, 2)
    assert len(localize_by_heads(heads_of(np.zeros((5, 2))))) == 0


def test_finds_actions_that_follow_one_another_without_a_gap():
    probabilities = np.full((20, 2), 0.02)
    probabilities[4:9, 0] = 0.9
    probabilities[9:15, 1] = 0.8
    detections = localize_by_heads(heads_of(probabilities))
    result = mean_average_precision(truth(("a", 0, 4, 9), ("a", 1, 9, 15)), detections)
    assert result.mean == 1
    # half rows, interpolated: 8 of 0.9 and 2 of 0.68 inside; of 3 on each side one is 0.24
    inside, around = (8 * 0.9 + 2 * 0.68) / 10, (0.24 + 2 * 0.02) / 3
    assert detections.scores[0] == pytest.approx(inside - around)


def test_boundaries_are_finer_than_rows():
    probabilities = np.array([[0.0], [0.0], [0.4], [1.0], [1.0], [0.4], [0.0], [0.0]])
    detections = localize_by_heads(heads_of(probabilities, stride=2.0))
    assert {(5.0, 11.0)} <= set(zip(detections.t_start, detections.t_end, strict=True))


def test_the_whole_of_an_action_scores_above_its_peak():
    probabilities = np.full((20, 1), 0.0)
    probabilities[4:12, 0] = [0.6, 0.7, 0.8, 0.95, 0.95, 0.8, 0.7, 0.6]
    best = localize_by_heads(heads_of(probabilities))
    assert (best.t_start[0], best.t_end[0]) == (4, 12)


def test_detections_stay_within_the_video():
    probabilities = np.ones((4, 1))
    short = HeadSequence(
        video="a",
        probabilities=probabilities,
        t_center=np.arange(4) + 0.1,
        stride_seconds=1.0,
        duration_seconds=3.3,
    )
    detections = localize_by_heads(short)
    assert (detections.t_start[0], detections.t_end[0]) == (0.0, 3.3)


def test_heads_are_joined_and_averaged_over_the_clips_that_cover_a_time():
    region = np.zeros((5, 2))  # actionness 1/2
    region[2, 0] = 100.0  # 1 at the middle row
    inputs = {
        "region_logits": region,
        "action_logits": np.zeros((5, 2)),
        "t_center": np.arange(5.0),
        "stride_seconds": 1.0,
        "duration_seconds": 5.0,
    }
    apart = head_sequence("a", clip_seconds=1.0, **inputs).probabilities
    assert np.allclose(apart[:, 0], [0.25, 0.25, 0.5, 0.25, 0.25])
    overlapping = head_sequence("a", clip_seconds=3.0, **inputs).probabilities
    assert np.allclose(overlapping[:, 0], [0.25, 1 / 3, 1 / 3, 1 / 3, 0.25])


def test_refuses_uneven_columns():
    with pytest.raises(ValueError, match="heads of 'a': 2 rows for 3 times"):
        HeadSequence(
            video="a",
            probabilities=np.zeros((2, 1)),
            t_center=np.arange(3.0),
            stride_seconds=1.0,
            duration_seconds=3.0,
        )
