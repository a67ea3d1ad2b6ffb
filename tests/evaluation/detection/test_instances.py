from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.detection.oracle import found, truth
from tsp_core.evaluation.detection.instances import (
    concatenate,
    detections_from_table,
    detections_table,
    instances_from_segments,
    tiou_matrix,
    without_duplicates,
)
from tsp_core.schemas import DETECTIONS, SEGMENTS, read_table, table_from_rows, write_table


def test_detections_survive_a_file(tmp_path):
    detections = found(("a", 1, 0.5, 2.25, 0.125), ("b", 0, 1, 2, 0.5))
    path = str(tmp_path / "detections.parquet")
    write_table(path, detections_table(detections, localizer="heads"), DETECTIONS)
    back = detections_from_table(read_table(path, "detections"), localizer="heads")
    for name in ("videos", "label_indices", "t_start", "t_end", "scores"):
        assert getattr(back, name).tolist() == getattr(detections, name).tolist()


def test_no_detections_survive_a_table():
    table = detections_table(concatenate([]), localizer="heads")
    assert len(detections_from_table(table, localizer="heads")) == 0


def test_concatenate_keeps_the_order():
    joined = concatenate([found(("b", 0, 0, 1, 0.1)), found(), found(("a", 0, 0, 1, 0.9))])
    assert joined.videos.tolist() == ["b", "a"]


def test_instances_are_those_of_the_subset_and_kind():
    rows = [
        {"video": "a", "subset": "validation", "kind": "action", "label_index": 2, "t_end": 4.0},
        {"video": "b", "subset": "training", "kind": "action", "label_index": 1, "t_end": 4.0},
        {"video": "c", "subset": "validation", "kind": "ambiguous", "label_index": -1, "t_end": 1},
        {"video": "d", "subset": "validation", "kind": "action", "label_index": 0, "t_end": 0.0},
    ]
    segments = table_from_rows([{**row, "t_start": 0.0} for row in rows], SEGMENTS)
    actions = instances_from_segments(segments, subset="validation")
    assert (actions.videos.tolist(), actions.label_indices.tolist()) == (["a"], [2])
    ambiguous = instances_from_segments(segments, subset="validation", kind="ambiguous")
    assert ambiguous.videos.tolist() == ["c"]
    assert len(instances_from_segments(segments, subset="testing")) == 0


def test_duplicates_are_the_same_class_and_times_within_a_millisecond():
    instances = truth(
        ("a", 0, 0, 10), ("a", 0, 0.0009, 10), ("a", 1, 0, 10), ("b", 0, 0, 10), ("a", 0, 0, 10.01)
    )
    kept = without_duplicates(instances)
    assert kept.t_end.tolist() == [10, 10, 10, 10.01]
    assert kept.label_indices.tolist() == [0, 1, 0, 0]
    assert len(without_duplicates(truth())) == 0


def test_tiou_by_hand():
    starts, ends = np.array([0.0, 5.0]), np.array([10.0, 5.0])
    others = np.array([5.0, 10.0, 0.0]), np.array([15.0, 20.0, 10.0])
    assert tiou_matrix(starts, ends, *others).tolist() == [[1 / 3, 0, 1], [0, 0, 0]]


def test_refuses_what_is_not_finite_or_uneven():
    with pytest.raises(ValueError, match=r"scores\[1\]: nan for video 'b'; .* must be finite"):
        found(("a", 0, 0, 1, 0.5), ("b", 0, 0, 1, float("nan")))
    with pytest.raises(ValueError, match=r"t_end\[0\]: inf"):
        truth(("a", 0, 0, float("inf")))
    with pytest.raises(ValueError, match="columns differ in length"):
        type(truth())(
            videos=np.array(["a"], dtype=object),
            label_indices=np.zeros(2, dtype=np.int64),
            t_start=np.zeros(1),
            t_end=np.zeros(1),
        )
