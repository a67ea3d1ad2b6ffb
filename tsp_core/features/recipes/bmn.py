"""BMN on ActivityNet: 100 rows per video as CSV, NPY and H5, video list and annotation JSON.

BMN takes a video as `feature_frame / duration_frame * duration_second` seconds long in training,
and as `duration_frame // 16 * 16 / duration_frame * duration_second` when it writes results,
divided into 100 equal cells. Rows here evenly divide the time that the clips cover, which
`duration_second` is; both counts are the same multiple of 16, so that both times are this one.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from tsp_core.errors import ConfigError
from tsp_core.features.formats import H5Writer
from tsp_core.features.recipes.base import RecipeContext, evenly_rescaled, made, write_json
from tsp_core.features.rows import FeatureRows, VideoFacts

ROWS = 100
_FRAMES_PER_ROW = 16  # as the readers count
_PREFIX = "v_"  # the readers cut two characters off a name before they look it up


class ActivityNetTables:
    """The video list, annotations and ground truth that BMN and G-TAD read for ActivityNet."""

    def __init__(self, folder: Path, context: RecipeContext) -> None:
        self._folder, self._context = folder, context
        self._videos: list[tuple[str, str]] = []
        self._annotations: dict[str, dict[str, Any]] = {}
        self._truth: dict[str, dict[str, Any]] = {}

    def add(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add a video of the two subsets; one to train on without an action stays out."""
        context = self._context
        names = {context.train_subset: "training", context.valid_subset: "validation"}
        subset = names.get(context.subsets.get(rows.video, ""))
        actions = context.actions.get(rows.video, ())
        if subset is None or (subset == "training" and not actions):
            return
        frames = _FRAMES_PER_ROW * len(rows.features)
        annotations = [{"label": a.label, "segment": [a.t_start, a.t_end]} for a in actions]
        name = activitynet_name(rows.video)
        self._videos.append((name, subset))
        self._annotations[name] = {
            "duration_second": context.extent_seconds(len(rows.features)),
            "duration_frame": frames,
            "feature_frame": frames,
            "annotations": annotations,
        }
        self._truth[name.removeprefix(_PREFIX)] = {
            "duration": facts.duration_seconds,
            "subset": subset,
            "annotations": annotations,
        }

    def close(self) -> None:
        """Write `video_info.csv`, `video_anno.json` and `ground_truth.json`."""
        with (self._folder / "video_info.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("video", "subset"), *self._videos])
        write_json(self._folder / "video_anno.json", self._annotations)
        truth = {"version": self._context.dataset, "taxonomy": [], "database": self._truth}
        write_json(self._folder / "ground_truth.json", truth)


class BmnRecipe:
    """Writes `data/<dataset>/` as seen from BMN's checkout."""

    def __init__(self, folder: Path, context: RecipeContext) -> None:
        self._context = context
        self._rows = context.rescale_rows or ROWS
        data = made(folder / "data" / context.dataset)
        self._csv = made(data / f"csv_mean_{self._rows}")
        self._npy = made(data / f"npy_{self._rows}")
        self._h5 = H5Writer(data, context.feature_size, name=f"features_{self._rows}.h5")
        self._tables = ActivityNetTables(data, context)
        self._names = ActivityNetNames()

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video, rescaled along time."""
        features = evenly_rescaled(rows.features, self._rows, self._context)
        name = self._names.of(rows.video)
        header = ",".join(f"f{column}" for column in range(features.shape[1]))
        np.savetxt(
            self._csv / f"{name}.csv",
            features,
            delimiter=",",
            header=header,
            comments="",
            fmt="%.9g",
        )
        np.save(self._npy / f"{name}.npy", features)
        self._h5.write_array(name, features)
        self._tables.add(rows, facts)

    def close(self) -> None:
        """Complete the files."""
        self._h5.close()
        self._tables.close()


def activitynet_name(video: str) -> str:
    """Name of a video with the two characters in front that BMN and G-TAD cut off."""
    return video if video.startswith(_PREFIX) else _PREFIX + video


class ActivityNetNames:
    """The names of the videos of one export, which have to differ."""

    def __init__(self) -> None:
        self._videos: dict[str, str] = {}

    def of(self, video: str) -> str:
        """Give a video its name.

        Raises:
            ConfigError: Another video has it: `x` and `v_x` are one to these codebases.
        """
        name = activitynet_name(video)
        other = self._videos.setdefault(name, video)
        if other != video:
            raise ConfigError(
                f"export.recipes: BMN and G-TAD would take the videos {other!r} and {video!r} for "
                "one; rename one of them, or leave these recipes out"
            )
        return name
