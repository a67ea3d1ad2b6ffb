from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.detection.oracle import found, truth
from tsp_core.evaluation.detection.breakdown import (
    ACTIVITYNET_COVERAGE,
    ACTIVITYNET_SECONDS,
    THUMOS14_SECONDS,
    LengthBins,
    breakdown_by_length,
    quantile_bins,
)
from tsp_core.evaluation.detection.matching import match

TWO_BINS = LengthBins(measure="seconds", edges=(0, 10, np.inf), labels=("short", "long"))


def test_a_bin_leaves_out_what_is_matched_elsewhere():
    # class 0: one short and one long instance, both found; the wrong detection counts in both bins
    instances = truth(("a", 0, 0, 5), ("a", 0, 20, 50))
    detections = found(("a", 0, 20, 50, 0.9), ("a", 0, 80, 90, 0.8), ("a", 0, 0, 5, 0.7))
    short, long = breakdown_by_length(
        match(instances, detections, (0.5,)), TWO_BINS, durations_seconds={}, normalised=False
    )
    assert (short.num_instances, long.num_instances) == (1, 1)
    assert short.average_map == pytest.approx(1 / 2)  # wrong, right
    assert long.average_map == pytest.approx(1.0)  # right, wrong
    assert (short.recall, long.recall) == (1.0, 1.0)


def test_normalised_precision_uses_the_average_class():
    # 3 instances in 1 class: N = 3. The short bin sees wrong, right:
    # recall 1 of 1, precision 1 * 3 / (1 * 3 + 1)
    instances = truth(("a", 0, 0, 5), ("a", 0, 20, 50), ("b", 0, 20, 50))
    detections = found(("a", 0, 80, 90, 0.8), ("a", 0, 0, 5, 0.7))
    matches = match(instances, detections, (0.5,))
    short, long = breakdown_by_length(matches, TWO_BINS, durations_seconds={})
    assert short.average_map == pytest.approx(3 / 4)
    assert (long.average_map, long.recall) == (0, 0)


def test_a_match_elsewhere_at_any_threshold_removes_a_detection_everywhere():
    # at 0.3 the detection is matched to the long instance, at 0.9 to none: yet it is no false
    # positive of the short bin at 0.9
    instances = truth(("a", 0, 0, 5), ("a", 0, 20, 50))
    detections = found(("a", 0, 20, 40, 0.9), ("a", 0, 0, 5, 0.7))
    short, _ = breakdown_by_length(
        match(instances, detections, (0.3, 0.9)), TWO_BINS, durations_seconds={}
    )
    assert short.average_map == 1


def test_classes_without_instances_in_a_bin_are_left_out():
    instances = truth(("a", 0, 0, 5), ("a", 1, 20, 50))
    short, long = breakdown_by_length(
        match(instances, found(("a", 0, 0, 5, 0.5)), (0.5,)), TWO_BINS, durations_seconds={}
    )
    assert (short.average_map, long.average_map) == (1, 0)


def test_bins_include_their_upper_edge():
    lengths = [30, 30.001, 60, 120, 180, 181]
    instances = truth(*[("a", 0, 0, length) for length in lengths])
    scores = breakdown_by_length(
        match(instances, found(), (0.5,)), ACTIVITYNET_SECONDS, durations_seconds={}
    )
    assert [(score.label, score.num_instances) for score in scores] == [
        ("XS", 1), ("S", 2), ("M", 1), ("L", 1), ("XL", 1),
    ]  # fmt: skip


def test_coverage_is_a_share_of_the_video_and_at_most_one():
    instances = truth(("a", 0, 0, 20), ("a", 0, 0, 20.1), ("b", 0, 0, 20.5), ("b", 0, 0, 10))
    scores = breakdown_by_length(
        match(instances, found(), (0.5,)),
        ACTIVITYNET_COVERAGE,
        durations_seconds={"a": 100.0, "b": 20.0},
    )
    assert [score.num_instances for score in scores] == [1, 1, 1, 0, 1]
    assert scores[3].average_map is None
    assert scores[3].recall is None


def test_false_positives_on_ambiguous_segments_do_not_count():
    instances = truth(("a", 0, 0, 5))
    detections = found(("a", 0, 80, 90, 0.8), ("a", 0, 0, 5, 0.7))
    matches = match(instances, detections, (0.5,), ambiguous=truth(("a", -1, 80, 90)))
    short, _ = breakdown_by_length(matches, TWO_BINS, durations_seconds={}, normalised=False)
    assert short.average_map == 1


def test_quantile_bins_hold_equally_many():
    instances = truth(*[("a", 0, 0, 1 + i / 10) for i in range(40)])
    bins = quantile_bins(instances, num_bins=4)
    scores = breakdown_by_length(match(instances, found(), (0.5,)), bins, durations_seconds={})
    assert [score.label for score in scores] == ["Q1", "Q2", "Q3", "Q4"]
    assert [score.num_instances for score in scores] == [10, 10, 10, 10]
    assert quantile_bins(truth(("a", 0, 0, 2), ("a", 0, 0, 2))).edges == (0.0, np.inf)


def test_quantile_bins_of_lengths_that_are_close():
    instances = truth(*[("a", 0, 0, 1.9 + i / 2000) for i in range(400)])
    bins = quantile_bins(instances)
    scores = breakdown_by_length(match(instances, found(), (0.5,)), bins, durations_seconds={})
    assert [score.num_instances for score in scores] == [100, 100, 100, 100]
    assert bins.ranges() == ("0-1.95 s", "1.95-2 s", "2-2.05 s", "over 2.05 s")
    few = quantile_bins(truth(("a", 0, 0, 1), ("a", 0, 0, 9)))
    assert few.edges == (0.0, 1.0, np.inf)


def test_ranges_of_long_actions_are_short():
    bins = LengthBins(measure="seconds", edges=(0, 9.876, 123.456, 9231.92), labels=("a", "b", "c"))
    assert bins.ranges() == ("0-9.88 s", "9.88-123 s", "123-9232 s")
    close = LengthBins(measure="seconds", edges=(0, 123.41, 123.44), labels=("a", "b"))
    assert close.ranges() == ("0-123.41 s", "123.41-123.44 s")


def test_ranges_read_well():
    assert ACTIVITYNET_COVERAGE.ranges()[1] == "20-40 %"
    assert THUMOS14_SECONDS.ranges()[-1] == "over 18 s"


def test_refusals():
    with pytest.raises(ValueError, match="edges: 2 for 5 labels"):
        LengthBins(measure="seconds", edges=(0, 1))
    with pytest.raises(ValueError, match="every edge must be above the one before"):
        LengthBins(measure="seconds", edges=(0, 2, 2), labels=("a", "b"))
    with pytest.raises(ValueError, match="instances: none"):
        quantile_bins(truth())
    with pytest.raises(ValueError, match=r"durations_seconds\['a'\]: None; coverage needs"):
        breakdown_by_length(
            match(truth(("a", 0, 0, 1)), found(), (0.5,)),
            ACTIVITYNET_COVERAGE,
            durations_seconds={},
        )
