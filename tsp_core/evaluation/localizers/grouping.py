"""A localizer without parameters to train: the TSP heads themselves, grouped over time.

The temporal-region head gives the actionness of every row, the action head its classes; their
product is the probability of an action of each class. Rows speak for their whole clips, so the
probability at a time is the mean over the clips that cover it, interpolated between rows. For every
class and at each of several levels, runs above the level are basins; neighbouring basins are joined
while enough of the stretch between the first and the last is above the level (temporal actionness
grouping: Zhao et al., *Temporal Action Detection with Structured Segment Networks*, ICCV 2017,
section 5). A group scores by how far the mean probability inside stands out from that right before
and after (outer-inner contrast: Shou et al., *AutoLoc*, ECCV 2018); soft-NMS thins the groups out.

Grouping each class by itself, not the bare actionness, is what parts actions that follow one
another without a gap.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.instances import Detections, concatenate
from tsp_core.evaluation.localizers.sequences import ACTION
from tsp_core.evaluation.localizers.suppression import soft_nms

_MIN_SCORE = 1e-6
_POINTS_PER_ROW = 2

LEVELS = tuple(np.linspace(0.05, 0.95, 19).tolist())
"""Levels of probability."""

TOLERANCES = (0.6, 0.8, 1.0)
"""Shares of a group that must be above the level; at 1 basins are not joined."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadSequence:
    """What the heads say about the rows of one video.

    Attributes:
        video: Name.
        probabilities: float64 [N, C], of an action of each class.
        t_center: float64 [N], rising; seconds.
        stride_seconds: Nominal time between rows.
        duration_seconds: Of the video.

    Raises:
        ValueError: The columns do not fit each other.
    """

    video: str
    probabilities: NDArray[np.float64]
    t_center: NDArray[np.float64]
    stride_seconds: float
    duration_seconds: float

    def __post_init__(self) -> None:
        if len(self.probabilities) != len(self.t_center):
            raise ValueError(
                f"heads of {self.video!r}: {len(self.probabilities)} rows for "
                f"{len(self.t_center)} times; give one row per time"
            )


def head_sequence(
    video: str,
    *,
    region_logits: NDArray[np.floating[Any]],
    action_logits: NDArray[np.floating[Any]],
    t_center: NDArray[np.float64],
    clip_seconds: float,
    stride_seconds: float,
    duration_seconds: float,
) -> HeadSequence:
    """Join the outputs of both heads.

    Args:
        video: Name.
        region_logits: [N, 2], action and no action.
        action_logits: [N, C].
        t_center: float64 [N], rising; seconds.
        clip_seconds: Extent of each row's clip.
        stride_seconds: Nominal time between rows.
        duration_seconds: Of the video.
    """
    joint = _softmax(region_logits)[:, [ACTION]] * _softmax(action_logits)
    return HeadSequence(
        video=video,
        probabilities=_moving_mean(joint, round(clip_seconds / stride_seconds)),
        t_center=t_center,
        stride_seconds=stride_seconds,
        duration_seconds=duration_seconds,
    )


def localize_by_heads(
    heads: HeadSequence, *, sigma: float = 0.5, max_detections: int = 200, max_classes: int = 20
) -> Detections:
    """Detect actions in one video from the outputs of its heads.

    Args:
        heads: Outputs of the heads.
        sigma: Of soft-NMS.
        max_detections: Per video.
        max_classes: Of more classes, those with the highest probability anywhere in the video are
            looked for.
    """
    points = _between_rows(heads)
    highest = points.probabilities.max(axis=0)
    labels = np.sort(np.argsort(-highest, kind="stable")[:max_classes])
    found = concatenate([_detections_of_class(points, int(label)) for label in labels])
    return soft_nms(found, sigma=sigma, min_score=_MIN_SCORE, max_detections=max_detections)


def _between_rows(heads: HeadSequence) -> HeadSequence:
    """Interpolate to several points per row, so that boundaries are finer than rows."""
    count, size = len(heads.t_center), len(heads.t_center) * _POINTS_PER_ROW
    at = (np.arange(size) + 0.5) / _POINTS_PER_ROW - 0.5
    rows = np.arange(count, dtype=np.float64)
    beyond = np.minimum(at, 0) + np.maximum(at - (count - 1), 0)
    return HeadSequence(
        video=heads.video,
        probabilities=np.stack(
            [np.interp(at, rows, values) for values in heads.probabilities.T], 1
        ),
        t_center=np.interp(at, rows, heads.t_center) + beyond * heads.stride_seconds,
        stride_seconds=heads.stride_seconds / _POINTS_PER_ROW,
        duration_seconds=heads.duration_seconds,
    )


def _detections_of_class(heads: HeadSequence, label: int) -> Detections:
    values = heads.probabilities[:, label]
    groups = group_rows(values)
    scores = _means(values, groups) - _surroundings(values, groups)
    groups, scores = groups[scores > _MIN_SCORE], scores[scores > _MIN_SCORE]
    starts = heads.t_center[groups[:, 0]] - heads.stride_seconds / 2
    ends = heads.t_center[groups[:, 1] - 1] + heads.stride_seconds / 2
    return Detections(
        videos=np.full(len(groups), heads.video, dtype=object),
        label_indices=np.full(len(groups), label, dtype=np.int64),
        t_start=np.clip(starts, 0.0, heads.duration_seconds),
        t_end=np.clip(ends, 0.0, heads.duration_seconds),
        scores=scores,
    )


def group_rows(
    values: NDArray[np.float64],
    *,
    levels: tuple[float, ...] = LEVELS,
    tolerances: tuple[float, ...] = TOLERANCES,
) -> NDArray[np.int64]:
    """Group rows of high values.

    Returns:
        int64 [M, 2], first row and the row after the last, each pair once, sorted.
    """
    groups: set[tuple[int, int]] = set()
    highest = values.max(initial=0.0)
    for level in (level for level in levels if level <= highest):
        edges = np.diff((values >= level).astype(np.int8), prepend=0, append=0)
        basins = list(
            zip(
                np.flatnonzero(edges == 1).tolist(),
                np.flatnonzero(edges == -1).tolist(),
                strict=True,
            )
        )
        for tolerance in tolerances:
            groups.update(_joined(basins, tolerance))
    return np.array(sorted(groups), dtype=np.int64).reshape(-1, 2)


def _joined(basins: list[tuple[int, int]], tolerance: float) -> list[tuple[int, int]]:
    """Extend every basin over the following ones as far as the tolerance allows.

    Basin i ends before the first j > i at which less than the tolerance p / q of the stretch is
    above the level. With A the rows above up to a basin's end, that is where q A[j] - p end[j]
    falls below q A[i - 1] - p start[i]: the first smaller value to the right, found by bisection
    among the values that are smaller than all between them and i. Integers keep ties exact.
    """
    share = Fraction(repr(float(tolerance)))  # as it is written: 0.8 is 4/5
    scale, part = share.denominator, share.numerator
    above = list(accumulate((end - start for start, end in basins), initial=0))
    limits: list[tuple[int, int]] = []  # rising values; the last is the nearest basin's
    groups = []
    for number in range(len(basins) - 1, -1, -1):
        start, end = basins[number]
        smaller = bisect_left(limits, (scale * above[number] - part * start,))
        last = limits[smaller - 1][1] - 1 if smaller else len(basins) - 1
        groups.append((start, basins[last][1]))
        value = scale * above[number + 1] - part * end
        while limits and limits[-1][0] >= value:
            limits.pop()
        limits.append((value, number))
    return groups[::-1]


def _means(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of [N] over each group, [M]; 0 over an empty one."""
    sums = np.append(0.0, np.cumsum(values))
    counts = np.maximum(groups[:, 1] - groups[:, 0], 1)
    return np.asarray((sums[groups[:, 1]] - sums[groups[:, 0]]) / counts)


def _surroundings(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of [N] over a quarter of the group's length (at least a row) on both sides, [M]."""
    margin = np.maximum((groups[:, 1] - groups[:, 0] + 3) // 4, 1)
    before = np.stack([np.maximum(groups[:, 0] - margin, 0), groups[:, 0]], axis=1)
    after = np.stack([groups[:, 1], np.minimum(groups[:, 1] + margin, len(values))], axis=1)
    counts = np.stack([before[:, 1] - before[:, 0], after[:, 1] - after[:, 0]])
    sums = np.stack([_means(values, before), _means(values, after)]) * counts
    return np.asarray(sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1))


def _moving_mean(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Mean of [N, C] over `size` rows (an odd number: the next above), fewer at the ends."""
    reach = size // 2
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    rows = np.arange(len(values))
    low, high = np.maximum(rows - reach, 0), np.minimum(rows + reach + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low)[:, None])


def _softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
