"""How well features part foreground from background, and their principal components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.localizers.sequences import (
    ACTION,
    UNKNOWN,
    FeatureSequence,
    RowLabels,
)
from tsp_core.evaluation.roc import roc_auc

_SHRINKAGE = 0.1  # towards a multiple of the identity: there may be fewer rows than features


def cross_validated_auc(
    sequences: Mapping[str, FeatureSequence], labels: Mapping[str, RowLabels], *, num_folds: int = 5
) -> float | None:
    """AUC of foreground against background, each video scored by a direction made from others.

    The direction is Fisher's: the shrunk inverse of the covariance within the regions, times the
    difference of their means. Scores are centred per fold by the midpoint of the two means.

    Args:
        sequences: Features by video.
        labels: Of their rows.
        num_folds: Video i of the sorted names is in fold i modulo this.
    """
    names = sorted(sequences)
    num_folds = min(num_folds, len(names))
    scores, truths = [], []
    for fold in range(num_folds if num_folds > 1 else 0):
        held_out = names[fold::num_folds]
        others = [name for name in names if name not in set(held_out)]
        features, regions = _known_rows(sequences, labels, others)
        if len(np.unique(regions)) < 2:
            continue
        direction, midpoint = fisher_direction(features, regions == ACTION)
        features, regions = _known_rows(sequences, labels, held_out)
        scores.append((features - midpoint) @ direction)
        truths.append(regions == ACTION)
    return roc_auc(np.concatenate(scores), np.concatenate(truths)) if scores else None


def fisher_direction(
    features: NDArray[np.float32], is_action: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fisher's linear discriminant of two groups of rows.

    Args:
        features: [N, F], rows of both groups.
        is_action: bool [N].

    Returns:
        Direction float64 [F] towards actions, and the midpoint of the means, float64 [F].
    """
    groups = [features[is_action].astype(np.float64), features[~is_action].astype(np.float64)]
    means = [group.mean(axis=0) for group in groups]
    within = sum(
        (group - mean).T @ (group - mean) for group, mean in zip(groups, means, strict=True)
    )
    covariance = np.asarray(within) / len(features)
    size = len(covariance)
    level = max(float(np.trace(covariance)) / size, 1e-12)
    shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * level * np.eye(size)
    return np.linalg.solve(shrunk, means[0] - means[1]), (means[0] + means[1]) / 2


def silhouette(points: NDArray[np.floating[Any]], is_action: NDArray[np.bool_]) -> float | None:
    """Mean silhouette of two groups by Euclidean distance (Rousseeuw, 1987).

    Args:
        points: [M, F].
        is_action: bool [M].

    Returns:
        From -1 to 1, or None when a group is empty; a group's only member counts 0.
    """
    counts = np.array([is_action.sum(), (~is_action).sum()])
    if (counts == 0).any():
        return None
    squares = (points**2).sum(axis=1)
    distances = np.sqrt(np.clip(squares[:, None] + squares - 2 * points @ points.T, 0, None))
    np.fill_diagonal(distances, 0.0)
    sums = np.stack([distances[:, is_action].sum(axis=1), distances[:, ~is_action].sum(axis=1)])
    own = np.where(is_action, 0, 1)
    rows = np.arange(len(points))
    inside = sums[own, rows] / np.maximum(counts[own] - 1, 1)
    outside = sums[1 - own, rows] / counts[1 - own]
    larger = np.maximum(inside, outside)
    values = np.divide(outside - inside, larger, out=np.zeros_like(larger), where=larger > 0)
    return float(np.where(counts[own] > 1, values, 0.0).mean())


def principal_components(
    points: NDArray[np.floating[Any]], num_components: int = 2
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project rows on their principal components.

    The sign of a component is such that its largest weight is positive, so that equal rows give
    equal maps.

    Args:
        points: [M, F].
        num_components: K; components beyond the rank are 0.

    Returns:
        Projections float64 [M, K], and the shares of the variance, float64 [K].
    """
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    strongest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(len(axes)), strongest])[:, None]
    projected, shares = np.zeros((len(points), num_components)), np.zeros(num_components)
    count = min(num_components, len(axes))
    projected[:, :count] = centred @ axes[:count].T
    shares[:count] = singular[:count] ** 2 / max(float((singular**2).sum()), 1e-12)
    return projected, shares


def _known_rows(
    sequences: Mapping[str, FeatureSequence], labels: Mapping[str, RowLabels], names: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    regions = np.concatenate([labels[name].regions for name in names])
    features = np.concatenate([sequences[name].features for name in names])
    known = regions != UNKNOWN
    return features[known], regions[known]
