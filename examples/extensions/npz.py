"""A feature format of one's own: one `.npz` per video with the features and their times.

Name it in a configuration:

    extensions: [npz.py]
    export: {formats: [npz]}
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tsp_core.features.formats import FeatureFormat, register_format
from tsp_core.features.rows import FeatureRows, VideoFacts


class NpzWriter:
    """Writes `features` (N x F float32) and `t_center` (N float64, seconds) of each video."""

    def __init__(self, folder: Path, feature_size: int) -> None:
        del feature_size  # the arrays carry it
        self._folder = folder

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video."""
        del facts
        path = self._folder / f"{rows.video}.npz"
        np.savez(path, features=rows.features, t_center=rows.centers_seconds)

    def close(self) -> None:
        """Nothing is left open."""


register_format("npz", FeatureFormat(writer=NpzWriter, layout="{video}.npz"))
