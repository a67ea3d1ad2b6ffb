"""What ActionFormer and TriDet do with the files, told again in a few lines.

After `libs/datasets/anet.py`, `libs/core/config.py` and `libs/utils/metrics.py` of
happyharrycn/actionformer_release at a06c1aa, and, where it differs, at 18e5860.
`tests/downstream` compares this with ActionFormer itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

_GIVEN = {"json_file", "feat_folder", "file_prefix", "file_ext"}
_DEFAULTS = {
    "feat_stride": 16,
    "num_frames": 32,
    "default_fps": None,
    "input_dim": 2304,
    "num_classes": 97,
    "downsample_rate": 1,
    "max_seq_len": 2304,
    "trunc_thresh": 0.5,
    "crop_ratio": None,
    "force_upsampling": False,
}
"""What the configuration need not say, and what it says then."""


class Reader:
    """The way from the files to features and to segments in units of rows.

    Attributes:
        options: The configuration's section `dataset`, with the defaults.
        items: Videos of the split.
        label_ids: Index of each label of any split.
    """

    def __init__(self, folder: Path, config_file: str, *, training: bool) -> None:
        config = load(folder, config_file)
        given = config["dataset"]
        assert given.keys() <= _GIVEN | _DEFAULTS.keys(), "the reader knows no such parameter"
        assert given.keys() >= _GIVEN, "the reader has no default for these"
        self.options: dict[str, Any] = {**_DEFAULTS, **given}
        self.folder, self.training = folder, training
        assert self.options["crop_ratio"] is None or len(self.options["crop_ratio"]) == 2
        split = config["train_split" if training else "val_split"]
        assert isinstance(split, list)
        database = json.loads((folder / self.options["json_file"]).read_text())["database"]
        self.label_ids = {
            act["label"]: act["label_id"]
            for video in database.values()
            for act in video["annotations"]
        }
        assert len(self.label_ids) == self.options["num_classes"]
        assert sorted(self.label_ids.values()) == list(range(len(self.label_ids)))
        self.items = {k: v for k, v in database.items() if v["subset"].lower() in split}
        self.fps = self.options["default_fps"]
        assert all(v["fps"] == self.fps for v in self.items.values()), "either may be read"

    @property
    def _half(self) -> float:
        """Half a clip, in rows."""
        return 0.5 * self.options["num_frames"] / self._stride

    @property
    def _stride(self) -> int:
        return self.options["feat_stride"] * self.options["downsample_rate"]

    def features(self, video: str) -> np.ndarray:
        """float32 [T, C]."""
        options = self.options
        name = (options["file_prefix"] or "") + video + options["file_ext"]
        features = np.load(self.folder / options["feat_folder"] / name)
        assert features.dtype == np.float32
        assert features.shape[1] == options["input_dim"]
        return features[:: options["downsample_rate"]]

    def truth(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """Segments in rows, [N, 2], and labels, [N]."""
        acts = [a for a in self.items[video]["annotations"] if _length(a) >= 1e-3]
        seconds = np.array([a["segment"] for a in acts], dtype=np.float32).reshape(-1, 2)
        labels = np.array([self.label_ids[a["label"]] for a in acts], dtype=np.int64)
        rows = seconds * self.fps / self._stride - self._half
        if not self.training:
            return rows, labels
        num_rows = len(self.features(video))
        assert (rows[:, 0] < num_rows).any(), "18e5860 stacks an empty list and fails"
        end = num_rows + self._half
        share = (np.minimum(rows[:, 1], end) - rows[:, 0]) / (rows[:, 1] - rows[:, 0])
        kept = (rows[:, 0] < end) & (share >= self.options["trunc_thresh"])
        assert kept.any(), "a06c1aa stacks an empty list and fails"
        return np.minimum(rows[kept], end), labels[kept]

    def seconds(self, rows: np.ndarray) -> np.ndarray:
        """Time of points on the grid of rows, as the model's results are converted."""
        return (rows * self._stride + 0.5 * self.options["num_frames"]) / self.fps


def load(folder: Path, config_file: str) -> dict[str, Any]:
    """Read a configuration of a recipe."""
    path = folder / "configs" / config_file
    config: dict[str, Any] = yaml.load(path.read_text(), yaml.FullLoader)
    return config


def _length(act: dict[str, Any]) -> float:
    return float(act["segment"][1] - act["segment"][0])
