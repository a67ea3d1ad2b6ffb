"""Videos that are left out: files of one name, and stores that do not answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.features.clips import CLIP, ENCODER, cut, extractor, row, video
from tsp_core import storage
from tsp_core.errors import StorageError, StorageUnavailableError
from tsp_core.features import loose
from tsp_core.features.given import Given
from tsp_core.features.left_out import LeftOuts
from tsp_core.features.quick import ExtractionReport, extract_files
from tsp_core.video.files import local_video


def extract(videos: Any, out: Path, **options: Any) -> ExtractionReport:
    fields: dict[str, Any] = {"checkpoint": "random:0", "encoder": ENCODER, "clip": CLIP}
    return extract_files(videos, out=out, device="cpu", stride=4, **fields, **options)


def test_of_two_good_files_of_one_name_the_first_is_taken(tmp_path: Path) -> None:
    first = video(tmp_path / "b" / "x.mkv", seconds=2.0)
    second = video(tmp_path / "a" / "x.mp4")
    report = extract([first, second], tmp_path / "out")
    assert report.videos == {"x": 4}
    (left_out,) = report.quarantined.values()
    assert (left_out.uri, left_out.code) == (str(second), "duplicate_name")
    assert left_out.reason == (
        f"{str(first)!r} is called 'x' too, and its features were taken; to have both, rename one "
        "of the files, or give this one in a call with another folder (--out)"
    )
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert json.loads(manifest)["quarantined"]["a/x.mp4"] == {
        "code": "duplicate_name",
        "reason": "'b/x.mkv' is called 'x' too, and its features were taken; rename one of them, "
        "or use another folder",
    }
    assert str(tmp_path) not in manifest


@pytest.mark.parametrize("is_there", [True, False], ids=["broken", "missing"])
def test_where_the_first_file_of_a_name_fails_the_second_is_taken(
    tmp_path: Path, is_there: bool
) -> None:
    first, good = tmp_path / "a" / "x.mp4", video(tmp_path / "b" / "x.mkv", seconds=2.0)
    first.parent.mkdir()
    if is_there:
        cut(first, video(tmp_path / "whole.mp4"))
    third = video(tmp_path / "c" / "x.mp4")
    seen: list[tuple[int, int, str]] = []
    report = extract([first, good, third], tmp_path / "out", progress=lambda *a: seen.append(a))
    assert seen == [(1, 1, "x")]
    expected = extractor(16).extract_row(row(good), CLIP, 4).features
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "x.npy"), expected)
    assert set(report.quarantined) == {"a/x.mp4", "c/x.mp4"}
    failed = report.quarantined["a/x.mp4"]
    assert failed.code == ("unreadable" if is_there else "missing")
    assert failed.reason.endswith(f"; the features of 'x' are those of {str(good)!r}")
    assert f"{str(good)!r} is called 'x' too" in report.quarantined["c/x.mp4"].reason


def test_where_all_files_of_a_name_fail_each_is_told(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4", video(tmp_path / "y.mp4")]
    report = extract(paths, tmp_path / "out")
    assert {name: why.uri for name, why in report.quarantined.items()} == {
        "a/x.mp4": str(paths[0]),
        "b/x.mp4": str(paths[1]),
    }


def test_a_broken_link_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").symlink_to(tmp_path / "nowhere")
    report = extract([tmp_path / "x.mp4", video(tmp_path / "y.mp4")], tmp_path / "out")
    assert report.quarantined["x"].code == "missing"
    assert report.quarantined["x"].reason == "'x.mp4' is a broken link; mend or remove it"


def test_names_that_no_file_can_have_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    video(tmp_path / "y.mp4").rename(tmp_path / "v" / "a\x1bb.mp4")
    report = extract([tmp_path / "v", video(tmp_path / "y.mp4")], tmp_path / "out")
    assert set(report.videos) == {"y"}
    assert report.quarantined["v/a\x1bb.mp4"].code == "bad_name"


def test_a_store_that_fails_costs_no_features_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "y.mp4", seconds=2.0)
    storage.upload(path, "memory://there/z.mp4")
    asked: list[str] = []

    def fetched(uri: str, *rest: Any) -> Any:
        asked.append(uri)
        if "away" in uri:
            raise StorageUnavailableError(f"{uri}: cannot read: timed out")
        if "closed" in uri:
            raise StorageError(f"{uri}: cannot read: no permission")
        return local_video(uri, *rest)

    monkeypatch.setattr(loose, "local_video", fetched)
    uris = ["memory://away/a.mp4", "memory://away/b.mp4", "memory://closed/c.mp4"]
    uris += ["memory://closed/d.mp4", "memory://there/z.mp4"]
    report = extract([*uris, path], tmp_path / "out", cache_dir=tmp_path / "cache")
    assert set(report.videos) == {"y", "z"}
    assert {name: why.reason for name, why in report.quarantined.items()} == {
        "a": "memory://away/a.mp4: cannot read: timed out",
        "b": "not tried, as its store did not answer before "
        "(memory://away/a.mp4: cannot read: timed out)",
        "c": "memory://closed/c.mp4: cannot read: no permission",
        "d": "memory://closed/d.mp4: cannot read: no permission",
    }
    assert "memory://away/b.mp4" not in asked


def test_a_broken_file_of_a_store_is_called_by_its_own_name(tmp_path: Path) -> None:
    broken = cut(tmp_path / "x.mp4", video(tmp_path / "y.mp4", seconds=2.0))
    storage.upload(broken, "memory://broken/x.mp4")
    report = extract(
        ["memory://broken/", tmp_path / "y.mp4"], tmp_path / "out", cache_dir=tmp_path / "cache"
    )
    assert report.quarantined["x"].reason.startswith("'x.mp4' is no video file that can be opened")
    assert report.quarantined["x"].uri.endswith("broken/x.mp4")


def test_files_that_differ_in_their_signatures_are_both_told() -> None:
    videos = [Given(uri=f"https://host/x.mp4?key={key}", name="x") for key in "12"]
    left_out = LeftOuts(videos)
    for one in videos:
        left_out.add(one, "missing", "no such object")
    assert list(left_out.for_manifest) == ["host/x.mp4", "host/x.mp4 (2)"]
    assert {why.uri for why in left_out.for_people.values()} == {"https://host/x.mp4"}
