"""G-TAD: on ActivityNet 100 rows per video in one H5 file, on THUMOS14 one row per video frame.

The THUMOS14 reader concatenates the columns of a flow file and an RGB file per split. TSP features
are of one stream, so the first half of the columns goes into the one and the rest into the other:
the unchanged reader puts them together again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tsp_core.features.formats import H5Writer
from tsp_core.features.recipes.base import (
    RecipeContext,
    evenly_rescaled,
    is_thumos14,
    made,
    resample,
)
from tsp_core.features.recipes.bmn import ROWS, ActivityNetNames, ActivityNetTables
from tsp_core.features.rows import FeatureRows, VideoFacts


class GtadRecipe:
    """Writes `data/<dataset>/` as seen from G-TAD's checkout.

    Videos named as in THUMOS14 go into the four files of the THUMOS14 reader, all others into the
    files of the ActivityNet reader.
    """

    def __init__(self, folder: Path, context: RecipeContext) -> None:
        self._context = context
        self._data = made(folder / "data" / context.dataset)
        self._rows = context.rescale_rows or ROWS
        self._activitynet: tuple[H5Writer, ActivityNetTables] | None = None
        self._thumos: dict[str, H5Writer] = {}
        self._names = ActivityNetNames()

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video."""
        if is_thumos14(rows.video):
            self._write_thumos14(rows, facts)
        else:
            self._write_activitynet(rows, facts)

    def close(self) -> None:
        """Complete the files."""
        if self._activitynet is not None:
            features, tables = self._activitynet
            features.close()
            tables.close()
        for writer in self._thumos.values():
            writer.close()

    def _write_activitynet(self, rows: FeatureRows, facts: VideoFacts) -> None:
        if self._activitynet is None:
            self._activitynet = (
                H5Writer(self._data, self._context.feature_size, name=f"features_{self._rows}.h5"),
                ActivityNetTables(self._data, self._context),
            )
        features, tables = self._activitynet
        rescaled = evenly_rescaled(rows.features, self._rows, self._context)
        features.write_array(self._names.of(rows.video), rescaled)
        tables.add(rows, facts)

    def _write_thumos14(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Row j is frame j of the video itself, as the reader's annotations count frames."""
        if not self._thumos:
            self._thumos = {
                name: H5Writer(self._data, self._context.feature_size, name=f"{name}.h5")
                for name in ("flow_val", "rgb_val", "flow_test", "rgb_test")
            }
        seconds_per_frame = facts.duration_seconds / facts.num_frames
        times = np.arange(facts.num_frames) * seconds_per_frame
        features = resample(rows.features, times, self._context)
        split = "val" if "val" in rows.video else "test"
        half = features.shape[1] // 2
        self._thumos[f"flow_{split}"].write_array(rows.video, features[:, :half])
        self._thumos[f"rgb_{split}"].write_array(rows.video, features[:, half:])
