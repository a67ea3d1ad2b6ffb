from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from tsp_core.evaluation.localizers.targets import (
    detection_loss,
    diou_loss,
    focal_loss,
    make_points,
    make_targets,
    num_levels_for,
)


def targets_of(segments, labels, *, sizes=(16, 8), num_classes=3):
    return make_targets(
        make_points(sizes), torch.tensor(segments), torch.tensor(labels), num_classes
    )


def test_points_are_laid_out_level_by_level():
    points = make_points([3, 2])
    assert points.rows.tolist() == [0, 1, 2, 0, 2]
    assert points.strides.tolist() == [1, 1, 1, 2, 2]
    assert points.highs.tolist() == [4, 4, 4, math.inf, math.inf]


def test_a_short_action_is_for_the_first_level_near_its_centre():
    targets = targets_of([[4.5, 7.5]], [2])
    positive = targets.classes.nonzero().tolist()
    assert positive == [[5, 2], [6, 2], [7, 2]]
    assert targets.distances[5].tolist() == [0.5, 2.5]


def test_a_long_action_is_for_a_higher_level_in_its_strides():
    targets = targets_of([[0.0, 12.0]], [0])
    positive = targets.classes.nonzero()[:, 0].tolist()
    # centre 6, radius 1.5 strides of 2 rows: rows 4, 6 and 8 are points 2, 3, 4 of level 1
    assert positive == [16 + 2, 16 + 3, 16 + 4]
    assert targets.distances[16 + 2].tolist() == [2.0, 4.0]


def test_the_shortest_of_overlapping_actions_counts():
    targets = targets_of([[3.0, 9.0], [5.0, 7.0]], [0, 1])
    assert targets.classes[6].tolist() == [0, 1, 0]
    assert targets.distances[6].tolist() == [1.0, 1.0]


def test_actions_of_equal_length_count_both():
    targets = targets_of([[4.5, 7.5], [4.5, 7.5]], [0, 2])
    assert targets.classes[6].tolist() == [1, 0, 1]


def test_no_actions_leave_all_points_negative():
    targets = make_targets(make_points([4]), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), 3)
    assert targets.classes.sum() == 0


def test_every_action_that_holds_a_row_has_a_point():
    for length in (1.1, 2.0, 3.9, 5.0, 9.0, 17.0, 40.0):
        for start in (3.0, 3.3, 3.7):
            sizes = [math.ceil(64 / 2**level) for level in range(num_levels_for(64))]
            assert targets_of([[start, start + length]], [0], sizes=sizes).classes.sum() > 0


def test_levels_reach_the_longest_action():
    assert [num_levels_for(rows) for rows in (1, 8, 9, 16, 17, 1e9)] == [2, 2, 3, 3, 4, 8]


def test_focal_loss_is_torchvisions():
    logits = torch.linspace(-4, 4, 12).reshape(4, 3)
    targets = (torch.arange(12) % 2).reshape(4, 3).float()
    expected = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="none")
    assert torch.allclose(focal_loss(logits, targets), expected, atol=1e-6)


def test_diou_by_hand():
    # predicted [-1, 3] against [-2, 2]: intersection 3, union 5, hull 5, centres 1 apart
    found = diou_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]]))
    assert found.item() == pytest.approx(1 - 3 / 5 + (1 / 5) ** 2)
    assert diou_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 3.0]])).item() == 0


def test_the_loss_counts_boundaries_of_positive_points_only():
    logits, classes = torch.zeros(2, 1), torch.tensor([[1.0], [0.0]])
    distances = torch.tensor([[1.0, 1.0], [5.0, 5.0]])
    wrong = torch.tensor([[1.0, 1.0], [0.1, 0.1]])
    right = detection_loss(logits, distances, classes, distances)
    assert detection_loss(logits, distances, classes, wrong).item() == right.item()
    without = detection_loss(logits, distances, torch.zeros(2, 1), wrong)
    assert torch.isfinite(without)
