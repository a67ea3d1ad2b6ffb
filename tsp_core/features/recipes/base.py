"""What recipes share: the dataset's annotations, resampling along time, and small files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.features.rows import nominal_centers

MIN_TRAINING_STEPS = 3500
"""What ActionFormer takes on THUMOS14: 200 videos, two per step, 35 epochs. What is evaluated is a
moving average of the weights that keeps 0.999 of itself per step: after 100 steps it is nine
tenths random start, and finds nothing."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """An annotated action: label, its index, and its half-open segment in seconds."""

    label: str
    label_index: int
    t_start: float
    t_end: float


@dataclass(frozen=True, kw_only=True)
class RecipeContext:
    """What recipes need to know beside the features.

    Attributes:
        dataset: Name of the dataset; names the files.
        feature_size: F.
        clip: What one clip is.
        stride: Sampled frames between the starts of clips.
        classes: Labels in index order.
        subsets: Subset of each annotated video.
        actions: Annotated actions of each video that has any.
        train_subset: Name of the subset to train on.
        valid_subset: Name of the subset to validate on.
        rescale_rows: Rows per video where the reader wants a fixed number; None for its own.
        protocol: Of `evaluate`; readers that can be told evaluate by it too.
    """

    dataset: str
    feature_size: int
    clip: ClipConfig
    stride: int
    classes: tuple[str, ...]
    subsets: Mapping[str, str]
    actions: Mapping[str, tuple[Action, ...]]
    train_subset: str = "training"
    valid_subset: str = "validation"
    rescale_rows: int | None = None
    protocol: Literal["activitynet", "thumos14"] = "activitynet"

    def extent_seconds(self, num_rows: int) -> float:
        """Time from the start of the first clip to the end of the last of a video's clips."""
        return ((num_rows - 1) * self.stride + self.clip.length) / self.clip.frame_rate


def resample(
    features: NDArray[np.float32], times_seconds: NDArray[np.floating[Any]], context: RecipeContext
) -> NDArray[np.float32]:
    """Interpolate features linearly along time, [N, F] to [M, F]; constant beyond both ends.

    Row i of the input is at the centre of clip i. Where clips do not overlap, M times that evenly
    divide the extent give what `torch.nn.functional.interpolate(size=M, mode="linear",
    align_corners=False)` gives, which the method's author prescribes.

    Args:
        features: float32 [N, F], rows on the regular grid of the context.
        times_seconds: float [M].
        context: Clip and stride.
    """
    centers = nominal_centers(len(features), context.clip, context.stride)
    positions = np.interp(times_seconds, centers, np.arange(len(features)))
    lower = np.floor(positions).astype(np.int64)
    upper = np.minimum(lower + 1, len(features) - 1)
    weight = (positions - lower)[:, None]
    return np.asarray((1 - weight) * features[lower] + weight * features[upper], dtype=np.float32)


def evenly_rescaled(
    features: NDArray[np.float32], num_rows: int, context: RecipeContext
) -> NDArray[np.float32]:
    """Resample to rows whose cells evenly divide the time that the clips cover."""
    extent = context.extent_seconds(len(features))
    return resample(features, (np.arange(num_rows) + 0.5) / num_rows * extent, context)


def training_batch(num_videos: int, preferred: int) -> int:
    """Videos per step: the readers drop the last batch of an epoch where it is not full."""
    return max(min(num_videos, preferred), 1)


def longer_training(num_videos: int, batch_size: int, epochs: int) -> int:
    """How many times the usual epochs a dataset needs for `MIN_TRAINING_STEPS`; 1 where enough."""
    steps_per_epoch = max(num_videos // batch_size, 1)
    return max(math.ceil(MIN_TRAINING_STEPS / (steps_per_epoch * epochs)), 1)


def is_thumos14(video: str) -> bool:
    """Tell whether a video is named as in THUMOS14, where some readers expect these very names."""
    return video.startswith(("video_validation_", "video_test_"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and readers alike; equal values give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def made(folder: Path) -> Path:
    """Make a folder and its parents."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
