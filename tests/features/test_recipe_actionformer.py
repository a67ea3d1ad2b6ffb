"""What ActionFormer and TriDet do with the files: `libs/datasets/anet.py` and `libs/core/config.py`
of happyharrycn/actionformer_release, told again in a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.features.samples import VIDEOS, context, facts, feature_rows, write_recipe
from tsp_core.config import ClipConfig
from tsp_core.features.recipes import RECIPES
from tsp_core.features.recipes.base import Action, RecipeContext
from tsp_core.features.rows import nominal_centers

CONFIGS = ("ours_tsp.yaml", "ours_tsp_tridet.yaml")


def recipe(tmp_path: Path, config: str = CONFIGS[0], **changes: Any) -> tuple[Path, dict[str, Any]]:
    folder = write_recipe(tmp_path / "out", "actionformer", context(**changes))
    return folder, yaml.load((folder / "configs" / config).read_text(), yaml.FullLoader)


class Reader:
    """The reader's way from the files to features and segments in units of rows."""

    def __init__(self, folder: Path, config: dict[str, Any], *, training: bool) -> None:
        self.options, self.folder, self.training = config["dataset"], folder, training
        split = config["train_split" if training else "val_split"]
        database = json.loads((folder / self.options["json_file"]).read_text())["database"]
        labels = {
            act["label"]: act["label_id"]
            for video in database.values()
            for act in video["annotations"]
        }
        assert len(labels) == self.options["num_classes"]
        assert sorted(labels.values()) == list(range(len(labels)))
        self.items = {k: v for k, v in database.items() if v["subset"].lower() in split}
        assert all(v["fps"] == self.options["default_fps"] for v in self.items.values())

    def features(self, video: str) -> np.ndarray:
        options = self.options
        name = options["file_prefix"] + video + options["file_ext"]
        features = np.load(self.folder / options["feat_folder"] / name).astype(np.float32)
        assert features.shape[1] == options["input_dim"]
        return features

    def segments(self, video: str) -> np.ndarray:
        options, item = self.options, self.items[video]
        seconds = np.array([act["segment"] for act in item["annotations"]], dtype=np.float32)
        fps, stride, frames = options["default_fps"], options["feat_stride"], options["num_frames"]
        segments = (seconds * fps - 0.5 * frames) / stride
        if self.training:
            segments = segments[segments[:, 0] < len(self.features(video))]
            assert len(segments), "the reader stacks an empty list and fails"
        return segments

    def seconds(self, rows: np.ndarray) -> np.ndarray:
        options = self.options
        return (rows * options["feat_stride"] + 0.5 * options["num_frames"]) / options[
            "default_fps"
        ]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_reader_finds_features_and_segments_of_both_splits(tmp_path: Path, config: str) -> None:
    folder, options = recipe(tmp_path, config)
    assert options["dataset_name"] == "anet"
    train, valid = (Reader(folder, options, training=training) for training in (True, False))
    assert sorted(train.items) == ["v_a"]  # all actions of "b" begin after its features end
    assert sorted(valid.items) == ["v_c"]
    np.testing.assert_array_equal(train.features("v_a"), feature_rows("v_a", 5).features)
    np.testing.assert_allclose(train.segments("v_a"), [[(15 - 8) / 16, (52.5 - 8) / 16]])
    np.testing.assert_allclose(valid.segments("v_c"), [[-0.5 / 16, (30 - 8) / 16]], atol=1e-6)


@pytest.mark.parametrize(("stride", "length", "rate"), [(16, 16, 15.0), (1, 16, 15.0), (4, 9, 10)])
def test_the_reader_places_rows_at_the_centres_of_clips(
    tmp_path: Path, stride: int, length: int, rate: float
) -> None:
    clip = ClipConfig(length=length, frame_rate=rate)
    folder, options = recipe(tmp_path, clip=clip, stride=stride)
    reader = Reader(folder, options, training=False)
    rows = np.arange(2)
    np.testing.assert_allclose(reader.seconds(rows), nominal_centers(2, clip, stride))


def test_every_video_has_its_file_whether_annotated_or_not(tmp_path: Path) -> None:
    folder, _ = recipe(tmp_path)
    names = {path.stem for path in (folder / "data" / "ours" / "features").iterdir()}
    assert names == set(VIDEOS)


def test_labels_without_an_instance_leave_no_gap(tmp_path: Path) -> None:
    folder, options = recipe(tmp_path)
    text = (folder / "data" / "ours" / "annotations.json").read_text()
    acts = [act for v in json.loads(text)["database"].values() for act in v["annotations"]]
    assert {(act["label"], act["label_id"]) for act in acts} == {("class 0", 0), ("class 2", 1)}
    assert options["dataset"]["num_classes"] == 2


def write(folder: Path, made: RecipeContext, num_rows: int, video: str = "v_a") -> dict[str, Any]:
    folder.mkdir()
    writer = RECIPES["actionformer"](folder, made)
    writer.write(feature_rows(video, num_rows), facts(num_rows))
    writer.close()
    return {config: yaml.safe_load((folder / "configs" / config).read_text()) for config in CONFIGS}


@pytest.mark.parametrize("num_rows", [1, 384, 385, 2304, 2305, 30000])
def test_lengths_suit_the_models(tmp_path: Path, num_rows: int) -> None:
    configs = write(tmp_path / "out", context(), num_rows)
    for config, step in zip(CONFIGS, (384, 480), strict=True):
        length = configs[config]["dataset"]["max_seq_len"]
        buffer = configs[config]["model"]["max_buffer_len_factor"] * length
        assert length % 384 == 0  # windows of 25 on a pyramid of six levels
        assert length <= 2304
        padded = length if num_rows <= length else -(-num_rows // step) * step
        assert buffer >= padded  # points of the longest video in testing
        assert buffer % 32 == 0


def test_thumos14_uses_the_reader_of_thumos14_only_with_its_label_4(tmp_path: Path) -> None:
    video = "video_validation_0000051"
    names = ["a", "b", "c", "d", "CliffDiving"]
    acts = tuple(
        Action(label=name, label_index=i, t_start=0.0, t_end=1.0) for i, name in enumerate(names)
    )
    made = context(classes=tuple(names), subsets={video: "validation"}, actions={video: acts})
    assert write(tmp_path / "x", made, 3, video)[CONFIGS[0]]["dataset_name"] == "thumos"
    made = context(classes=tuple(names), subsets={video: "validation"}, actions={video: acts[1:]})
    assert write(tmp_path / "y", made, 3, video)[CONFIGS[0]]["dataset_name"] == "anet"
