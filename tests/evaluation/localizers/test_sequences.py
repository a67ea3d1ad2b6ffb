from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.detection.oracle import truth
from tests.evaluation.localizers.made_up import sequence
from tsp_core.evaluation.localizers.sequences import (
    ACTION,
    NO_ACTION,
    UNKNOWN,
    FeatureSequence,
    by_video,
    label_rows,
    label_videos,
    sequence_from_rows,
    stacked,
)
from tsp_core.features.rows import FeatureRows


def test_rows_and_seconds_are_each_other_undone():
    irregular = FeatureSequence(
        video="a",
        features=np.zeros((4, 1), dtype=np.float32),
        t_center=np.array([0.5, 1.0, 1.7, 2.0]),
        stride_seconds=0.5,
        duration_seconds=2.5,
    )
    assert irregular.rows_at(np.array([0.5, 0.75, 1.7])).tolist() == [0, 0.5, 2]
    assert irregular.rows_at(np.array([0.0, 2.5])).tolist() == [-1, 4]
    seconds = np.linspace(-1, 4, 23)
    assert np.allclose(irregular.seconds_at(irregular.rows_at(seconds)), seconds)


def test_exported_rows_keep_their_exact_times():
    starts = np.array([0.0, 0.52, 1.0])
    rows = FeatureRows(
        video="a",
        content_hash="0",
        features=np.zeros((3, 2), dtype=np.float32),
        starts_seconds=starts,
        ends_seconds=starts + 1.0,
        is_padded=np.zeros(3, dtype=bool),
    )
    found = sequence_from_rows(rows, stride_seconds=0.5, duration_seconds=2.0)
    assert found.t_center.tolist() == [0.5, 1.02, 1.5]
    assert (found.video, found.stride_seconds, found.duration_seconds) == ("a", 0.5, 2.0)


def test_rows_are_labelled_by_their_time_half_open():
    times = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    labels = label_rows(times, truth(("a", 3, 1, 3)), ambiguous=truth(("a", -1, 2, 5)))
    assert labels.label_indices.tolist() == [-1, 3, 3, -1, -1, -1]
    assert labels.regions.tolist() == [NO_ACTION, ACTION, ACTION, UNKNOWN, UNKNOWN, NO_ACTION]


def test_the_shortest_of_overlapping_actions_names_the_class():
    labels = label_rows(np.arange(4.0), truth(("a", 0, 1, 2), ("a", 1, 0, 4), ("a", 2, 0, 3)))
    assert labels.label_indices.tolist() == [2, 0, 2, 1]


def test_videos_are_split_and_stacked_by_name():
    instances = truth(("b", 0, 0, 1), ("a", 1, 0, 1), ("b", 2, 1, 2))
    assert by_video(instances)["b"].label_indices.tolist() == [0, 2]
    sequences = {name: sequence(name, np.full((4, 1), ord(name))) for name in "bac"}
    features, labels = stacked(sequences, label_videos(sequences, instances))
    assert features.ravel().tolist() == [97] * 4 + [98] * 4 + [99] * 4
    assert labels.label_indices.tolist() == [1, 1, -1, -1, 0, 0, 2, 2, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_center": np.array([0.5])}, r"features of 'a': shape \(2, 1\) for 1 times"),
        ({"t_center": np.array([0.5, 0.5])}, "must have a row and rise"),
        ({"stride_seconds": 0.0}, "stride_seconds 0.0 and duration_seconds 1.0 must be above 0"),
        ({"features": np.array([[0], [np.nan]], dtype=np.float32)}, "row 1 is not finite"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    whole = {
        "video": "a",
        "features": np.zeros((2, 1), dtype=np.float32),
        "t_center": np.array([0.25, 0.75]),
        "stride_seconds": 0.5,
        "duration_seconds": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        FeatureSequence(**{**whole, **change})
