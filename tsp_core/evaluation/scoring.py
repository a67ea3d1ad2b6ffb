"""Scores the detections of a localizer by every protocol: mAP, AR@AN, breakdown by length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tsp_core.evaluation.detection.average_precision import (
    ACTIVITYNET_TIOU,
    THUMOS14_TIOU,
    AveragePrecision,
    average_precision,
)
from tsp_core.evaluation.detection.breakdown import (
    ACTIVITYNET_COVERAGE,
    ACTIVITYNET_SECONDS,
    THUMOS14_COVERAGE,
    THUMOS14_SECONDS,
    BinScore,
    LengthBins,
    breakdown_by_length,
    quantile_bins,
)
from tsp_core.evaluation.detection.instances import Detections, Instances
from tsp_core.evaluation.detection.matching import Matches, match
from tsp_core.evaluation.detection.proposals import ProposalRecall, proposal_recall

Protocol = Literal["activitynet", "thumos14"]

TIOU: Mapping[Protocol, tuple[float, ...]] = {
    "activitynet": ACTIVITYNET_TIOU,
    "thumos14": THUMOS14_TIOU,
}
"""Thresholds of mAP by protocol."""

PROTOCOL_NAMES: Mapping[Protocol, str] = {
    "activitynet": "tIoU 0.5:0.05:0.95, ActivityNet",
    "thumos14": "tIoU 0.3:0.1:0.7, THUMOS14",
}
"""Protocols for people."""

_BINS: Mapping[Protocol, tuple[LengthBins, LengthBins]] = {
    "activitynet": (ACTIVITYNET_COVERAGE, ACTIVITYNET_SECONDS),
    "thumos14": (THUMOS14_COVERAGE, THUMOS14_SECONDS),
}


@dataclass(frozen=True, kw_only=True)
class LengthScores:
    """Breakdown by one measure of length: bins and their scores, in the same order."""

    bins: LengthBins
    scores: tuple[BinScore, ...]

    def as_json(self) -> list[dict[str, Any]]:
        """Plain JSON values."""
        return [
            {
                "label": score.label,
                "range": bounds,
                "num_instances": score.num_instances,
                "average_map": score.average_map,
                "recall": score.recall,
            }
            for score, bounds in zip(self.scores, self.bins.ranges(), strict=True)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionScores:
    """All figures of one localizer.

    Attributes:
        num_detections: All of them.
        average_precision: By protocol.
        matches: At the thresholds of each protocol.
        proposals: AR@AN of the detections as proposals.
        by_length: By measure: "coverage" and "seconds" in the bins of the protocol asked for, and
            "quantiles" of the data set's own lengths.
    """

    num_detections: int
    average_precision: Mapping[Protocol, AveragePrecision]
    matches: Mapping[Protocol, Matches]
    proposals: ProposalRecall
    by_length: Mapping[str, LengthScores]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "num_detections": self.num_detections,
            "map": {name: score.as_json() for name, score in self.average_precision.items()},
            "proposals": self.proposals.as_json(),
            "by_length": {name: scores.as_json() for name, scores in self.by_length.items()},
        }


def score_detections(
    ground_truth: Instances,
    detections: Detections,
    *,
    durations_seconds: Mapping[str, float],
    protocol: Protocol,
    ambiguous: Instances | None = None,
) -> DetectionScores:
    """Score the detections of one localizer.

    Args:
        ground_truth: Annotated actions of the evaluated videos.
        detections: In these videos.
        durations_seconds: Duration by video.
        protocol: Whose thresholds and bins the breakdown by length uses.
        ambiguous: Segments on which false positives do not count; None to count them.

    Raises:
        ValueError: There is no ground truth.
    """
    matches = {
        name: match(ground_truth, detections, tiou, ambiguous=ambiguous)
        for name, tiou in TIOU.items()
    }
    coverage, seconds = _BINS[protocol]
    bins = {"coverage": coverage, "seconds": seconds, "quantiles": quantile_bins(ground_truth)}
    by_length = {
        name: LengthScores(
            bins=chosen,
            scores=breakdown_by_length(
                matches[protocol], chosen, durations_seconds=durations_seconds
            ),
        )
        for name, chosen in bins.items()
    }
    return DetectionScores(
        num_detections=len(detections),
        average_precision={name: average_precision(found) for name, found in matches.items()},
        matches=matches,
        proposals=proposal_recall(ground_truth, detections),
        by_length=by_length,
    )
