from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.features.samples import facts, feature_rows
from tsp_core import schemas
from tsp_core.extensions import FEATURE_FORMATS
from tsp_core.features.formats import FORMATS
from tsp_core.features.rows import features_from_table

VIDEOS = {"a": 3, "b c": 1, "v_é": 5}


def written(folder: Path, name: str) -> dict[str, bytes]:
    folder.mkdir()
    writer = FORMATS[name].writer(folder, 6)
    for video, num_rows in VIDEOS.items():
        writer.write(feature_rows(video, num_rows), facts(num_rows))
    writer.close()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_back(folder: Path, name: str, video: str) -> np.ndarray:
    path = folder / FORMATS[name].layout.format(video=video)
    if name == "h5":
        with h5py.File(path) as file:
            return file[video][()]
    if name == "npy":
        return np.load(path)
    if name == "pkl":
        return pickle.loads(path.read_bytes())
    table = schemas.read_table(str(path), "features", filters=[("video", "=", video)])
    return features_from_table(table).features


def test_every_configured_format_has_a_writer() -> None:
    assert set(FORMATS) == set(FEATURE_FORMATS.builtin)


@pytest.mark.parametrize("name", FORMATS)
def test_features_read_back_as_float32(tmp_path: Path, name: str) -> None:
    written(tmp_path / "out", name)
    for video, num_rows in VIDEOS.items():
        found = read_back(tmp_path / "out", name, video)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, feature_rows(video, num_rows).features)


@pytest.mark.parametrize("name", FORMATS)
def test_equal_features_give_equal_bytes(tmp_path: Path, name: str) -> None:
    assert written(tmp_path / "one", name) == written(tmp_path / "two", name)


def test_h5_has_the_released_layout(tmp_path: Path) -> None:
    written(tmp_path / "out", "h5")
    with h5py.File(tmp_path / "out" / "features.h5") as file:
        assert sorted(file) == sorted(VIDEOS)
        assert all(isinstance(item, h5py.Dataset) and item.ndim == 2 for item in file.values())


def test_pickles_name_no_numpy_2_module(tmp_path: Path) -> None:
    files = written(tmp_path / "out", "pkl")
    assert all(b"numpy._core" not in content for content in files.values())
    assert all(b"cnumpy.core.multiarray\n" in content for content in files.values())


def test_parquet_is_of_the_features_schema(tmp_path: Path) -> None:
    written(tmp_path / "out", "parquet")
    table = schemas.read_table(str(tmp_path / "out" / "features.parquet"), "features")
    assert table.schema.names == schemas.features_schema(6).fields.names
    assert table.num_rows == sum(VIDEOS.values())
