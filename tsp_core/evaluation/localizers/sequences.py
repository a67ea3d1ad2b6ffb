"""Features of whole videos in time, and the labels of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsp_core.evaluation.detection.instances import Instances
from tsp_core.features.rows import FeatureRows

ACTION, NO_ACTION, UNKNOWN = 0, 1, -1
"""Regions of rows, in the official order of the temporal-region head; -1 is not labelled."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSequence:
    """Features of one video in the order of time.

    Attributes:
        video: Name.
        features: float32 [N, F], N at least 1.
        t_center: float64 [N], rising; seconds, the centre of each row's clip.
        stride_seconds: Nominal time between rows.
        duration_seconds: Of the video.

    Raises:
        ValueError: The columns do not fit each other, or a number is not finite.
    """

    video: str
    features: NDArray[np.float32]
    t_center: NDArray[np.float64]
    stride_seconds: float
    duration_seconds: float

    def __post_init__(self) -> None:
        where = f"features of {self.video!r}"
        if self.features.ndim != 2 or len(self.features) != len(self.t_center):
            raise ValueError(
                f"{where}: shape {self.features.shape} for {len(self.t_center)} times; "
                "give one row per time"
            )
        if len(self.t_center) == 0 or (np.diff(self.t_center) <= 0).any():
            raise ValueError(f"{where}: t_center must have a row and rise from row to row")
        if not self.stride_seconds > 0 or not self.duration_seconds > 0:
            raise ValueError(
                f"{where}: stride_seconds {self.stride_seconds} and duration_seconds "
                f"{self.duration_seconds} must be above 0"
            )
        if not np.isfinite(self.features).all():
            row = int(np.flatnonzero(~np.isfinite(self.features).all(axis=1))[0])
            raise ValueError(f"{where}: row {row} is not finite; export the features again")

    def __len__(self) -> int:
        return len(self.features)

    def rows_at(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Times as fractional row numbers; beyond the ends by the nominal stride."""
        inside = np.interp(seconds, self.t_center, np.arange(len(self), dtype=np.float64))
        before = np.minimum(seconds - self.t_center[0], 0) / self.stride_seconds
        after = np.maximum(seconds - self.t_center[-1], 0) / self.stride_seconds
        return np.asarray(inside + before + after)

    def seconds_at(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fractional row numbers as times: the inverse of `rows_at`."""
        last = len(self) - 1
        inside = np.interp(rows, np.arange(len(self), dtype=np.float64), self.t_center)
        beyond = np.minimum(rows, 0) + np.maximum(rows - last, 0)
        return np.asarray(inside + beyond * self.stride_seconds)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowLabels:
    """What is annotated at the time of each row.

    Attributes:
        label_indices: int64 [N]; class of the action, -1 where there is none.
        regions: int64 [N]; ACTION, NO_ACTION, or UNKNOWN on ambiguous segments.
    """

    label_indices: NDArray[np.int64]
    regions: NDArray[np.int64]


def sequence_from_rows(
    rows: FeatureRows, *, stride_seconds: float, duration_seconds: float
) -> FeatureSequence:
    """Take the exported features of a video.

    Args:
        rows: Features with the extents of their clips.
        stride_seconds: Nominal time between rows.
        duration_seconds: Of the video, as measured.
    """
    return FeatureSequence(
        video=rows.video,
        features=rows.features,
        t_center=rows.centers_seconds,
        stride_seconds=stride_seconds,
        duration_seconds=duration_seconds,
    )


def by_video(instances: Instances) -> dict[str, Instances]:
    """Split instances by video, keeping their order."""
    rows: dict[str, list[int]] = {}
    for row, video in enumerate(instances.videos.tolist()):
        rows.setdefault(video, []).append(row)
    return {video: instances.take(np.array(own)) for video, own in rows.items()}


def label_rows(
    t_center: NDArray[np.float64],
    actions: Instances | None,
    *,
    ambiguous: Instances | None = None,
) -> RowLabels:
    """Label the rows of one video by what is annotated at their time.

    Where actions overlap each other, the shortest one names the class.

    Args:
        t_center: float64 [N], seconds.
        actions: Action segments of this video; None for none.
        ambiguous: Ambiguous segments of this video; None for none.
    """
    labels = np.full(len(t_center), -1, dtype=np.int64)
    if actions is not None:
        for row in np.argsort(-actions.lengths_seconds, kind="stable"):
            labels[_inside(t_center, actions, int(row))] = actions.label_indices[row]
    regions = np.where(labels >= 0, ACTION, NO_ACTION)
    for row in range(len(ambiguous) if ambiguous is not None else 0):
        assert ambiguous is not None
        regions[_inside(t_center, ambiguous, row) & (labels < 0)] = UNKNOWN
    return RowLabels(label_indices=labels, regions=regions.astype(np.int64))


def label_videos(
    sequences: Mapping[str, FeatureSequence],
    actions: Instances,
    *,
    ambiguous: Instances | None = None,
) -> dict[str, RowLabels]:
    """Label the rows of every video; a video without actions is background throughout."""
    of_video = by_video(actions)
    unclear = by_video(ambiguous) if ambiguous is not None else {}
    return {
        video: label_rows(sequence.t_center, of_video.get(video), ambiguous=unclear.get(video))
        for video, sequence in sequences.items()
    }


def stacked(
    sequences: Mapping[str, FeatureSequence], labels: Mapping[str, RowLabels]
) -> tuple[NDArray[np.float32], RowLabels]:
    """Join the rows of all videos, in the order of their names."""
    names = sorted(sequences)
    features: NDArray[Any] = np.concatenate([sequences[name].features for name in names])
    return features, RowLabels(
        label_indices=np.concatenate([labels[name].label_indices for name in names]),
        regions=np.concatenate([labels[name].regions for name in names]),
    )


def _inside(t_center: NDArray[np.float64], segments: Instances, row: int) -> NDArray[np.bool_]:
    return np.asarray((t_center >= segments.t_start[row]) & (t_center < segments.t_end[row]))
