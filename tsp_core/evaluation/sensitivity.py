"""How sensitive features are to time: do they change where actions begin and end?

The method's claim is that features which were trained to tell action from background differ
across the boundaries of actions, where those of action classification stay alike. Measured here:

- *Similarity across boundaries*: the mean cosine of two rows of a video at a given time apart,
  when both lie in the same stretch (the same action, or the same piece of background), and when one
  lies in an action and the other in background. Both are compared within a video and at equal
  distance in time, where only the boundary differs; the contrast is the difference of the two.
  Pairs pooled over videos would not do: videos of a few long stretches, alike throughout for
  reasons of their own (a camera that stands still), give most pairs of the one kind, and videos of
  many boundaries most of the other.
- *Separation of foreground and background*: AUC of Fisher's linear discriminant, cross-validated
  by video, and the silhouette of the two groups.
- *A map*: principal components of the rows.

Cosines, silhouette and map are of features standardised over all rows given, so that a common
offset (features after a ReLU are all positive) does not make everything alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.instances import Instances
from tsp_core.evaluation.localizers.sequences import (
    ACTION,
    UNKNOWN,
    FeatureSequence,
    RowLabels,
    by_video,
    label_videos,
    stacked,
)
from tsp_core.evaluation.separation import (
    cross_validated_auc,
    principal_components,
    silhouette,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundarySimilarity:
    """Mean cosine by distance in time; NaN where no video has pairs of both kinds so far apart.

    Both means are of the same videos with the same weights, so that their difference is a mean of
    differences within videos.

    Attributes:
        lags_seconds: float64 [K], distances in time.
        within: float64 [K], pairs in the same stretch.
        across: float64 [K], pairs of an action and background.
    """

    lags_seconds: NDArray[np.float64]
    within: NDArray[np.float64]
    across: NDArray[np.float64]

    @property
    def contrast(self) -> float | None:
        """Mean of `within - across` over the distances that have both; None if none has."""
        difference = self.within - self.across
        known = np.isfinite(difference)
        return float(difference[known].mean()) if known.any() else None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMap:
    """Rows in the plane of their two first principal components.

    Attributes:
        points: float64 [M, 2].
        labels: Of the M rows.
        explained: Shares of the variance of the two components.
    """

    points: NDArray[np.float64]
    labels: RowLabels
    explained: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivity:
    """All figures of one set of features.

    Attributes:
        num_rows: Rows that were looked at.
        similarity: Across boundaries.
        region_auc: Of Fisher's discriminant on videos it was not made from; None when a region is
            absent or there is one video.
        silhouette: Of foreground against background, from -1 to 1; None when one is absent.
        map: In two dimensions.
    """

    num_rows: int
    similarity: BoundarySimilarity
    region_auc: float | None
    silhouette: float | None
    map: FeatureMap

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, without the map."""
        similarity = self.similarity
        return {
            "num_rows": self.num_rows,
            "region_auc": self.region_auc,
            "silhouette": self.silhouette,
            "boundary_contrast": similarity.contrast,
            "lags_seconds": similarity.lags_seconds.tolist(),
            "similarity_within": _plain(similarity.within),
            "similarity_across": _plain(similarity.across),
        }


def measure_sensitivity(
    sequences: Mapping[str, FeatureSequence],
    actions: Instances,
    *,
    ambiguous: Instances | None = None,
    max_lag_seconds: float = 4.0,
    num_folds: int = 5,
    max_points: int = 2000,
) -> Sensitivity:
    """Measure the features of a set of videos.

    Args:
        sequences: Features by video.
        actions: Annotated actions of these videos.
        ambiguous: Segments whose rows are left out.
        max_lag_seconds: Largest distance in time of compared rows.
        num_folds: Of the cross-validation by video.
        max_points: Silhouette and map are of this many rows at most, evenly spaced.

    Raises:
        ValueError: There are no videos.
    """
    if not sequences:
        raise ValueError("sequences: no videos; give the features of at least one")
    labels = label_videos(sequences, actions, ambiguous=ambiguous)
    features, stacked_labels = stacked(sequences, labels)
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    chosen = _evenly(np.flatnonzero(stacked_labels.regions != UNKNOWN), max_points)
    points = (features[chosen] - mean) / scale
    point_labels = RowLabels(
        label_indices=stacked_labels.label_indices[chosen], regions=stacked_labels.regions[chosen]
    )
    return Sensitivity(
        num_rows=len(features),
        similarity=_boundary_similarity(
            sequences, labels, by_video(actions), (mean, scale), max_lag_seconds
        ),
        region_auc=cross_validated_auc(sequences, labels, num_folds=num_folds),
        silhouette=silhouette(points, point_labels.regions == ACTION),
        map=_map(points, point_labels),
    )


def _map(points: NDArray[np.floating[Any]], labels: RowLabels) -> FeatureMap:
    projected, shares = principal_components(points)
    return FeatureMap(
        points=projected, labels=labels, explained=(float(shares[0]), float(shares[1]))
    )


def _boundary_similarity(
    sequences: Mapping[str, FeatureSequence],
    labels: Mapping[str, RowLabels],
    actions: Mapping[str, Instances],
    standard: tuple[NDArray[np.float32], NDArray[np.float32]],
    max_lag_seconds: float,
) -> BoundarySimilarity:
    """Average the mean cosines of each video and lag that has pairs of both kinds.

    A video with n pairs within and m across weighs n m / (n + m) (as Mantel and Haenszel weigh
    strata): inversely to the variance of its difference, were its cosines independent and alike
    in spread. The weight is between a half and the whole of the smaller count.
    """
    stride = float(np.median([sequence.stride_seconds for sequence in sequences.values()]))
    num_lags = max(int(max_lag_seconds / stride + 1e-9), 1)
    sums, weights = np.zeros((2, num_lags)), np.zeros(num_lags)
    for name in sorted(sequences):
        unit = _unit_rows((sequences[name].features - standard[0]) / standard[1])
        regions = labels[name].regions
        stretches = _stretches(sequences[name], regions, actions.get(name))
        for lag in range(1, min(num_lags, len(unit) - 1) + 1):
            known = (regions[:-lag] != UNKNOWN) & (regions[lag:] != UNKNOWN)
            same = known & (stretches[:-lag] == stretches[lag:])
            crossing = known & (regions[:-lag] != regions[lag:])
            num_same, num_crossing = np.count_nonzero(same), np.count_nonzero(crossing)
            if num_same == 0 or num_crossing == 0:
                continue
            cosines = (unit[:-lag] * unit[lag:]).sum(axis=1)
            weight = num_same * num_crossing / (num_same + num_crossing)
            sums[:, lag - 1] += weight * np.array([cosines[same].mean(), cosines[crossing].mean()])
            weights[lag - 1] += weight
    means = np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)
    return BoundarySimilarity(
        lags_seconds=np.asarray(np.arange(1, num_lags + 1) * stride, dtype=np.float64),
        within=means[0],
        across=means[1],
    )


def _stretches(
    sequence: FeatureSequence, regions: NDArray[np.int64], actions: Instances | None
) -> NDArray[np.int64]:
    """Number the stretches between any two boundaries in time, int64 [N]."""
    changes = np.append(0, np.cumsum(np.diff(regions) != 0))
    if actions is None:
        return changes.astype(np.int64)
    edges = np.unique(np.concatenate([actions.t_start, actions.t_end]))
    return changes + np.searchsorted(edges, sequence.t_center, side="right")


def _unit_rows(features: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = features.astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _evenly(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    if len(rows) <= limit:
        return rows
    return rows[np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)]


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
