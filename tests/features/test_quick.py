from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.features.clips import CLIP, ENCODER, cut, extractor, row, video
from tsp_core import storage
from tsp_core.errors import WeightsError
from tsp_core.features.quick import ExtractionReport, extract_files


def extract(videos: list[Path], out: Path, **options: Any) -> ExtractionReport:
    fields = {"checkpoint": "random:0", "encoder": ENCODER, "clip": CLIP, "stride": 4} | options
    return extract_files([str(path) for path in videos], out=str(out), device="cpu", **fields)


def test_features_of_files_and_a_bad_one_reported(tmp_path: Path) -> None:
    good = [video(tmp_path / "b.mp4"), video(tmp_path / "a.mkv", seconds=2.0)]
    bad = cut(tmp_path / "broken.mp4", good[0])
    seen: list[tuple[int, int, str]] = []
    report = extract([*good, bad], tmp_path / "out", progress=lambda *args: seen.append(args))
    assert report.videos == {"a": 4, "b": 7}
    assert report.quarantined["broken"].code == "unreadable"
    assert set(report.files) == {"a.npy", "b.npy", "manifest.json", "times.parquet"}
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "broken")]
    expected = extractor(16).extract_row(row(good[0]), CLIP, 4).features
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "b.npy"), expected)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest["videos"]) == {"a", "b"}
    assert set(manifest["quarantined"]) == {"broken"}
    assert manifest["checkpoint"].startswith("random:0")
    assert str(tmp_path) not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("name", "file"), [("h5", "features.h5"), ("pkl", "a.pkl"), ("parquet", "features.parquet")]
)
def test_every_format_lies_directly_in_the_folder(tmp_path: Path, name: str, file: str) -> None:
    report = extract([video(tmp_path / "a.mp4")], tmp_path / "out", format=name)
    assert file in report.files
    assert (tmp_path / "out" / file).is_file()


def test_an_object_store_takes_the_files_too(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", seconds=2.0)
    storage.upload(path, "memory://videos/a.mp4")
    report = extract_files(
        ["memory://videos/a.mp4"],
        checkpoint="random:0",
        encoder=ENCODER,
        clip=CLIP,
        stride=4,
        out="memory://features/out",
        format="h5",
        cache_dir=str(tmp_path / "cache"),
    )
    assert report.videos == {"a": 4}
    storage.download("memory://features/out/features.h5", tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["a"].shape == (4, 128)


def test_two_files_of_one_name_and_a_missing_one(tmp_path: Path) -> None:
    paths = [video(tmp_path / "a.mp4"), video(tmp_path / "x" / "a.mp4"), tmp_path / "none.mp4"]
    report = extract(paths, tmp_path / "out")
    assert set(report.videos) == {"a"}
    codes = {name: entry.code for name, entry in report.quarantined.items()}
    assert codes == {"x/a.mp4": "duplicate_name", "none": "missing"}


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="name the encoder too"):
        extract([video(tmp_path / "a.mp4")], tmp_path / "out", encoder=None)
