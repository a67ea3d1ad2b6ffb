from __future__ import annotations

import errno
import hashlib
import os
import pickle
from pathlib import Path

import fsspec
import pytest

from tsp_core import storage
from tsp_core.errors import StorageError, StorageUnavailableError, VideoError
from tsp_core.video.files import blamed_on_content, local_video, validate_video_name

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


def test_a_remote_video_is_called_by_its_own_name(tmp_path, remote):
    with (
        pytest.raises(
            VideoError, match=r"^corrupted: 'some video\.MP4': a damaged frame$"
        ) as raised,
        local_video(remote, SHA256, str(tmp_path)) as path,
    ):
        raise VideoError("corrupted", f"{path.name!r}: a damaged frame")
    assert pickle.loads(pickle.dumps(raised.value)).reason == raised.value.reason


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


def failure_of(uri: str, cache: Path, during: bytes | None = None) -> VideoError:
    """What is said of a file that cannot be decoded, and that gets other content meanwhile."""

    def use() -> None:
        with (
            blamed_on_content(uri, SHA256, str(cache)),
            local_video(uri, SHA256, str(cache)) as path,
        ):
            if during is not None:
                path.write_bytes(during)
            raise VideoError("truncated", "decoding stops early")

    with pytest.raises(VideoError) as caught:
        use()
    return caught.value


def test_a_failure_is_the_contents_only_where_the_file_is_what_ingest_measured(tmp_path, remote):
    path = tmp_path / "a.mp4"
    path.write_bytes(CONTENT)
    assert failure_of(str(path), tmp_path).code == "truncated"
    assert failure_of(remote, tmp_path).code == "truncated"  # fetched
    assert failure_of(remote, tmp_path).code == "truncated"  # from the cache
    path.write_bytes(CONTENT[:100])
    half = failure_of(str(path), tmp_path)
    assert half.code == "checksum"
    assert "'a.mp4' is not what ingest measured: it has SHA-256" in half.reason
    assert "truncated: decoding stops early" in half.reason
    copied = failure_of(str(path), tmp_path, during=CONTENT)  # whole only after it was read
    assert copied.code == "checksum"
    assert "changed while it was read" in copied.reason


def test_a_damaged_copy_is_discarded_and_a_good_one_kept(tmp_path, remote):
    assert failure_of(remote, tmp_path).code == "truncated"
    (copy,) = (tmp_path / "videos").iterdir()
    assert copy.read_bytes() == CONTENT
    copy.write_bytes(CONTENT[:100])
    assert failure_of(remote, tmp_path).code == "checksum"
    assert not copy.exists()
    with local_video(remote, SHA256, str(tmp_path)) as found:
        assert found.read_bytes() == CONTENT


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with (
        pytest.raises(VideoError, match="cannot be read now") as caught,
        blamed_on_content(str(tmp_path / "a.mp4"), SHA256, None),
    ):
        raise VideoError("unreadable", "a pipe")
    assert caught.value.code == "checksum"


def test_a_full_disk_of_the_cache_is_named(tmp_path, remote, monkeypatch):
    def full(uri: str, target: Path) -> None:
        raise StorageError("no space") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "download", full)
    message = rf"{tmp_path}.*no space for 'some video.MP4'.*runtime\.cache_dir"
    with (
        pytest.raises(StorageError, match=message),
        local_video(remote, None, str(tmp_path)),
    ):
        pass


@pytest.mark.parametrize("ending", ["", ".a b", ".\n", ".toolongtobeanending"])
def test_odd_endings_do_not_reach_the_cache(tmp_path, ending):
    uri = f"memory://files/odd{ending}"
    storage.write_bytes(uri, CONTENT)
    with local_video(uri, SHA256, str(tmp_path)) as found:
        assert found.name == SHA256
