"""What a folder of features holds is neither lost nor mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.features.clips import CLIP, ENCODER, cut, video
from tsp_core import schemas, storage
from tsp_core.errors import ConfigError, StorageError
from tsp_core.features import loose
from tsp_core.features.quick import ExtractionReport, extract_files


def extract(videos: list[Path], out: str | Path, **options: Any) -> ExtractionReport:
    fields: dict[str, Any] = {"checkpoint": "random:0", "encoder": ENCODER, "clip": CLIP}
    return extract_files(videos, out=out, device="cpu", **(fields | {"stride": 4} | options))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    return [video(tmp_path / f"{name}.mp4", seconds=2.0) for name in "abc"]


def test_videos_are_added_one_by_one(tmp_path: Path, videos: list[Path]) -> None:
    extract(videos, tmp_path / "whole")
    for path in reversed(videos):
        extract([path], tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_of_a_video_the_newer_features_count(tmp_path: Path, videos: list[Path]) -> None:
    out = tmp_path / "out"
    broken = cut(tmp_path / "d.mp4", videos[0])
    extract([*videos, broken], out)
    video(videos[1], seconds=3.2)
    video(broken, seconds=2.0)
    extract([videos[1], broken], out)
    manifest = json.loads((out / "manifest.json").read_text())
    rows = {name: entry["rows"] for name, entry in manifest["videos"].items()}
    assert rows == {"a": 4, "b": 7, "c": 4, "d": 4}
    assert manifest["quarantined"] == {}
    times = schemas.read_table(str(out / "times.parquet"), "times")
    assert times["video"].to_pylist() == [name for name in rows for _ in range(rows[name])]
    assert len(np.load(out / "b.npy")) == 7


def test_a_video_that_fails_now_keeps_the_features_it_has(
    tmp_path: Path, videos: list[Path]
) -> None:
    out = tmp_path / "out"
    extract(videos, out)
    before = content(out)
    cut(videos[0], videos[0])
    report = extract(videos, out)
    assert set(report.quarantined) == {"a"}
    assert content(out) == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"stride": 8}, r"stride 4 \(now: 8\)"),
        ({"checkpoint": "random:1"}, r"checkpoint random:0:\w+ \(now: random:1:\w+\)"),
        ({"clip": {**CLIP.model_dump(), "length": 4}}, r"clip\.length 8 \(now: 4\)"),
        ({"format": "pkl"}, r"files \{video\}\.npy \(now: \{video\}\.pkl\)"),
    ],
    ids=["stride", "checkpoint", "clip", "format"],
)
def test_features_of_other_settings_are_refused_before_computing(
    tmp_path: Path,
    videos: list[Path],
    options: dict[str, Any],
    difference: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    extract(videos[:1], out)
    before = content(out)
    monkeypatch.setattr(loose, "_extract", lambda *_: pytest.fail("computed"))
    with pytest.raises(ConfigError, match=rf"out: holds features of other.*: {difference}; choose"):
        extract(videos, out, **options)
    assert content(out) == before


def test_a_file_of_all_videos_loses_none(tmp_path: Path, videos: list[Path]) -> None:
    out = tmp_path / "out"
    extract(videos[:2], out, format="h5")
    before = content(out)
    with pytest.raises(
        ConfigError, match=r"features\.h5 would lose the features of 1 videos .*'a'"
    ):
        extract(videos[1:], out, format="h5")
    broken = cut(videos[0], videos[0])
    with pytest.raises(ConfigError, match=r"would lose the features of 1 videos"):
        extract([broken, *videos[1:]], out, format="h5")
    assert content(out) == before
    video(broken, seconds=2.0)
    assert set(extract(videos, out, format="h5").videos) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manifest.json", "{"),
        ("manifest.json", '{"name": "my web app"}'),
        ("manifest.json", '{"manifest_version": 1}'),
        ("times.parquet", "cut"),
        ("times.parquet", None),
    ],
)
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, videos: list[Path], name: str, text: str | None
) -> None:
    out = tmp_path / "out"
    extract(videos[:1], out)
    (out / name).unlink() if text is None else (out / name).write_text(text)
    with pytest.raises(ConfigError, match=r"holds other files or damaged ones .*choose another"):
        extract(videos[:1], out)


def test_a_folder_that_cannot_be_written_is_found_before_computing(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loose, "_extract", lambda *_: pytest.fail("computed"))
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        message = f"{out}: features cannot be written there .*; choose another folder"
        with pytest.raises(StorageError, match=message):
            extract(videos, out)


def test_a_manifest_without_videos_as_older_releases_left_it_takes_any_features(
    tmp_path: Path, videos: list[Path]
) -> None:
    out = tmp_path / "out"
    extract(videos[:1], out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "videos": {}}))
    assert set(extract(videos, out, stride=8, format="h5").videos) == {"a", "b", "c"}


def test_where_every_video_fails_nothing_is_left(tmp_path: Path, videos: list[Path]) -> None:
    broken = cut(tmp_path / "d.mp4", videos[0])
    report = extract([broken, tmp_path / "none.mp4"], tmp_path / "new" / "inner" / "out")
    assert {name: why.code for name, why in report.quarantined.items()} == {
        "d": "unreadable",
        "none": "missing",
    }
    assert (report.videos, report.files) == ({}, ())
    assert not (tmp_path / "new").exists()
    extract([broken], "memory://target/failed")
    assert not storage.exists("memory://target/failed")


def test_where_every_video_fails_what_was_there_stays(tmp_path: Path, videos: list[Path]) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    extract(videos, out)
    before = content(out)
    broken = cut(tmp_path / "d.mp4", videos[0])
    for folder in (out, empty):
        extract([broken], folder)
    assert content(out) == before
    assert list(empty.iterdir()) == []


def test_an_error_leaves_no_empty_folder(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loose, "_extract", fail)
    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_features_of_another_file_are_replaced_with_a_warning(
    tmp_path: Path, videos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    extract(videos, out)
    extract(videos, out)
    assert caplog.messages == []
    extract([video(tmp_path / "other" / "b.mp4")], out)
    (message,) = caplog.messages
    assert message == (
        f"{out}: the features of 1 videos ('b') were of another file of that name, or of another "
        "version of it; they are replaced"
    )


def test_what_was_said_of_files_is_forgotten_with_newer_features(
    tmp_path: Path, videos: list[Path]
) -> None:
    out = tmp_path / "out"
    second = video(tmp_path / "x" / "a.mp4")
    extract([*videos, second], out)
    assert quarantined(out) == {"x/a.mp4": "duplicate_name"}
    extract([second], out)
    assert quarantined(out) == {}
    cut(videos[0], videos[0])
    cut(second, second)
    extract([*videos, second], out)
    assert quarantined(out) == {}, "its features are still there"


def quarantined(out: Path) -> dict[str, str]:
    manifest = json.loads((out / "manifest.json").read_text())
    return {name: why["code"] for name, why in manifest["quarantined"].items()}


def test_nothing_but_the_features_is_left_in_a_store(tmp_path: Path, videos: list[Path]) -> None:
    extract(videos[:1], "memory://target/out")
    extract(videos[1:2], "memory://target/out")
    names = {info.uri.rsplit("/", 1)[-1] for info in storage.list_objects("memory://target/out")}
    assert names == {"a.npy", "b.npy", "manifest.json", "times.parquet"}
    assert not storage.list_objects("memory://target/out", is_aside=True)
