"""Which video files are meant by files, folders and patterns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tsp_core import storage
from tsp_core.errors import ConfigError
from tsp_core.features import given
from tsp_core.features.given import Given, given_videos, short_names, video_name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, entered, with files that have the names of videos."""
    names = ("v/b.mp4", "v/a.MKV", "v/in/c.mov", "v/in/.hidden.mp4", "v/@eaDir/d.mp4", "v/e.txt")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def uris(*values: str) -> list[str]:
    return [video.uri for video in given_videos(values)]


@pytest.mark.parametrize("value", ["v", "v/", "./v", "v/**", "v/../v/"])
def test_a_folder_gives_all_videos_below_it_in_order(folder: Path, value: str) -> None:
    assert uris(value) == ["v/a.MKV", "v/b.mp4", "v/in/c.mov"]


def test_paths_are_as_they_were_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uris(f"{folder}/v/in") == [f"{folder}/v/in/c.mov"]
    assert uris(f"file://{folder}/v/in") == [f"{folder}/v/in/c.mov"]
    monkeypatch.chdir(folder / "v" / "in")
    assert uris(".") == ["c.mov"]
    assert uris("../*.mp4") == ["../b.mp4"]
    monkeypatch.setenv("HOME", str(folder))
    assert uris("~/v/*.mp4") == [f"{folder}/v/b.mp4"]


def test_a_hidden_folder_that_is_named_itself_is_none(folder: Path) -> None:
    (folder / "v").rename(folder / ".v")
    assert uris(".v/*.mp4") == [".v/b.mp4"]
    assert uris(".v/in") == [".v/in/c.mov"]


def test_patterns_match_videos_alone(folder: Path) -> None:
    assert uris("v/*") == ["v/a.MKV", "v/b.mp4"]
    assert uris("v/[bc].*", "v/i?/*.mov") == ["v/b.mp4", "v/in/c.mov"]


def test_files_are_taken_as_they_are_named(folder: Path) -> None:
    (folder / "take[1].mp4").touch()
    assert uris("v/e.txt", "none.mp4", "take[1].mp4") == ["v/e.txt", "none.mp4", "take[1].mp4"]


def test_each_file_is_taken_once(folder: Path) -> None:
    values = ("v/b.mp4", "./v/b.mp4", f"{folder}/v/b.mp4", f"file://{folder}/v/b.mp4", "v/*.mp4")
    assert uris(*values) == ["v/b.mp4"]
    os.symlink("v/b.mp4", "named_anew.mp4")  # noqa: PTH211 - relative to the folder
    assert [video.name for video in given_videos(["v/b.mp4", "named_anew.mp4"])] == [
        "b",
        "named_anew",
    ]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("w", "no videos found"),
        ("w/", "no videos found"),
        ("w/*.mp4", "no videos found"),
        ("v/*.txt", "no videos found"),
        ("none/", "does not exist, or holds nothing"),
        ("memory://given-none/x/", "does not exist, or holds nothing"),
        ("memory://given-none/x/*", "no videos found"),
    ],
)
def test_without_videos_the_error_names_what_was_given(folder: Path, value: str, what: str) -> None:
    (folder / "w").mkdir()
    with pytest.raises(ConfigError) as caught:
        given_videos(["v", value])
    start = f"features: videos: {value!r}: {what}; looked for files that end in mp4, "
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith("; name files of other endings one by one")


def test_no_video_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="features: videos: none given; name files, folders or"):
        given_videos([])


def test_folders_and_patterns_of_stores() -> None:
    root = "memory://given/videos"
    for name in ("b.mp4", "in/a.mkv", "note.txt"):
        storage.write_bytes(f"{root}/{name}", b"")
    names = [video.name for video in given_videos([f"{root}/"])]
    assert names == ["b", "a"]
    assert [video.name for video in given_videos([f"{root}/*.mp4", root])] == ["b", "a"]


def test_a_store_is_not_asked_about_names_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("is_folder", "exists"):
        monkeypatch.setattr(given.storage, name, lambda uri: pytest.fail(f"asked for {uri}"))
    values = (
        "s3://bucket/a.mp4",
        "https://host/b.mp4?signature=x*",
        "https://host/video/17",
        "https://host/v/",
    )
    assert uris(*values) == list(values)


def test_names_that_no_file_can_have_are_refused(folder: Path) -> None:
    for name in (b"v/\xff.mp4", b"v/a\x1bb.mp4"):
        Path(os.fsdecode(name)).touch()
    found = {video.shown: video.refused for video in given_videos(["v"])}
    refused = {shown: why.code for shown, why in found.items() if why is not None}
    assert refused == {"v/a\x1bb.mp4": "bad_name", "v/\ufffd.mp4": "bad_name"}
    (single,) = given_videos([os.fsdecode(b"\xff.mp4")])
    assert single.shown == "?.mp4"
    assert single.refused is not None


def test_the_name_is_that_of_the_file_without_signature() -> None:
    assert video_name("https://host/folder/clip.one.mp4?signature=secret.x/y.mp4") == "clip.one"


def test_short_names_tell_files_apart(folder: Path) -> None:
    values = [
        "a/x/v.mp4",
        "b/x/v.mp4",
        "c/y/v.mkv",
        "/v.mp4",
        "https://host/v.mp4?signature=secret",
    ]
    short = short_names(Given(uri=uri, name="v") for uri in values)
    expected = ["a/x/v.mp4", "b/x/v.mp4", "y/v.mkv", "/v.mp4", "host/v.mp4"]
    assert [short[uri] for uri in values] == expected
