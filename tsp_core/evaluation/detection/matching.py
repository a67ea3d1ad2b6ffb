"""Assigns detections to ground truth, once for all metrics that need it.

Within a video and a class, detections go in the order of falling score; each takes the instance
that it overlaps most among those that are free and overlap it by at least the threshold. So an
instance is matched once, and a second detection of it is a false positive unless another instance
is near enough. This is `compute_average_precision_detection` of ActivityNet's
`Evaluation/eval_detection.py`, which ActionFormer (`libs/utils/metrics.py`) and OpenTAD
(`opentad/evaluations/mAP.py`) use for THUMOS14 too.

Equal scores, and equal overlaps, are settled as the official expression `argsort()[::-1]` settles
them with a stable sort: the later row goes first. (The official sort is not stable, so there the
result of a tie depends on the machine.)

Ambiguous segments are those of THUMOS14's development kit (`TH14eventdetpr.m`): a detection of any
class that is no true positive and touches one is neither right nor wrong. ActionFormer and
OpenTAD have no such rule; give no ambiguous segments to score as they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.instances import (
    Detections,
    Instances,
    group_keys,
    tiou_matrix,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Detections in the order of falling score, and what each was assigned to.

    Attributes:
        ground_truth: The annotated instances.
        detections: Reordered by score.
        tiou_thresholds: T thresholds, rising.
        matched: int64 [T, D]; row of the ground truth, or -1.
        ignored: bool [T, D]; neither right nor wrong, because of an ambiguous segment.
    """

    ground_truth: Instances
    detections: Detections
    tiou_thresholds: tuple[float, ...]
    matched: NDArray[np.int64]
    ignored: NDArray[np.bool_]


def match(
    ground_truth: Instances,
    detections: Detections,
    tiou_thresholds: Sequence[float],
    *,
    ambiguous: Instances | None = None,
) -> Matches:
    """Assign detections to ground truth at every threshold.

    Args:
        ground_truth: Annotated instances.
        detections: In any order.
        tiou_thresholds: Within (0, 1].
        ambiguous: Segments on which a false positive does not count, whatever its class.

    Raises:
        ValueError: A threshold is outside (0, 1].
    """
    thresholds = np.sort(np.asarray(tiou_thresholds, dtype=np.float64))
    if len(thresholds) == 0 or thresholds[0] <= 0 or thresholds[-1] > 1:
        raise ValueError(f"tiou_thresholds: {list(tiou_thresholds)}; give thresholds in (0, 1]")
    detections = detections.take(np.argsort(detections.scores, kind="stable")[::-1])
    pairs = _overlapping_pairs(detections, ground_truth, float(thresholds[0]))
    matched = np.stack([_assign(pairs, len(detections), threshold) for threshold in thresholds])
    touching = np.zeros(len(detections), dtype=bool)
    if ambiguous is not None:
        touching = _touching(detections, ambiguous)
    return Matches(
        ground_truth=ground_truth,
        detections=detections,
        tiou_thresholds=tuple(thresholds.tolist()),
        matched=matched,
        ignored=(matched < 0) & touching,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """A detection and an instance that overlap, in the order in which they are tried."""

    detection: NDArray[np.int64]
    instance: NDArray[np.int64]
    tiou: NDArray[np.float64]


def _overlapping_pairs(detections: Detections, ground_truth: Instances, min_tiou: float) -> _Pairs:
    """Find the pairs of equal video and class that overlap by at least `min_tiou`."""
    count = len(detections)
    keys = group_keys(
        np.concatenate([detections.videos, ground_truth.videos]),
        np.concatenate([detections.label_indices, ground_truth.label_indices]),
    )
    pairs = _pairs_by_group(detections, ground_truth, keys[:count], keys[count:], min_tiou)
    # by detection, then by falling overlap, then the later instance
    order = np.lexsort((-pairs.instance, -pairs.tiou, pairs.detection))
    return _Pairs(
        detection=pairs.detection[order], instance=pairs.instance[order], tiou=pairs.tiou[order]
    )


def _pairs_by_group(
    detections: Instances,
    others: Instances,
    detection_keys: NDArray[np.int64],
    other_keys: NDArray[np.int64],
    min_tiou: float,
) -> _Pairs:
    none = np.empty(0, dtype=np.int64)
    if len(detections) == 0 or len(others) == 0:
        return _Pairs(detection=none, instance=none, tiou=np.empty(0))
    by_key = np.argsort(detection_keys, kind="stable")
    other_by_key = np.argsort(other_keys, kind="stable")
    groups, first = np.unique(other_keys[other_by_key], return_index=True)
    last = np.append(first[1:], len(other_keys))
    lows = np.searchsorted(detection_keys[by_key], groups, side="left")
    highs = np.searchsorted(detection_keys[by_key], groups, side="right")
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    for low, high, start, end in zip(lows, highs, first, last, strict=True):
        rows, columns = by_key[low:high], other_by_key[start:end]
        tiou = tiou_matrix(
            detections.t_start[rows],
            detections.t_end[rows],
            others.t_start[columns],
            others.t_end[columns],
        )
        near, of = np.nonzero(tiou >= min_tiou)
        found.append((rows[near], columns[of], tiou[near, of]))
    detection, instance, tiou = (np.concatenate(column) for column in zip(*found, strict=True))
    return _Pairs(detection=detection, instance=instance, tiou=tiou)


def _assign(pairs: _Pairs, num_detections: int, threshold: float) -> NDArray[np.int64]:
    """Go through the pairs in order; a pair holds if both are still free. Returns int64 [D]."""
    matched = np.full(num_detections, -1, dtype=np.int64)
    near = pairs.tiou >= threshold
    taken: set[int] = set()
    done = -1
    for detection, instance in zip(
        pairs.detection[near].tolist(), pairs.instance[near].tolist(), strict=True
    ):
        if detection != done and instance not in taken:
            matched[detection] = instance
            taken.add(instance)
            done = detection
    return matched


def _touching(detections: Detections, ambiguous: Instances) -> NDArray[np.bool_]:
    """Which detections overlap an ambiguous segment of their video at all."""
    count = len(detections)
    keys = group_keys(np.concatenate([detections.videos, ambiguous.videos]))
    smallest = float(np.finfo(np.float64).tiny)
    pairs = _pairs_by_group(detections, ambiguous, keys[:count], keys[count:], smallest)
    touching = np.zeros(count, dtype=bool)
    touching[pairs.detection] = True
    return touching
