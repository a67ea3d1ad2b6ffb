from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.features.samples import CLIP, context, facts, feature_rows
from tsp_core import schemas
from tsp_core.features.folder import FeatureFolder, folder_of_format
from tsp_core.features.manifest import FeatureSource, Quarantined

SOURCE = FeatureSource(
    encoder="r3d_18",
    feature_size=6,
    checkpoint="sha256:0123",
    clip=CLIP,
    stride=16,
    precision="fp32",
)


def written(folder: Path, **options: Any) -> tuple[dict[str, Path], dict[str, Any]]:
    folder.mkdir()
    output = FeatureFolder(folder, SOURCE, {"h5": "", "npy": folder_of_format("npy")}, **options)
    output.write(feature_rows("a", 3), facts(3))
    late = feature_rows("b", 2)
    late = replace(
        late,
        starts_seconds=late.starts_seconds + 0.02,
        ends_seconds=late.ends_seconds + 0.02,
        is_padded=np.array([True, False]),
    )
    output.write(late, facts(2, rate=Fraction(30000, 1001)))
    files = output.close({"c": Quarantined(code="corrupted", reason="it is broken")})
    return files, json.loads(files["manifest.json"].read_text())


def test_the_manifest_says_what_the_features_are(tmp_path: Path) -> None:
    files, manifest = written(tmp_path / "out")
    assert set(files) == {
        "features.h5",
        "npy/a.npy",
        "npy/b.npy",
        "manifest.json",
        "times.parquet",
    }
    assert manifest["files"] == {"h5": "features.h5", "npy": "npy/{video}.npy"}
    assert (manifest["encoder"], manifest["feature_size"]) == ("r3d_18", 6)
    assert (manifest["checkpoint"], manifest["precision"]) == ("sha256:0123", "fp32")
    assert manifest["clip"] == CLIP.model_dump(mode="json")
    assert manifest["stride"] == 16
    assert manifest["row_time"]["step_seconds"] == pytest.approx(16 / 15)
    assert manifest["row_time"]["first_center_seconds"] == pytest.approx(8 / 15)
    assert manifest["quarantined"] == {"c": {"code": "corrupted", "reason": "it is broken"}}


def test_the_manifest_says_what_each_video_is(tmp_path: Path) -> None:
    _, manifest = written(tmp_path / "out")
    a, b = manifest["videos"]["a"], manifest["videos"]["b"]
    assert (a["rows"], a["is_padded"], a["max_time_error_seconds"]) == (3, False, 0)
    assert (b["rows"], b["is_padded"]) == (2, True)
    assert b["max_time_error_seconds"] == pytest.approx(0.02)
    assert b["frame_rate_exact"] == "30000/1001"
    assert a["content_hash"] == "hash-a"
    assert a["duration_seconds"] == pytest.approx(3.2)


def test_times_of_all_rows_are_exact(tmp_path: Path) -> None:
    files, _ = written(tmp_path / "out")
    table = schemas.read_table(str(files["times.parquet"]), "times")
    assert table["video"].to_pylist() == ["a"] * 3 + ["b"] * 2
    assert table["row"].to_pylist() == [0, 1, 2, 0, 1]
    expected = [8 / 15, 24 / 15, 40 / 15, 8 / 15 + 0.02, 24 / 15 + 0.02]
    np.testing.assert_allclose(table["t_center"], expected)
    np.testing.assert_allclose(np.subtract(table["t_end"], table["t_start"]), 16 / 15)
    assert table["is_padded"].to_pylist() == [False, False, False, True, False]


def test_recipes_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    files, _ = written(tmp_path / "out", recipes=["bmt", "bmn"], context=context())
    assert "recipes/bmt/data/ours_npy/a_rgb.npy" in files
    assert "recipes/bmn/data/ours/video_info.csv" in files


def test_the_same_features_give_the_same_bytes(tmp_path: Path) -> None:
    one, _ = written(tmp_path / "one")
    two, _ = written(tmp_path / "two")
    assert {name: path.read_bytes() for name, path in one.items()} == {
        name: path.read_bytes() for name, path in two.items()
    }
