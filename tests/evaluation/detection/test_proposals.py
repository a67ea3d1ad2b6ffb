from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.evaluation.detection.oracle import (
    found,
    rows_of_detections,
    rows_of_truth,
    slow_average_recall,
    truth,
)
from tsp_core.evaluation.detection.proposals import proposal_recall


def test_a_hand_computed_curve():
    # one video, two instances, 100 proposals of which the 10th and the 60th are right
    rows = [("a", 0, 200.0, 201.0, 1 - rank / 100) for rank in range(100)]
    rows[9] = ("a", 5, 0.0, 10.0, rows[9][4])  # of another class: classes do not count
    rows[59] = ("a", 0, 20.0, 28.0, rows[59][4])  # overlaps its instance by 0.8
    curve = proposal_recall(truth(("a", 0, 0, 10), ("a", 0, 20, 30)), found(*rows))
    assert curve.proposals_per_video.tolist() == pytest.approx(list(range(1, 101)))
    assert curve.at(9) == 0
    assert curve.at(10) == 0.5
    assert curve.at(59) == 0.5
    # the second one counts at 7 of the 10 thresholds, 0.5 to 0.8
    assert curve.at(60) == pytest.approx(0.5 + 0.5 * 0.7)
    # trapezoids from 1 to 100: steps of 0.5 between 9 and 10, of 0.35 between 59 and 60
    area = (0.5 * (100 - 10 + 0.5) + 0.35 * (100 - 60 + 0.5)) / 100
    assert curve.area == pytest.approx(area)


def test_videos_keep_the_same_share_of_their_proposals():
    # 300 proposals and a budget of 2 * 100: each video keeps two thirds, the best ones
    rows = [("a", 0, 50, 60, 1 - i / 1000) for i in range(270)]
    rows += [("b", 0, 50, 60, 1 - i / 1000) for i in range(30)]
    rows[179] = ("a", 0, 0, 10, rows[179][4])  # the last that "a" keeps
    rows[270 + 20] = ("b", 0, 0, 10, rows[270 + 20][4])  # the first that "b" drops
    curve = proposal_recall(truth(("a", 0, 0, 10), ("b", 0, 0, 10)), found(*rows))
    assert curve.at(100) == 0.5
    assert curve.at(99) == 0


def test_one_proposal_may_recall_several_instances():
    rows = [("a", 0, 0, 10, 1.0)] + [("a", 0, 50, 60, 0.1)] * 99
    curve = proposal_recall(truth(("a", 0, 0, 10), ("a", 1, 0, 10)), found(*rows))
    assert curve.at(1) == 1
    assert curve.area == pytest.approx(0.99)


def test_few_proposals_are_all_kept_at_a_share_of_the_budget():
    # one proposal on average for a budget of 100: the whole set counts from the first point on
    curve = proposal_recall(truth(("a", 0, 0, 10)), found(("a", 0, 0, 10, 1.0)))
    assert curve.at(1) == 1


def test_videos_without_proposals_and_no_proposals_at_all():
    instances = truth(("a", 0, 0, 10), ("b", 0, 0, 10))
    assert proposal_recall(instances, found(("a", 0, 0, 10, 1.0))).at(100) == 0.5
    nothing = proposal_recall(instances, found())
    assert nothing.area == 0
    assert nothing.proposals_per_video[-1] == 100


def test_json_has_the_usual_numbers():
    values = proposal_recall(truth(("a", 0, 0, 10)), found(("a", 0, 0, 10, 1.0))).as_json()
    assert values["area"] == pytest.approx(0.99)
    assert values["average_recall"] == dict.fromkeys(("1", "5", "10", "50", "100"), 1.0)


@given(instances=rows_of_truth.filter(bool), proposals=rows_of_detections)
@settings(max_examples=80, deadline=None)
def test_agrees_with_the_slow_restatement(instances, proposals):
    thresholds = (0.4, 0.8)
    curve = proposal_recall(
        truth(*instances), found(*proposals), tiou_thresholds=thresholds, max_proposals_per_video=7
    )
    slow = slow_average_recall(instances, proposals, thresholds, 7)
    assert np.allclose(curve.average_recall, slow, atol=1e-12)


def test_refusals():
    instances = truth(("a", 0, 0, 10))
    with pytest.raises(ValueError, match="ground_truth: no instances"):
        proposal_recall(truth(), found())
    with pytest.raises(ValueError, match="max_proposals_per_video: 0; give more than 0"):
        proposal_recall(instances, found(), max_proposals_per_video=0)
    with pytest.raises(ValueError, match="101; the curve goes from 1 to 100"):
        proposal_recall(instances, found()).at(101)
