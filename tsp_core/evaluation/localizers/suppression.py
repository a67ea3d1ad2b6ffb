"""Soft non-maximum suppression in time (Bodla et al., ICCV 2017)."""

from __future__ import annotations

import numpy as np

from tsp_core.evaluation.detection.instances import Detections, tiou_matrix


def soft_nms(
    detections: Detections,
    *,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    max_detections: int = 200,
) -> Detections:
    """Lower the scores of detections that overlap surer ones of the same class.

    The surest detection is kept, and every other one of its class is multiplied by
    `exp(-tiou ** 2 / sigma)`; this repeats with what is left.

    Args:
        detections: Of one video, any classes.
        sigma: Seldom below 0.3 or above 1; smaller is stricter.
        min_score: What falls below is dropped.
        max_detections: How many are kept, of all classes together.

    Returns:
        The kept ones with their new scores, in the order of falling score.
    """
    scores = detections.scores.copy()
    kept: list[int] = []
    kept_scores: list[float] = []
    while len(kept) < min(max_detections, len(scores)):
        best = int(scores.argmax())
        if scores[best] < min_score:
            break
        kept.append(best)
        kept_scores.append(float(scores[best]))
        rivals = np.flatnonzero(
            (detections.label_indices == detections.label_indices[best]) & (scores >= min_score)
        )
        tiou = tiou_matrix(
            detections.t_start[[best]],
            detections.t_end[[best]],
            detections.t_start[rivals],
            detections.t_end[rivals],
        )[0]
        scores[rivals] *= np.exp(-(tiou**2) / sigma)
        scores[best] = -1.0
    chosen = detections.take(np.array(kept, dtype=np.int64))
    return Detections(
        videos=chosen.videos,
        label_indices=chosen.label_indices,
        t_start=chosen.t_start,
        t_end=chosen.t_end,
        scores=np.array(kept_scores, dtype=np.float64),
    )
