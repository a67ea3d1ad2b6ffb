from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.evaluation.detection.oracle import (
    found,
    rows_of_detections,
    rows_of_truth,
    slow_average_precision,
    truth,
)
from tsp_core.evaluation.detection.average_precision import (
    ACTIVITYNET_TIOU,
    THUMOS14_TIOU,
    interpolated_area,
    mean_average_precision,
    precision_recall,
)
from tsp_core.evaluation.detection.matching import match


def score(instances, detections, *thresholds, **more):
    return mean_average_precision(
        instances, detections, tiou_thresholds=thresholds or (0.5,), **more
    )


def test_thresholds_are_those_of_the_protocols():
    assert np.allclose(ACTIVITYNET_TIOU, np.arange(50, 100, 5) / 100)
    assert np.allclose(THUMOS14_TIOU, [0.3, 0.4, 0.5, 0.6, 0.7])


def test_precision_is_interpolated_from_the_right():
    # points (recall, precision): (0.5, 1), (0.5, 0.5), (1, 2/3): 0.5 * 1 + 0.5 * 2/3
    assert interpolated_area(np.array([1, 0.5, 2 / 3]), np.array([0.5, 0.5, 1.0])) == pytest.approx(
        5 / 6
    )
    # a first wrong detection: 0.5 * 2/3 + 0.5 * 2/3, since precision 2/3 comes at a higher recall
    assert interpolated_area(
        np.array([0.0, 0.5, 2 / 3]), np.array([0.0, 0.5, 1.0])
    ) == pytest.approx(2 / 3)
    # recall that is never reached adds nothing
    assert interpolated_area(np.array([1.0]), np.array([0.25])) == 0.25
    assert interpolated_area(np.array([]), np.array([])) == 0.0


def test_perfect_detections_score_one_at_every_threshold():
    instances = truth(("a", 0, 0, 4), ("a", 1, 2, 3), ("b", 0, 5, 9))
    detections = found(("a", 0, 0, 4, 0.3), ("a", 1, 2, 3, 0.2), ("b", 0, 5, 9, 0.1))
    result = mean_average_precision(instances, detections)
    assert (result.values == 1).all()
    assert result.mean == 1
    assert result.label_indices.tolist() == [0, 1]
    assert result.num_instances.tolist() == [2, 1]


def test_an_instance_is_matched_once():
    # the second detection of the instance is wrong: precision 1, 1/2, and 2/3 at full recall
    instances = truth(("a", 0, 0, 10), ("a", 0, 20, 30))
    detections = found(("a", 0, 0, 10, 0.9), ("a", 0, 0, 10, 0.8), ("a", 0, 20, 30, 0.7))
    assert score(instances, detections).mean == pytest.approx(5 / 6)


def test_a_detection_whose_best_instance_is_taken_tries_the_next():
    # both instances overlap the second detection by 0.5 or more: it takes the one that is free
    instances = truth(("a", 0, 0, 10), ("a", 0, 2, 12))
    detections = found(("a", 0, 0, 10, 0.9), ("a", 0, 1, 10, 0.8))
    matches = match(instances, detections, (0.5,))
    assert matches.matched.tolist() == [[0, 1]]
    assert score(instances, detections).mean == 1


def test_a_detection_takes_the_instance_that_it_overlaps_most():
    instances = truth(("a", 0, 0, 10), ("a", 0, 1, 10))
    assert match(instances, found(("a", 0, 1, 10, 0.9)), (0.5,)).matched.tolist() == [[1]]


def test_the_threshold_itself_counts():
    instances = truth(("a", 0, 0, 10))
    assert score(instances, found(("a", 0, 0, 5, 1.0)), 0.5).mean == 1
    assert score(instances, found(("a", 0, 0, 5, 1.0)), 0.5, 0.55).values.tolist() == [[1], [0]]


def test_matching_is_done_anew_at_every_threshold():
    # at 0.5 the surer detection takes the instance; at 0.9 it is too far off, and the other gets it
    instances = truth(("a", 0, 0, 10))
    detections = found(("a", 0, 0, 6, 0.9), ("a", 0, 0, 10, 0.8))
    assert match(instances, detections, (0.5, 0.9)).matched.tolist() == [[0, -1], [-1, 0]]
    assert score(instances, detections, 0.5, 0.9).values.ravel().tolist() == [1.0, 0.5]


def test_of_equal_scores_the_later_row_goes_first():
    instances = truth(("a", 0, 0, 10))
    wrong, right = ("a", 0, 50, 60, 0.5), ("a", 0, 0, 10, 0.5)
    assert score(instances, found(wrong, right)).mean == 1
    assert score(instances, found(right, wrong)).mean == 0.5


def test_of_equal_overlaps_the_later_instance_is_taken():
    instances = truth(("a", 0, 0, 10), ("a", 0, 0, 10))
    detections = found(("a", 0, 0, 10, 0.9), ("a", 0, 0, 10, 0.8), ("a", 0, 0, 10, 0.7))
    assert match(instances, detections, (0.5,)).matched.tolist() == [[1, 0, -1]]


def test_classes_and_videos_do_not_mix():
    instances = truth(("a", 0, 0, 10), ("b", 1, 0, 10))
    assert score(instances, found(("a", 1, 0, 10, 1.0), ("b", 0, 0, 10, 1.0))).mean == 0


def test_detections_in_videos_without_ground_truth_are_wrong():
    instances = truth(("a", 0, 0, 10))
    detections = found(("nowhere", 0, 0, 10, 0.9), ("a", 0, 0, 10, 0.8))
    assert score(instances, detections).mean == 0.5


def test_classes_without_ground_truth_do_not_count():
    instances = truth(("a", 0, 0, 10))
    detections = found(("a", 0, 0, 10, 0.5), ("a", 7, 0, 10, 0.9))
    result = score(instances, detections)
    assert result.label_indices.tolist() == [0]
    assert result.mean == 1


def test_a_class_without_detections_scores_zero():
    result = score(truth(("a", 0, 0, 10), ("a", 3, 0, 10)), found(("a", 0, 0, 10, 1.0)))
    assert result.values.tolist() == [[1.0, 0.0]]
    assert result.mean == 0.5


def test_no_detections_score_zero():
    assert mean_average_precision(truth(("a", 0, 0, 10)), found()).mean == 0


def test_empty_segments_match_nothing():
    assert score(truth(("a", 0, 5, 5), ("a", 0, 0, 1)), found(("a", 0, 5, 5, 1.0))).mean == 0


def test_false_positives_on_ambiguous_segments_do_not_count():
    instances = truth(("a", 0, 0, 10), ("b", 0, 0, 10))
    detections = found(("a", 0, 20, 30, 0.9), ("a", 0, 0, 10, 0.8), ("b", 0, 0, 10, 0.7))
    ambiguous = truth(("a", -1, 29, 40))
    assert score(instances, detections).mean == pytest.approx(2 / 3)
    assert score(instances, detections, ambiguous=ambiguous).mean == 1
    # touching at a point is no overlap, and another video's ambiguity does not matter
    for elsewhere in (truth(("a", -1, 30, 40)), truth(("b", -1, 20, 30))):
        assert score(instances, detections, ambiguous=elsewhere).mean == pytest.approx(2 / 3)


def test_in_a_video_with_ambiguous_segments_alone_only_what_touches_them_does_not_count():
    # as TH14eventdetpr.m: all videos of the detections are gone through
    instances, ambiguous = truth(("a", 0, 0, 10)), truth(("b", -1, 20, 30))
    right = ("a", 0, 0, 10, 0.5)
    touching = found(("b", 0, 25, 40, 0.9), right)
    apart = found(("b", 0, 50, 60, 0.9), right)
    assert score(instances, touching, ambiguous=ambiguous).mean == 1
    assert score(instances, apart, ambiguous=ambiguous).mean == pytest.approx(1 / 2)


def test_true_positives_on_ambiguous_segments_count():
    instances, detections = truth(("a", 0, 0, 10)), found(("a", 0, 0, 10, 1.0))
    assert score(instances, detections, ambiguous=truth(("a", -1, 0, 10))).mean == 1


def test_the_curve_has_a_point_per_counted_detection():
    instances = truth(("a", 0, 0, 10), ("a", 0, 20, 30))
    detections = found(("a", 0, 0, 10, 0.9), ("a", 0, 50, 60, 0.8), ("a", 0, 20, 30, 0.7))
    curve = precision_recall(match(instances, detections, (0.5,)), 0, threshold_index=0)
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.recall.tolist() == [0.5, 0.5, 1.0]
    assert curve.scores.tolist() == [0.9, 0.8, 0.7]


def test_json_names_thresholds_and_classes():
    values = score(truth(("a", 2, 0, 10)), found(("a", 2, 0, 8, 1.0)), 0.5, 0.95).as_json()
    assert values == {
        "average_map": 0.5,
        "map_by_tiou": {"0.50": 1.0, "0.95": 0.0},
        "average_ap_by_class": {"2": 0.5},
    }


@given(instances=rows_of_truth.filter(bool), detections=rows_of_detections)
@settings(max_examples=150, deadline=None)
def test_agrees_with_the_slow_restatement(instances, detections):
    thresholds = (0.3, 0.5, 0.75)
    result = mean_average_precision(
        truth(*instances), found(*detections), tiou_thresholds=thresholds
    )
    slow = [
        [slow_average_precision(instances, detections, label, threshold) for label in labels]
        for labels in [sorted({row[1] for row in instances})]
        for threshold in thresholds
    ]
    assert np.allclose(result.values, slow, atol=1e-12)


@pytest.mark.parametrize("thresholds", [(), (0.0, 0.5), (0.5, 1.5)])
def test_refuses_thresholds_outside(thresholds):
    with pytest.raises(ValueError, match=r"tiou_thresholds: .* give thresholds in \(0, 1\]"):
        match(truth(("a", 0, 0, 1)), found(), thresholds)


def test_refuses_no_ground_truth():
    with pytest.raises(ValueError, match="ground_truth: no instances"):
        mean_average_precision(truth(), found(("a", 0, 0, 1, 1.0)))
