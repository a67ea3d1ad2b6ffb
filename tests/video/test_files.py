from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec
import pytest

from tsp_core import storage
from tsp_core.errors import StorageUnavailableError, VideoError
from tsp_core.video.files import local_video, validate_video_name

CONTENT = b"the content of a video" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def remote() -> str:
    uri = "memory://files/some video.MP4"
    storage.write_bytes(uri, CONTENT)
    yield uri
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize(
    "name", ["v_ZNVhz7ctTq0", "a b", "line\nbreak", "犬", "...", "a..b", "-rf", "x" * 200]
)
def test_odd_names_are_fine(name):
    assert validate_video_name(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", "a slash"),
        ("..\\b", "a backslash"),
        ("a\0b", "a NUL"),
        ("..", "cannot name a file"),
        (".", "cannot name a file"),
        ("", "cannot name a file"),
        ("  ", "cannot name a file"),
        ("犬" * 67, "201 bytes long"),
        ("a\udcffb", "not valid Unicode"),
    ],
)
def test_names_that_no_file_can_have_are_refused(name, message):
    with pytest.raises(VideoError, match=message) as caught:
        validate_video_name(name)
    assert caught.value.code == "bad_name"


def test_local_files_are_used_in_place(tmp_path):
    path = tmp_path / "a.mp4"
    for uri in (str(path), f"file://{path}"):
        with local_video(uri, SHA256, None) as found:
            assert found == path


def test_remote_files_are_fetched_once(tmp_path, remote):
    cache = tmp_path / "cache"
    with local_video(remote, None, str(cache)) as first:
        assert first.read_bytes() == CONTENT
        assert first == cache / "videos" / f"{SHA256}.mp4"
    storage.delete(remote)
    with local_video(remote, SHA256, str(cache)) as second:
        assert second == first
    assert [path.name for path in (cache / "videos").iterdir()] == [first.name]


def test_the_default_cache_is_the_users(tmp_path, remote, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with local_video(remote, SHA256, None) as found:
        assert found.parent == tmp_path / "tsp" / "videos"


def test_other_content_is_refused_and_not_kept(tmp_path, remote):
    with (
        pytest.raises(VideoError, match="has SHA-256") as caught,
        local_video(remote, "0" * 64, str(tmp_path)),
    ):
        pass
    assert caught.value.code == "checksum"
    assert list((tmp_path / "videos").iterdir()) == []


def test_a_missing_object_is_told_apart_from_a_store_that_does_not_answer(tmp_path, monkeypatch):
    with (
        pytest.raises(VideoError, match="no such object") as caught,
        local_video("memory://files/none.mp4", SHA256, str(tmp_path)),
    ):
        pass
    assert caught.value.code == "missing"

    def unavailable(uri: str, target: Path) -> None:
        raise StorageUnavailableError("no answer")

    monkeypatch.setattr(storage, "download", unavailable)
    with (
        pytest.raises(StorageUnavailableError, match="no answer"),
        local_video("memory://files/none.mp4", SHA256, str(tmp_path)),
    ):
        pass


@pytest.mark.parametrize("ending", ["", ".a b", ".\n", ".toolongtobeanending"])
def test_odd_endings_do_not_reach_the_cache(tmp_path, ending):
    uri = f"memory://files/odd{ending}"
    storage.write_bytes(uri, CONTENT)
    with local_video(uri, SHA256, str(tmp_path)) as found:
        assert found.name == SHA256
