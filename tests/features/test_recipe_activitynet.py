"""What BMN and G-TAD do with their files for ActivityNet: `dataset.py` and `post_processing.py` of
JJBOY/BMN-Boundary-Matching-Network (and of the method author's fork), and `gtad_lib/dataset.py` and
`gtad_postprocess.py` of frostinassiky/gtad at f9afd44, told again in a few lines."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from tests.features.samples import VIDEOS, context, facts, feature_rows, write_recipe
from tsp_core.config import ClipConfig
from tsp_core.errors import ConfigError
from tsp_core.features.recipes import RECIPES


def tables(data: Path, subset: str) -> dict[str, dict[str, Any]]:
    """`_getDatasetDict` of both readers."""
    annotations = json.loads((data / "video_anno.json").read_text())
    with (data / "video_info.csv").open(newline="") as file:
        return {
            row["video"]: annotations[row["video"]]
            for row in csv.DictReader(file)
            if subset in row["subset"]
        }


def seconds_in_training(info: dict[str, Any]) -> float:
    return float(info["feature_frame"]) / info["duration_frame"] * info["duration_second"]


def seconds_in_testing(info: dict[str, Any]) -> float:
    return (
        float(info["duration_frame"] // 16 * 16)
        / info["duration_frame"]
        * (info["duration_second"])
    )


def rescaled(num_rows: int, size: int = 100) -> np.ndarray:
    features = torch.from_numpy(feature_rows("x", num_rows).features.T[None])
    return torch.nn.functional.interpolate(features, size=size, mode="linear")[0].T.numpy()


@pytest.mark.parametrize("name", ["bmn", "gtad"])
def test_videos_that_the_readers_take_for_one_are_refused(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name](tmp_path, context())
    recipe.write(feature_rows("a", 4), facts(4))
    with pytest.raises(
        ConfigError, match=r"export\.recipes: BMN and G-TAD .* 'a' and 'v_a' for one"
    ):
        recipe.write(feature_rows("v_a", 4), facts(4))


@pytest.mark.parametrize("name", ["bmn", "gtad"])
def test_training_and_testing_agree_on_the_time_that_the_rows_cover(
    tmp_path: Path, name: str
) -> None:
    data = write_recipe(tmp_path / "out", name, context()) / "data" / "ours"
    train, valid = tables(data, "train"), tables(data, "validation")
    assert sorted(train) == ["v_a", "v_b"]
    assert sorted(valid) == ["v_c"]
    for video, info in (train | valid).items():
        num_rows = VIDEOS.get(video) or VIDEOS[video[2:]]
        assert seconds_in_training(info) == pytest.approx(num_rows * 16 / 15)
        assert seconds_in_testing(info) == pytest.approx(seconds_in_training(info))
        assert info["annotations"], "the readers need an action in every video they train on"
    assert train["v_a"]["annotations"][0] == {"label": "class 0", "segment": [1.0, 3.5]}


@pytest.mark.parametrize("name", ["bmn", "gtad"])
def test_clips_of_any_length_and_stride_have_one_scale(tmp_path: Path, name: str) -> None:
    made = context(clip=ClipConfig(length=12), stride=5)
    data = write_recipe(tmp_path / "out", name, made) / "data" / "ours"
    info = tables(data, "train")["v_a"]
    covered = ((VIDEOS["v_a"] - 1) * 5 + 12) / 15
    assert seconds_in_training(info) == pytest.approx(covered)
    assert seconds_in_testing(info) == pytest.approx(covered)


@pytest.mark.parametrize("name", ["bmn", "gtad"])
def test_ground_truth_is_keyed_by_the_name_that_the_results_are(tmp_path: Path, name: str) -> None:
    data = write_recipe(tmp_path / "out", name, context()) / "data" / "ours"
    database = json.loads((data / "ground_truth.json").read_text())["database"]
    results = [video[2:] for video in tables(data, "validation")]  # what the readers write
    assert [video for video, v in database.items() if v["subset"] == "validation"] == results
    assert database["c"]["annotations"] == [{"label": "class 2", "segment": [0.5, 2.0]}]


def test_subsets_take_the_names_that_the_readers_look_for(tmp_path: Path) -> None:
    subsets = {"v_a": "fit", "b": "fit", "v_c": "check"}
    made = context(subsets=subsets, train_subset="fit", valid_subset="check")
    data = write_recipe(tmp_path / "out", "bmn", made) / "data" / "ours"
    assert sorted(tables(data, "train")) == ["v_a", "v_b"]
    assert sorted(tables(data, "validation")) == ["v_c"]


def test_bmn_reads_rescaled_csv_npy_and_h5(tmp_path: Path) -> None:
    data = write_recipe(tmp_path / "out", "bmn", context()) / "data" / "ours"
    for video, num_rows in VIDEOS.items():
        name = video if video.startswith("v_") else f"v_{video}"
        expected = rescaled(num_rows)
        lines = (data / "csv_mean_100" / f"{name}.csv").read_text().splitlines()
        assert len(lines) == 101  # the reader takes the first line for column names
        values = np.array([line.split(",") for line in lines[1:]], dtype=np.float32)
        np.testing.assert_allclose(values, expected, atol=1e-5)
        stored = np.load(data / "npy_100" / f"{name}.npy")
        np.testing.assert_array_equal(stored, values)
        with h5py.File(data / "features_100.h5") as file:
            np.testing.assert_array_equal(file[name][()], stored)


def test_gtad_reads_one_h5_file(tmp_path: Path) -> None:
    data = write_recipe(tmp_path / "out", "gtad", context()) / "data" / "ours"
    with h5py.File(data / "features_100.h5") as file:
        assert sorted(file) == ["v_a", "v_b", "v_c", "v_unlabelled"]
        features = torch.tensor(file["v_a"][()]).T  # the reader rescales once more, to the same
    again = torch.nn.functional.interpolate(features[None], size=100, mode="linear")[0]
    torch.testing.assert_close(again, features)
    np.testing.assert_allclose(features.T, rescaled(5), atol=1e-5)


def test_another_number_of_rows(tmp_path: Path) -> None:
    data = write_recipe(tmp_path / "out", "bmn", context(rescale_rows=64)) / "data" / "ours"
    np.testing.assert_allclose(np.load(data / "npy_64" / "v_a.npy"), rescaled(5, 64), atol=1e-5)
