"""Training targets and losses of the reference detector, as ActionFormer defines them.

A point of a level is positive for an action when it lies inside it, within 1.5 strides of its
centre, and the farther boundary is at a distance that the level is for. Of several actions the
shortest counts (Zhang et al., ECCV 2022, section 3.3; `libs/modeling/meta_archs.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

_CENTRE_RADIUS = 1.5  # strides
_FIRST_RANGE = 4.0  # rows; level l is for distances up to this times 2**l
_SAME_LENGTH = 1e-3  # rows


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points of all levels, one after the other.

    Attributes:
        rows: float [P], position in rows of the features.
        strides: float [P], stride of the level in rows.
        lows: float [P], smallest distance that the level is for, in rows.
        highs: float [P], largest one.
    """

    rows: torch.Tensor
    strides: torch.Tensor
    lows: torch.Tensor
    highs: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the points of one video should say.

    Attributes:
        classes: float [P, C], 0 or 1.
        distances: float [P, 2], in strides; of meaning only where a class is 1.
    """

    classes: torch.Tensor
    distances: torch.Tensor


def num_levels_for(longest_rows: float) -> int:
    """Levels that reach an action of this length, from 2 to 8."""
    levels = 2
    while levels < 8 and _FIRST_RANGE * 2 ** (levels - 1) < longest_rows:
        levels += 1
    return levels


def make_points(level_sizes: Sequence[int]) -> Points:
    """Lay out the points of levels with these many rows; the last level has no upper limit."""
    rows, strides, lows, highs = [], [], [], []
    for level, size in enumerate(level_sizes):
        stride = float(2**level)
        is_last = level == len(level_sizes) - 1
        rows.append(torch.arange(size) * stride)
        strides.append(torch.full((size,), stride))
        lows.append(torch.full((size,), _FIRST_RANGE * stride / 2 if level else 0.0))
        highs.append(torch.full((size,), torch.inf if is_last else _FIRST_RANGE * stride))
    return Points(
        rows=torch.cat(rows),
        strides=torch.cat(strides),
        lows=torch.cat(lows),
        highs=torch.cat(highs),
    )


def make_targets(
    points: Points, segments: torch.Tensor, labels: torch.Tensor, num_classes: int
) -> Targets:
    """Assign the actions of one video to points.

    Args:
        points: P points.
        segments: float [G, 2], starts and ends in rows.
        labels: int64 [G].
        num_classes: C.
    """
    num_points = len(points.rows)
    if len(segments) == 0:
        return Targets(
            classes=torch.zeros(num_points, num_classes), distances=torch.zeros(num_points, 2)
        )
    distances = torch.stack(
        [points.rows[:, None] - segments[:, 0], segments[:, 1] - points.rows[:, None]], dim=-1
    )
    farthest = distances.amax(dim=-1)
    off_centre = (points.rows[:, None] - segments.mean(dim=1)).abs()
    positive = distances.amin(dim=-1) > 0
    positive &= off_centre < _CENTRE_RADIUS * points.strides[:, None]
    positive &= (farthest >= points.lows[:, None]) & (farthest <= points.highs[:, None])
    lengths = (segments[:, 1] - segments[:, 0]).expand(num_points, -1)
    lengths = lengths.masked_fill(~positive, torch.inf)
    shortest, chosen = lengths.min(dim=1)
    counts = positive & (lengths <= shortest[:, None] + _SAME_LENGTH)
    classes = (counts.float() @ F.one_hot(labels, num_classes).float()).clamp(max=1)
    own = distances[torch.arange(num_points), chosen] / points.strides[:, None]
    return Targets(classes=classes, distances=own)


def detection_loss(
    logits: torch.Tensor,
    distances: torch.Tensor,
    classes: torch.Tensor,
    target_distances: torch.Tensor,
) -> torch.Tensor:
    """Sum of focal and DIoU losses, per positive point.

    Args:
        logits: float [N, C] of all points that are not padding.
        distances: float [N, 2].
        classes: float [N, C], 0 or 1.
        target_distances: float [N, 2].
    """
    positive = classes.amax(dim=1) > 0
    count = positive.sum().clamp(min=1)
    boundaries = diou_loss(distances[positive], target_distances[positive]).sum()
    return (focal_loss(logits, classes).sum() + boundaries) / count


def focal_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sigmoid focal loss with alpha 0.25 and gamma 2 (Lin et al., ICCV 2017), elementwise."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    surprise = 1 - torch.exp(-entropy)  # one minus the probability of what is true
    alpha = 0.25 * targets + 0.75 * (1 - targets)
    return alpha * surprise**2 * entropy


def diou_loss(distances: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1-D distance-IoU loss (Zheng et al., AAAI 2020) of [N, 2] distances to start and end, [N]."""
    shared = torch.minimum(distances, targets).sum(dim=1)
    union = (distances + targets).sum(dim=1) - shared
    hull = torch.maximum(distances, targets).sum(dim=1)
    difference = distances - targets
    off_centre = (difference[:, 1] - difference[:, 0]) / 2
    return 1 - shared / union.clamp(min=1e-8) + (off_centre / hull.clamp(min=1e-8)) ** 2
