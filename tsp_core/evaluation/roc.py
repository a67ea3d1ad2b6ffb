"""Area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.localizers.sequences import ACTION, UNKNOWN


def roc_auc(scores: NDArray[np.floating[Any]], is_positive: NDArray[np.bool_]) -> float | None:
    """Probability that a positive row scores above a negative one, ties counting half.

    Args:
        scores: [N].
        is_positive: bool [N].

    Returns:
        Area under the ROC curve (Mann and Whitney's U), or None when one kind is absent.
    """
    num_positive = int(is_positive.sum())
    num_negative = len(is_positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # of ties, the mean rank
    wins = ranks[is_positive].sum() - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))


def region_auc(
    logits: NDArray[np.floating[Any]], regions: NDArray[np.integer[Any]]
) -> float | None:
    """AUC of telling action from no action.

    Args:
        logits: [N, 2], action and no action.
        regions: [N]; ACTION, NO_ACTION, or UNKNOWN, which is not counted.

    Returns:
        The area, or None when one region is absent.
    """
    known = regions != UNKNOWN
    margin = logits[known, ACTION] - logits[known, 1 - ACTION]
    return roc_auc(margin, regions[known] == ACTION)
