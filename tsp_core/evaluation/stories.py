"""The videos that were localized best and worst, with what there is to see of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.average_precision import mean_average_precision
from tsp_core.evaluation.detection.instances import Detections, Instances, no_detections
from tsp_core.evaluation.detection.matching import Matches, match
from tsp_core.evaluation.evidence import Evidence
from tsp_core.evaluation.localizers.sequences import (
    ACTION,
    NO_ACTION,
    FeatureSequence,
    by_video,
)
from tsp_core.evaluation.row_logits import RowLogits
from tsp_core.evaluation.scoring import TIOU, Protocol

SHOWN_TIOU = 0.5
"""Overlap at which a detection that is shown counts as right."""

Actionness = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Times in seconds and probabilities of action, both float64 [N]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoStory:
    """A video to show.

    Attributes:
        sequence: Its features in time.
        average_map: Of its own detections and actions, averaged over the protocol's thresholds.
        is_best: Among the best, or among the worst.
        actions: Annotated in it.
        detections: Those worth showing, in the order of falling score.
        is_right: bool, whether each of them matches an action.
        actionness: None where neither head nor probe tells it.
    """

    sequence: FeatureSequence
    average_map: float
    is_best: bool
    actions: Instances
    detections: Detections
    is_right: NDArray[np.bool_]
    actionness: Actionness | None


@dataclass(frozen=True, kw_only=True)
class Stories:
    """The videos to show.

    Attributes:
        videos: The best, then the worst, from high to low.
        min_score: Detections below are not shown: F1 over the whole subset is highest here.
        best_f1: There.
    """

    videos: tuple[VideoStory, ...]
    min_score: float
    best_f1: float


def tell_stories(
    evidence: Evidence, *, protocol: Protocol, each: int = 3, ignore_ambiguous: bool = False
) -> Stories | None:
    """Choose the best and the worst videos of the headline localizer.

    Args:
        evidence: Whose export is still open.
        protocol: Whose thresholds count.
        each: How many of both; fewer where there are few videos.
        ignore_ambiguous: Detections on ambiguous segments are neither right nor wrong.

    Returns:
        The stories; None where nothing was scored.
    """
    if evidence.headline is None or evidence.material is None:
        return None
    part = evidence.material.evaluation
    ambiguous = part.ambiguous if ignore_ambiguous else None
    matches = match(
        part.actions,
        evidence.localization.localized[evidence.headline].detections,
        [SHOWN_TIOU],
        ambiguous=ambiguous,
    )
    min_score, best_f1 = _operating_point(matches)
    averages = _averages(matches, protocol, ambiguous)
    ranked = sorted(averages, key=lambda video: (-averages[video], video))
    each = min(each, -(-len(ranked) // 2))
    best = ranked[:each]
    worst = ranked[max(len(ranked) - each, each) :]
    shown = (matches.detections.scores >= min_score) & ~matches.ignored[0]
    videos = tuple(
        VideoStory(
            sequence=(sequence := part.sequences[video]),
            average_map=averages[video],
            is_best=video in best,
            actions=part.actions.take(part.actions.videos == video),
            detections=matches.detections.take(shown & (matches.detections.videos == video)),
            is_right=(matches.matched[0] >= 0)[shown & (matches.detections.videos == video)],
            actionness=_actionness(sequence, evidence.localization.region),
        )
        for video in (*best, *worst)
    )
    return Stories(videos=videos, min_score=min_score, best_f1=best_f1)


def _averages(
    matches: Matches, protocol: Protocol, ambiguous: Instances | None
) -> dict[str, float]:
    """Average mAP of each annotated video by itself."""
    of_video = _rows_by_video(matches.detections)
    unclear = {} if ambiguous is None else by_video(ambiguous)
    averages = {}
    for video, rows in _rows_by_video(matches.ground_truth).items():
        own = of_video.get(video)
        found = no_detections() if own is None else matches.detections.take(own)
        averages[video] = mean_average_precision(
            matches.ground_truth.take(rows),
            found,
            tiou_thresholds=TIOU[protocol],
            ambiguous=unclear.get(video),
        ).mean
    return averages


def _rows_by_video(instances: Instances) -> dict[str, NDArray[np.int64]]:
    names, numbers = np.unique(instances.videos.astype(str), return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    borders = np.searchsorted(numbers[order], np.arange(1, len(names)))
    return dict(zip(names.tolist(), np.split(order, borders), strict=True)) if len(names) else {}


def _operating_point(matches: Matches) -> tuple[float, float]:
    """The lowest score worth showing, and the F1 of what is at or above it."""
    counted = ~matches.ignored[0]
    right = np.cumsum(matches.matched[0][counted] >= 0)
    if len(right) == 0:
        return 0.0, 0.0
    shown = np.arange(1, len(right) + 1)
    f1 = 2 * right / (shown + len(matches.ground_truth))
    best = int(f1.argmax())
    return float(matches.detections.scores[counted][best]), float(f1[best])


def _actionness(sequence: FeatureSequence, region: RowLogits | None) -> Actionness | None:
    if region is None:
        return None
    logits = region(sequence).astype(np.float64)
    margin = np.clip(logits[:, NO_ACTION] - logits[:, ACTION], -60, 60)
    return sequence.t_center, 1 / (1 + np.exp(margin))
