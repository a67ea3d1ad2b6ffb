"""BMT (dense video captioning): `<video>_rgb.npy` and `<video>_flow.npy` per video.

BMT adds the two streams up; TSP features are of one stream, so the other is zero, as in the method
author's fork.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tsp_core.features.recipes.base import RecipeContext, made
from tsp_core.features.rows import FeatureRows, VideoFacts


class BmtRecipe:
    """Writes `data/<dataset>_npy/` as seen from BMT's checkout."""

    def __init__(self, folder: Path, context: RecipeContext) -> None:
        self._features = made(folder / "data" / f"{context.dataset}_npy")

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video."""
        del facts
        np.save(self._features / f"{rows.video}_rgb.npy", rows.features)
        np.save(self._features / f"{rows.video}_flow.npy", np.zeros_like(rows.features))

    def close(self) -> None:
        """Nothing is left open."""
