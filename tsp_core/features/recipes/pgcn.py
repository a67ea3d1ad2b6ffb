"""P-GCN on THUMOS14: as many rows per video as the I3D features that it was written for.

Those have a row for every 64 frames of the video, 8 frames apart; the reader turns frame numbers
into row numbers by these two constants. Row u is resampled at the centre of its 64 frames.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from tsp_core.features.formats import H5Writer
from tsp_core.features.recipes.base import RecipeContext, made, resample
from tsp_core.features.rows import FeatureRows, VideoFacts

_INTERVAL, _LENGTH = 8, 64  # frames of the video: between rows, and of one row


class PgcnRecipe:
    """Writes `data/<dataset>/`: a tensor file per video (without ending) and one H5 file.

    P-GCN itself loads the tensors, the method author's fork of it the H5 file.
    """

    def __init__(self, folder: Path, context: RecipeContext) -> None:
        self._context = context
        data = made(folder / "data" / context.dataset)
        self._tensors = made(data / "tensors")
        self._h5 = H5Writer(data, context.feature_size, name="features.h5")

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video."""
        import torch  # planning an export does without

        count = max((facts.num_frames - _LENGTH) // _INTERVAL + 1, 1)
        seconds_per_frame = facts.duration_seconds / facts.num_frames
        times = (np.arange(count) * _INTERVAL + _LENGTH / 2) * seconds_per_frame
        features = resample(rows.features, times, self._context)
        buffer = io.BytesIO()
        torch.save(torch.from_numpy(features), buffer)
        (self._tensors / rows.video).write_bytes(buffer.getvalue())
        self._h5.write_array(rows.video, features)

    def close(self) -> None:
        """Complete the files."""
        self._h5.close()
