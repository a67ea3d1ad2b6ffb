"""Average recall of proposals against their average number per video (AR@AN), and its area.

As `average_recall_vs_avg_nr_proposals` of ActivityNet's `Evaluation/eval_proposal.py`:

- Classes do not count, and an instance is recalled when any kept proposal overlaps it by the
  threshold: one proposal may recall several instances.
- The budget is spent in proportion: each video keeps the same share of its own proposals, highest
  scores first, so that the videos keep `max_proposals_per_video` on average. The curve's points
  are 1 %, 2 % ... 100 % of that budget.
- Videos are those that have ground truth; yet the share is taken of all proposals given,
  also those in other videos, as the official code does.
- The area is divided by the largest number of proposals. As the curve starts at 1 % of the budget,
  a perfect one has an area of 0.99.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.average_precision import ACTIVITYNET_TIOU
from tsp_core.evaluation.detection.instances import Detections, Instances, tiou_matrix

_NUM_POINTS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class ProposalRecall:
    """The AR-AN curve.

    Attributes:
        tiou_thresholds: T thresholds.
        proposals_per_video: float64 [100], average number of proposals at each point.
        recall: float64 [T, 100].
    """

    tiou_thresholds: tuple[float, ...]
    proposals_per_video: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def average_recall(self) -> NDArray[np.float64]:
        """Recall averaged over the thresholds, float64 [100]."""
        return np.asarray(self.recall.mean(axis=0))

    @property
    def area(self) -> float:
        """Area under the AR-AN curve as a share of the whole, at most 0.99."""
        area = np.trapezoid(self.average_recall, self.proposals_per_video)
        return float(area / self.proposals_per_video[-1])

    def at(self, proposals_per_video: float) -> float:
        """AR at an average number of proposals per video, between points by interpolation.

        Raises:
            ValueError: The number is outside the curve.
        """
        first, last = self.proposals_per_video[0], self.proposals_per_video[-1]
        if not first <= proposals_per_video <= last:
            raise ValueError(
                f"proposals_per_video: {proposals_per_video:g}; the curve goes from "
                f"{first:g} to {last:g}"
            )
        return float(np.interp(proposals_per_video, self.proposals_per_video, self.average_recall))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        last = self.proposals_per_video[-1]
        numbers = [n for n in (1, 5, 10, 50, 100) if self.proposals_per_video[0] <= n <= last]
        return {"area": self.area, "average_recall": {str(n): self.at(n) for n in numbers}}


def proposal_recall(
    ground_truth: Instances,
    proposals: Detections,
    *,
    tiou_thresholds: Sequence[float] = ACTIVITYNET_TIOU,
    max_proposals_per_video: float = 100.0,
) -> ProposalRecall:
    """Score proposals.

    Args:
        ground_truth: Annotated instances of the evaluated videos; classes do not count.
        proposals: In any order; classes do not count.
        tiou_thresholds: Thresholds that recall is averaged over.
        max_proposals_per_video: Average number of proposals at the end of the curve; 100 in the
            ActivityNet challenge.

    Raises:
        ValueError: There is no ground truth, or the number is not positive.
    """
    if len(ground_truth) == 0:
        raise ValueError("ground_truth: no instances; recall is defined only where there are some")
    if max_proposals_per_video <= 0:
        raise ValueError(f"max_proposals_per_video: {max_proposals_per_video}; give more than 0")
    thresholds = np.asarray(tiou_thresholds, dtype=np.float64)
    best = _best_overlaps(ground_truth, proposals, max_proposals_per_video)
    recall = (best[None] >= thresholds[:, None, None]).mean(axis=1)
    shares = np.arange(1, _NUM_POINTS + 1) / _NUM_POINTS
    return ProposalRecall(
        tiou_thresholds=tuple(thresholds.tolist()),
        proposals_per_video=shares * max_proposals_per_video,
        recall=recall,
    )


def _best_overlaps(
    ground_truth: Instances, proposals: Detections, max_proposals_per_video: float
) -> NDArray[np.float64]:
    """Highest overlap of each instance with the proposals kept at each point, float64 [G, 100]."""
    best = np.zeros((len(ground_truth), _NUM_POINTS))
    groups = _kept_by_video(ground_truth, proposals, max_proposals_per_video)
    num_kept = sum(len(kept) for _, kept in groups)
    if num_kept == 0:
        return best
    shares = np.arange(1, _NUM_POINTS + 1) / _NUM_POINTS
    shares = shares * (max_proposals_per_video * float(len(groups)) / num_kept)
    for instances, kept in groups:
        if len(kept) == 0:
            continue
        tiou = tiou_matrix(
            ground_truth.t_start[instances],
            ground_truth.t_end[instances],
            proposals.t_start[kept],
            proposals.t_end[kept],
        )
        counts = np.minimum((len(kept) * shares).astype(np.int64), len(kept))
        so_far = np.maximum.accumulate(tiou, axis=1)
        best[instances] = np.where(counts > 0, so_far[:, np.maximum(counts, 1) - 1], 0.0)
    return best


def _kept_by_video(
    ground_truth: Instances, proposals: Detections, max_proposals_per_video: float
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each annotated video: its instances, and the proposals it may keep, best first."""
    by_score = np.argsort(proposals.scores, kind="stable")[::-1]
    videos = proposals.videos[by_score].astype(str)
    by_video = np.argsort(videos, kind="stable")
    names, number = np.unique(ground_truth.videos.astype(str), return_inverse=True)
    lows = np.searchsorted(videos[by_video], names, side="left")
    highs = np.searchsorted(videos[by_video], names, side="right")
    ratio = max_proposals_per_video * float(len(names)) / max(len(proposals), 1)
    instances = np.split(
        np.argsort(number, kind="stable"), np.cumsum(np.bincount(number, minlength=len(names)))[:-1]
    )
    groups = []
    for rows, low, high in zip(instances, lows, highs, strict=True):
        kept = min(int((high - low) * ratio), high - low)
        groups.append((rows, by_score[by_video[low : low + kept]]))
    return groups
