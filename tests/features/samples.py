"""Features made up for tests: every value tells its video, row and column."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tsp_core.config import ClipConfig
from tsp_core.features.recipes import RECIPES
from tsp_core.features.recipes.base import Action, RecipeContext
from tsp_core.features.rows import FeatureRows, VideoFacts

CLIP = ClipConfig()


def feature_rows(
    video: str, num_rows: int, *, size: int = 6, stride: int = 16, clip: ClipConfig = CLIP
) -> FeatureRows:
    """Rows on the regular grid; feature [i, j] is i + j / 100, so interpolation is easy to tell."""
    starts = np.arange(num_rows) * stride / clip.frame_rate
    values = np.arange(num_rows)[:, None] + np.arange(size)[None, :] / 100
    return FeatureRows(
        video=video,
        content_hash=f"hash-{video}",
        features=values.astype(np.float32),
        starts_seconds=starts,
        ends_seconds=starts + clip.length / clip.frame_rate,
        is_padded=np.zeros(num_rows, dtype=bool),
    )


def facts(num_rows: int, *, rate: Fraction = Fraction(30)) -> VideoFacts:
    """A video just long enough for so many clips that do not overlap."""
    seconds = Fraction(num_rows * 16, 15)
    return VideoFacts(
        num_frames=int(seconds * rate),
        duration_seconds=float(seconds),
        frame_rate=rate,
        is_variable_rate=False,
    )


def action(label_index: int, t_start: float, t_end: float) -> Action:
    return Action(
        label=f"class {label_index}", label_index=label_index, t_start=t_start, t_end=t_end
    )


def context(**changes: Any) -> RecipeContext:
    """Two training videos and one of validation; class 1 has no instance in them."""
    fields: dict[str, Any] = {
        "dataset": "ours",
        "feature_size": 6,
        "clip": CLIP,
        "stride": 16,
        "classes": ("class 0", "class 1", "class 2"),
        "subsets": {"v_a": "training", "b": "training", "v_c": "validation"},
        "actions": {
            "v_a": (action(0, 1.0, 3.5), action(2, 500.0, 501.0)),
            "b": (action(2, 400.0, 402.0),),
            "v_c": (action(2, 0.5, 2.0),),
        },
        **changes,
    }
    return RecipeContext(**fields)


VIDEOS = {"b": 4, "unlabelled": 3, "v_a": 5, "v_c": 2}
"""Rows of the videos that `write_recipe` writes; "unlabelled" is in no annotation."""


def write_recipe(folder: Path, name: str, context: RecipeContext) -> Path:
    """Write a recipe for `VIDEOS`."""
    folder.mkdir(parents=True)
    recipe = RECIPES[name](folder, context)
    for video, num_rows in VIDEOS.items():
        rows = feature_rows(video, num_rows, stride=context.stride, clip=context.clip)
        recipe.write(rows, facts(num_rows))
    recipe.close()
    return folder
