"""Mean average precision of temporal detection, by the ActivityNet and THUMOS14 protocols.

Average precision is the area under the interpolated precision-recall curve (precision at a recall
is the highest one at that recall or above), as `interpolated_prec_rec` of ActivityNet's
`Evaluation/utils.py` computes it after the VOC 2011 development kit. mAP is the mean over the
classes that have ground truth; detections of other classes do not count (ActivityNet's
`activity_index` and ActionFormer's are made from the ground truth). A class without detections
scores 0. Detections in videos without ground truth of the class are false positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.instances import Detections, Instances
from tsp_core.evaluation.detection.matching import Matches, match

ACTIVITYNET_TIOU = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""Thresholds of `eval_detection.py`: 0.5:0.05:0.95."""

THUMOS14_TIOU = tuple(np.linspace(0.3, 0.7, 5).tolist())
"""Thresholds of ActionFormer's and OpenTAD's THUMOS14 configurations: 0.3:0.1:0.7."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePrecision:
    """Average precision by threshold and class.

    Attributes:
        tiou_thresholds: T thresholds, rising.
        label_indices: int64 [C], the classes with ground truth, rising.
        num_instances: int64 [C], instances of each.
        values: float64 [T, C].
    """

    tiou_thresholds: tuple[float, ...]
    label_indices: NDArray[np.int64]
    num_instances: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def by_threshold(self) -> NDArray[np.float64]:
        """MAP at each threshold, float64 [T]."""
        return np.asarray(self.values.mean(axis=1))

    @property
    def mean(self) -> float:
        """Average mAP: the mean over thresholds and classes, the protocols' headline figure."""
        return float(self.values.mean())

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        by_class = self.values.mean(axis=0)
        return {
            "average_map": self.mean,
            "map_by_tiou": {
                f"{threshold:.2f}": float(value)
                for threshold, value in zip(self.tiou_thresholds, self.by_threshold, strict=True)
            },
            "average_ap_by_class": {
                str(index): float(value)
                for index, value in zip(self.label_indices, by_class, strict=True)
            },
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecisionRecall:
    """One class at one threshold: a point after each detection, in the order of falling score.

    Attributes:
        precision: float64 [D], not interpolated.
        recall: float64 [D].
        scores: float64 [D].
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]


def mean_average_precision(
    ground_truth: Instances,
    detections: Detections,
    *,
    tiou_thresholds: Sequence[float] = ACTIVITYNET_TIOU,
    ambiguous: Instances | None = None,
) -> AveragePrecision:
    """Score detections.

    Args:
        ground_truth: Annotated instances of the evaluated videos.
        detections: In any order.
        tiou_thresholds: `ACTIVITYNET_TIOU`, `THUMOS14_TIOU`, or others.
        ambiguous: Segments on which false positives do not count; see `matching`.

    Raises:
        ValueError: There is no ground truth, or a threshold is outside (0, 1].
    """
    return average_precision(match(ground_truth, detections, tiou_thresholds, ambiguous=ambiguous))


def average_precision(matches: Matches) -> AveragePrecision:
    """Score detections that are matched already.

    Raises:
        ValueError: There is no ground truth.
    """
    labels, counts = np.unique(matches.ground_truth.label_indices, return_counts=True)
    if len(labels) == 0:
        raise ValueError("ground_truth: no instances; mAP is defined only where there are some")
    values = np.zeros((len(matches.tiou_thresholds), len(labels)))
    for column, label in enumerate(labels):
        for row in range(len(matches.tiou_thresholds)):
            curve = precision_recall(matches, int(label), threshold_index=row)
            values[row, column] = interpolated_area(curve.precision, curve.recall)
    return AveragePrecision(
        tiou_thresholds=matches.tiou_thresholds,
        label_indices=labels,
        num_instances=counts.astype(np.int64),
        values=values,
    )


def precision_recall(
    matches: Matches, label_index: int, *, threshold_index: int
) -> PrecisionRecall:
    """Draw the precision-recall curve of a class at the threshold with this index."""
    of_class = matches.detections.label_indices == label_index
    counted = of_class & ~matches.ignored[threshold_index]
    right = matches.matched[threshold_index, counted] >= 0
    num_instances = int((matches.ground_truth.label_indices == label_index).sum())
    num_right = np.cumsum(right)
    return PrecisionRecall(
        precision=num_right / np.arange(1, len(right) + 1),
        recall=num_right / max(num_instances, 1),
        scores=matches.detections.scores[counted],
    )


def interpolated_area(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """Area under the interpolated curve; recall rises along the points, both float64 [D]."""
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float((steps * highest).sum())
