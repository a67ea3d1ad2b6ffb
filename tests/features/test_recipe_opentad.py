"""What OpenTAD does with the files: `opentad/datasets/anet.py`, `base/padding_dataset.py`,
`transforms/loading.py` and `evaluations/mAP.py` of sming256/OpenTAD, told again in a few lines."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.features.samples import VIDEOS, context, feature_rows, write_recipe
from tsp_core.config import ClipConfig
from tsp_core.evaluation.detection.average_precision import ACTIVITYNET_TIOU, THUMOS14_TIOU
from tsp_core.features.rows import nominal_centers


def recipe(tmp_path: Path, **changes: Any) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    folder = write_recipe(tmp_path / "out", "opentad", context(**changes))
    model = folder / "configs" / "actionformer" / "ours_tsp.py"
    values = runpy.run_path(str(model))
    dataset = runpy.run_path(str(model.parent / values["_base_"][0]))
    return folder, dataset, values


def ground_truth(folder: Path, options: dict[str, Any]) -> dict[str, tuple[np.ndarray, list[int]]]:
    """AnetPaddingDataset.get_gt and __getitem__: segments in rows, and class indices."""
    database = json.loads((folder / options["ann_file"]).read_text())["database"]
    class_map = (folder / options["class_map"]).read_text().splitlines()
    fps, offset = options["fps"], int(options["offset_frames"])
    snippet_stride = int(options["feature_stride"] * options["sample_stride"])
    found = {}
    for video, info in database.items():
        if info["subset"] not in options["subset_name"]:
            continue
        kept = [
            act
            for act in info["annotations"]
            if act["segment"][1] > act["segment"][0]
            and act["segment"][1] * fps - offset > 0
            and act["segment"][0] * fps - offset <= float(info["duration"]) * fps
        ]
        if kept:
            frames = np.array([act["segment"] for act in kept]) * fps
            labels = [class_map.index(act["label"]) for act in kept]
            found[video] = (frames - offset) / snippet_stride, labels
    assert found, "the reader refuses a subset without data"
    return found


def test_the_reader_finds_segments_labels_and_features(tmp_path: Path) -> None:
    folder, config, _ = recipe(tmp_path)
    train, valid = config["dataset"]["train"], config["dataset"]["val"]
    segments, labels = ground_truth(folder, train)["v_a"]
    np.testing.assert_allclose(segments, [[(15 - 8) / 16, (52.5 - 8) / 16]])
    assert labels == [0]
    assert ground_truth(folder, valid)["v_c"][1] == [2]
    for options in config["dataset"].values():
        load = options["pipeline"][0]
        assert load == {"type": "LoadFeats", "feat_format": "npy"}
        for video, num_rows in VIDEOS.items():
            features = np.load(Path(folder, options["data_path"], f"{video}.npy"))
            np.testing.assert_array_equal(features, feature_rows(video, num_rows).features)


@pytest.mark.parametrize(("stride", "length"), [(16, 16), (1, 16), (4, 8)])
def test_the_reader_places_rows_at_the_centres_of_clips(
    tmp_path: Path, stride: int, length: int
) -> None:
    clip = ClipConfig(length=length, frame_rate=10)
    _, config, _ = recipe(tmp_path, clip=clip, stride=stride)
    options = config["dataset"]["test"]
    seconds = (np.arange(3) * options["feature_stride"] + options["offset_frames"]) / options["fps"]
    np.testing.assert_allclose(seconds, nominal_centers(3, clip, stride))


def test_the_model_suits_features_and_classes(tmp_path: Path) -> None:
    folder, config, model = recipe(tmp_path)
    projection = model["model"]["projection"]
    assert projection["in_channels"] == 6
    assert projection["max_seq_len"] % (32 * (19 // 2 * 2)) == 0  # the base model's windows
    trunc = next(t for t in config["dataset"]["train"]["pipeline"] if t["type"] == "RandomTrunc")
    assert trunc["trunc_len"] == projection["max_seq_len"]
    class_map = (folder / "data/ours/category_idx.txt").read_text().splitlines()
    assert model["model"]["rpn_head"]["num_classes"] == len(class_map) == 3


def test_the_evaluation_reads_the_validation_subset(tmp_path: Path) -> None:
    folder, config, _ = recipe(tmp_path)
    evaluation = config["evaluation"]
    database = json.loads((folder / evaluation["ground_truth_filename"]).read_text())["database"]
    truth = [v["annotations"] for v in database.values() if v["subset"] == evaluation["subset"]]
    assert truth == [[{"label": "class 2", "segment": [0.5, 2.0]}]]
    assert evaluation["tiou_thresholds"] == pytest.approx(ACTIVITYNET_TIOU)


def test_the_evaluation_has_the_thresholds_of_the_protocol(tmp_path: Path) -> None:
    _, config, _ = recipe(tmp_path, protocol="thumos14")
    assert config["evaluation"]["tiou_thresholds"] == pytest.approx(THUMOS14_TIOU)


def test_small_datasets_are_trained_long_enough(tmp_path: Path) -> None:
    _, _, model = recipe(tmp_path)  # two training videos with actions, so one step per epoch
    assert model["scheduler"]["max_epoch"] == 35 * 100
    assert model["scheduler"]["warmup_epoch"] == model["workflow"]["val_start_epoch"] == 5 * 100
    assert model["workflow"]["checkpoint_interval"] == 100  # 35 checkpoints, as with 35 epochs
