"""The videos that were localized best and worst, with what there is to see of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.instances import Detections, Instances
from tsp_core.evaluation.detection.matching import Matches, match
from tsp_core.evaluation.evidence import Evidence
from tsp_core.evaluation.localizers.sequences import (
    ACTION,
    NO_ACTION,
    FeatureSequence,
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
        average_f1: Of its actions and of the detections of any class above the score that is
            shown, averaged over the protocol's thresholds.
        is_best: Among the best, or among the worst.
        actions: Annotated in it.
        detections: Those worth showing, in the order of falling score.
        is_right: bool, whether each of them matches an action.
        actionness: None where neither head nor probe tells it.
    """

    sequence: FeatureSequence
    average_f1: float
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
    """Choose the best and the worst annotated videos of the headline localizer, by their F1.

    AP by class would not do: detections of classes that a video has no action of have none.

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
    found = evidence.localization.localized[evidence.headline].detections
    matches = match(part.actions, found, [SHOWN_TIOU], ambiguous=ambiguous)
    min_score, best_f1 = _operating_point(matches)
    averages = _average_f1(
        match(part.actions, found, TIOU[protocol], ambiguous=ambiguous), min_score
    )
    ranked = sorted(averages, key=lambda video: (-averages[video], video))
    each = min(each, -(-len(ranked) // 2))
    best = ranked[:each]
    worst = ranked[max(len(ranked) - each, each) :]
    shown = (matches.detections.scores >= min_score) & ~matches.ignored[0]
    videos = tuple(
        VideoStory(
            sequence=(sequence := part.sequences[video]),
            average_f1=averages[video],
            is_best=video in best,
            actions=part.actions.take(part.actions.videos == video),
            detections=matches.detections.take(shown & (matches.detections.videos == video)),
            is_right=(matches.matched[0] >= 0)[shown & (matches.detections.videos == video)],
            actionness=_actionness(sequence, evidence.localization.region),
        )
        for video in (*best, *worst)
    )
    return Stories(videos=videos, min_score=min_score, best_f1=best_f1)


def _average_f1(matches: Matches, min_score: float) -> dict[str, float]:
    """F1 of each annotated video at or above a score, over all classes, mean of the thresholds."""
    videos = np.unique(matches.ground_truth.videos.astype(str))
    num_actions = _count_by_video(videos, matches.ground_truth.videos)
    shown = matches.detections.scores >= min_score
    values = np.zeros(len(videos))
    for matched, ignored in zip(matches.matched, matches.ignored, strict=True):
        counted = shown & ~ignored
        num_shown = _count_by_video(videos, matches.detections.videos[counted])
        num_right = _count_by_video(videos, matches.detections.videos[counted & (matched >= 0)])
        values += 2 * num_right / (num_shown + num_actions)
    averages = values / len(matches.tiou_thresholds)
    return dict(zip(videos.tolist(), averages.tolist(), strict=True))


def _count_by_video(videos: NDArray[Any], of_rows: NDArray[Any]) -> NDArray[np.int64]:
    """How many rows are of each of the sorted videos, int64 [V]; others are not counted."""
    names, counts = np.unique(of_rows.astype(str), return_counts=True)
    found = np.isin(names, videos)
    totals = np.zeros(len(videos), dtype=np.int64)
    totals[np.searchsorted(videos, names[found])] = counts[found]
    return totals


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
