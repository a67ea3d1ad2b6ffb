"""What G-TAD and P-GCN do with their files for THUMOS14, and BMT with its own.

`gtad_lib/dataset.py` of frostinassiky/gtad, `ops/I3D_Pooling.py` of Alvin-Zeng/PGCN (and of the
method author's fork) and `datasets/load_features.py` of v-iashin/BMT, told again in a few lines.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.features.samples import CLIP, VIDEOS, context, feature_rows, write_recipe
from tsp_core.features.recipes import RECIPES
from tsp_core.features.rows import FeatureRows, VideoFacts, nominal_centers

NAMES = ("video_test_0000004", "video_validation_0000051")
RATE = Fraction(30)


def signal(video: str, num_rows: int, stride: int) -> tuple[FeatureRows, VideoFacts]:
    """Rows whose every value is the row's time in seconds, of a video of that length."""
    rows = feature_rows(video, num_rows, stride=stride)
    times = nominal_centers(num_rows, CLIP, stride)
    features = np.repeat(times[:, None], 6, axis=1).astype(np.float32)
    seconds = ((num_rows - 1) * stride + 16) / 15
    facts = VideoFacts(
        num_frames=round(seconds * RATE),
        duration_seconds=seconds,
        frame_rate=RATE,
        is_variable_rate=False,
    )
    fields = {"starts_seconds": rows.starts_seconds, "ends_seconds": rows.ends_seconds}
    made = FeatureRows(
        video=video,
        content_hash="",
        features=features,
        is_padded=rows.is_padded,
        **fields,
    )
    return made, facts


def write(folder: Path, name: str, stride: int) -> tuple[Path, dict[str, VideoFacts]]:
    folder.mkdir()
    recipe = RECIPES[name](folder, context(stride=stride))
    found = {}
    for video in NAMES:
        rows, found[video] = signal(video, 200, stride)
        recipe.write(rows, found[video])
    recipe.close()
    return folder / "data" / "ours", found


@pytest.mark.parametrize("stride", [1, 16])
def test_gtad_joins_two_files_and_has_a_row_per_frame(tmp_path: Path, stride: int) -> None:
    data, facts = write(tmp_path / "out", "gtad", stride)
    skip = 5
    for video, split in zip(NAMES, ("test", "val"), strict=True):
        with (
            h5py.File(data / f"flow_{split}.h5") as flow,
            h5py.File(data / f"rgb_{split}.h5") as rgb,
        ):
            assert list(flow) == list(rgb) == [video]
            assert len(rgb[video]) == facts[video].num_frames
            joined = np.concatenate([flow[video][::skip], rgb[video][::skip]], axis=1)
        assert joined.shape[1] == 6
        frames = np.arange(len(joined)) * skip  # what the reader takes the rows for
        inside = (frames / 30 > 8 / 15) & (frames / 30 < facts[video].duration_seconds - 8 / 15)
        np.testing.assert_allclose(joined[inside, 0], frames[inside] / 30, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 16])
def test_pgcn_pools_rows_by_frame_numbers(tmp_path: Path, stride: int) -> None:
    data, facts = write(tmp_path / "out", "pgcn", stride)
    for video in NAMES:
        tensor = torch.load(data / "tensors" / video, weights_only=True)
        with h5py.File(data / "features.h5") as file:
            np.testing.assert_array_equal(file[video][()], tensor.numpy())
        assert tensor.dtype == torch.float32
        num_frames = facts[video].num_frames
        assert len(tensor) == (num_frames - 64) // 8 + 1
        start, end = 30.0, 210.0  # frames of a proposal
        first = int(min(len(tensor) - 1, np.floor(start / 8)))
        last = int(min(len(tensor) - 2, np.ceil((end - 64) / 8)))
        pooled = torch.max(tensor[first : last + 1], 0)[0]
        np.testing.assert_allclose(pooled, (last * 8 + 32) / 30, atol=1e-4)


def test_pgcn_has_a_row_of_the_shortest_video(tmp_path: Path) -> None:
    recipe = RECIPES["pgcn"](tmp_path, context())
    recipe.write(*signal("video_test_0000004", 1, 16))
    recipe.close()
    tensor = torch.load(tmp_path / "data/ours/tensors/video_test_0000004", weights_only=True)
    assert tensor.shape == (1, 6)


def test_bmt_adds_two_streams_up(tmp_path: Path) -> None:
    data = write_recipe(tmp_path / "out", "bmt", context()) / "data" / "ours_npy"
    for video, num_rows in VIDEOS.items():
        rgb, flow = (np.load(data / f"{video}_{stream}.npy") for stream in ("rgb", "flow"))
        assert rgb.shape == flow.shape
        np.testing.assert_array_equal(rgb + flow, feature_rows(video, num_rows).features)


@pytest.mark.parametrize("name", RECIPES)
def test_equal_features_give_equal_files(tmp_path: Path, name: str) -> None:
    folders = [write_recipe(tmp_path / run, name, context()) for run in ("one", "two")]
    contents = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in folders
    ]
    assert contents[0] == contents[1]
    assert contents[0]
