from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.detection.oracle import found, rows_of_detections, tiou
from tsp_core.evaluation.localizers.suppression import soft_nms


def test_by_hand():
    kept = soft_nms(
        found(
            ("a", 0, 0, 10, 0.8), ("a", 0, 0, 5, 0.6), ("a", 1, 0, 10, 0.5), ("a", 0, 20, 30, 0.4)
        )
    )
    assert kept.label_indices.tolist() == [0, 1, 0, 0]
    assert kept.t_end.tolist() == [10, 10, 30, 5]
    assert kept.scores.tolist() == pytest.approx([0.8, 0.5, 0.4, 0.6 * math.exp(-(0.5**2) / 0.5)])


def test_drops_what_falls_below_and_what_is_too_many():
    rows = [("a", 0, 0, 10, 0.9), ("a", 0, 0, 10, 0.8), ("a", 0, 20, 30, 0.3)]
    assert soft_nms(found(*rows), min_score=0.2).scores.tolist() == [0.9, 0.3]
    assert soft_nms(found(*rows), max_detections=1).scores.tolist() == [0.9]
    assert len(soft_nms(found())) == 0


@given(rows=rows_of_detections, limit=st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_agrees_with_class_by_class(rows, limit):
    rows = [("a", *row[1:]) for row in rows]
    expected = []
    for label in {row[1] for row in rows}:
        left = [list(row) for row in rows if row[1] == label]
        while left:
            best = max(left, key=lambda row: row[4])
            left.remove(best)
            expected.append(best[4])
            for row in left:
                row[4] *= math.exp(-(tiou((best[2], best[3]), (row[2], row[3])) ** 2) / 0.5)
    expected = [score for score in sorted(expected, reverse=True) if score >= 1e-3][:limit]
    assert np.allclose(soft_nms(found(*rows), max_detections=limit).scores, expected)
