from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsp_core import storage
from tsp_core.config import IngestConfig
from tsp_core.errors import ConfigError
from tsp_core.video.listing import Source, _duplicate, list_sources

FILES = [
    "b.mp4",
    "a.MKV",
    "sub/c.avi",
    "sub/deep/d d.mp4",
    "notes.txt",
    ".hidden.mp4",
    "sub/._a.mp4",
    ".trash/e.mp4",
    "sub/.cache/deep/e.mp4",
    "sub/@eaDir/d d.mp4/e.mp4",
    "__MACOSX/e.mp4",
]


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path) -> str:
    base = str(tmp_path / "videos") if request.param == "local" else "memory://listing/videos"
    for name in FILES:
        storage.write_bytes(storage.join(base, name), name.encode())
    yield base
    fsspec.filesystem("memory").store.clear()


def names(videos, **changes) -> list[str]:
    return [source.name for source in list_sources(IngestConfig(videos=videos, **changes))]


def test_folders_are_listed_with_all_below_them(folder):
    assert names(folder) == names(folder + "/") == ["a", "b", "c", "d d"]
    assert names(folder, names="path") == ["a", "b", "sub__c", "sub__deep__d d"]
    assert names(folder, extensions=("avi",)) == ["c"]


def test_what_is_hidden_is_passed_over_below_the_folder_only(folder):
    assert names(f"{folder}/**/*.mp4") == ["b", "d d"]
    assert names(f"{folder}/.trash") == ["e"]
    assert names(f"{folder}/__MACOSX/*.mp4") == ["e"]
    assert names(f"{folder}/.hidden.mp4") == [".hidden"]


def test_globs_and_single_files(folder):
    assert names(f"{folder}/*.mp4") == ["b"]
    assert names(f"{folder}/**/*.mp4", names="path") == ["b", "sub__deep__d d"]
    assert names((f"{folder}/b.mp4", f"{folder}/sub")) == ["b", "c", "d d"]
    assert names((f"{folder}/b.mp4", f"{folder}/sub/c.avi"), names="path") == ["b", "sub__c"]
    assert names((folder, f"{folder}/b.mp4", f"{folder}/*.mp4")) == ["a", "b", "c", "d d"]


def test_names_with_the_signs_of_a_glob_are_files(tmp_path):
    (tmp_path / "a [1].mp4").touch()
    assert names(str(tmp_path / "a [1].mp4")) == ["a [1]"]


def test_tokens_change_with_the_file(folder):
    before = {source.name: source.token for source in list_sources(IngestConfig(videos=folder))}
    assert all(before.values())
    storage.write_bytes(storage.join(folder, "b.mp4"), b"another content")
    after = {source.name: source.token for source in list_sources(IngestConfig(videos=folder))}
    assert [name for name in before if before[name] != after[name]] == ["b"]


def test_a_file_named_or_listed_has_one_token(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"1")
    (one,) = list_sources(IngestConfig(videos=str(tmp_path)))
    (other,) = list_sources(IngestConfig(videos=str(tmp_path / "a.mp4")))
    assert one == other


def test_links_to_folders_are_followed(tmp_path):
    for name in ("videos/own/a.mp4", "disk/b.mp4", "disk/deep/c.mp4", "far/d.mp4", "no/e.mp4"):
        storage.write_bytes(str(tmp_path / name), b"1")
    videos = tmp_path / "videos"
    (videos / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "further").symlink_to("../far")
    (videos / ".hidden").symlink_to(tmp_path / "no")
    found = [source.uri for source in list_sources(IngestConfig(videos=str(videos)))]
    below = ["own/a.mp4", "linked/b.mp4", "linked/deep/c.mp4", "linked/further/d.mp4"]
    assert found == [str(videos / name) for name in below]


def test_no_folder_is_listed_twice_and_none_without_end(tmp_path, caplog):
    for name in ("videos/own/a.mp4", "disk/b.mp4"):
        storage.write_bytes(str(tmp_path / name), b"1")
    videos = tmp_path / "videos"
    (videos / "again").symlink_to("own")
    (videos / "one").symlink_to(tmp_path / "disk")
    (videos / "other").symlink_to(tmp_path / "disk")
    (videos / "itself").symlink_to(videos)
    (videos / "own" / "all").symlink_to(tmp_path)
    (tmp_path / "disk" / "back").symlink_to(videos)
    found = [source.uri for source in list_sources(IngestConfig(videos=str(videos)))]
    assert found == [str(videos / name) for name in ("own/a.mp4", "one/b.mp4")]
    for name in ("itself", "own/all", "one/back"):
        assert f"{videos / name}: a link to a folder that holds it is not followed" in caplog.text


def test_folders_that_cannot_be_listed_are_told(tmp_path, caplog):
    """Their paths are too long for the system, which holds for root too."""
    (tmp_path / "a.mp4").touch()
    for name in ("v" * 200, ".hidden", "lost+found"):
        make_deep(tmp_path / name)
    assert names(str(tmp_path)) == ["a"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "v" * 200 in told[0]
    assert "cannot be listed (File name too long): the videos in it are left out" in told[0]


def make_deep(folder: Path) -> None:
    """Make folders in a folder until the path of the last is too long to be listed."""
    folder.mkdir()
    present = os.open(folder, os.O_RDONLY)
    for _ in range(22):
        os.mkdir("v" * 200, dir_fd=present)
        inner = os.open("v" * 200, os.O_RDONLY, dir_fd=present)
        os.close(present)
        present = inner
    os.close(present)


@pytest.mark.parametrize("pattern", ["videos", "videos/*.mp4", "videos/a.mp4"])
def test_tokens_of_links_change_with_their_targets(tmp_path, pattern):
    (tmp_path / "videos").mkdir()
    (tmp_path / "target").write_bytes(b"1")
    (tmp_path / "videos" / "a.mp4").symlink_to(tmp_path / "target")

    def token() -> str:
        (source,) = list_sources(IngestConfig(videos=str(tmp_path / pattern)))
        return source.token

    before = token()
    assert token() == before
    os.utime(tmp_path / "target", (1, 1))
    assert token() != before
    os.utime(tmp_path / "videos" / "a.mp4", (2, 2), follow_symlinks=False)
    assert token() == f"1-{1.0}"


@pytest.mark.parametrize("target", ["gone.mp4", "a.mp4"], ids=["dangling", "to itself"])
@pytest.mark.parametrize("pattern", ["videos", "videos/*.mp4", "videos/list.csv"])
def test_links_that_lead_nowhere_are_quarantined(tmp_path, pattern, target):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to(target)
    write_list(str(tmp_path / "videos"), "csv", {"uri": ["a.mp4"]})
    (source,) = list_sources(IngestConfig(videos=str(tmp_path / pattern)))
    assert (source.name, source.code) == ("a", "missing")
    assert source.reason.startswith(f"'a.mp4' is a broken link: its target '{target}' does not")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_list_files_name_videos_and_checksums(folder, ending):
    rows = {
        "uri": ["b.mp4", "sub/c.avi", f"{folder}/a.MKV"],
        "video": ["second", "", None],
        "sha256": ["A" * 64, None, ""],
        "split": ["x", "y", "z"],
    }
    sources = list_sources(IngestConfig(videos=write_list(folder, ending, rows)))
    found = [(source.name, source.sha256, source.code) for source in sources]
    assert found == [("a", None, None), ("c", None, None), ("second", "a" * 64, None)]


def write_list(folder: str, ending: str, rows: dict[str, list]) -> str:
    uri = f"{folder}/list.{ending}"
    if ending == "csv":
        lines = [",".join(rows), *(",".join(v or "" for v in row) for row in zip(*rows.values()))]  # noqa: B905
        storage.write_bytes(uri, "\ufeff".encode() + "\r\n".join(lines).encode())
    else:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(rows), sink)
        storage.write_bytes(uri, sink.getvalue().to_pybytes())
    return uri


def test_listed_files_that_do_not_exist_are_quarantined(folder):
    sources = list_sources(
        IngestConfig(videos=write_list(folder, "csv", {"uri": ["b.mp4", "gone/x.mp4"]}))
    )
    assert [(source.name, source.code) for source in sources] == [("b", None), ("x", "missing")]
    assert sources[1].reason == "'gone/x.mp4' does not exist"


def test_one_name_for_two_files_goes_to_the_first(tmp_path):
    for name in ("y/a.mp4", "x/a.mkv", "z/a.mp4", "x/b.mp4"):
        storage.write_bytes(str(tmp_path / name), b"1")
    sources = list_sources(IngestConfig(videos=str(tmp_path)))
    found = {source.name: (Path(source.uri).parent.name, source.code) for source in sources}
    assert found == {
        "a": ("x", None),
        "a (duplicate 2)": ("y", "duplicate_name"),
        "a (duplicate 3)": ("z", "duplicate_name"),
        "b": ("x", None),
    }
    reason = next(source.reason for source in sources if source.name == "a (duplicate 2)")
    assert "'y/a.mp4'" in reason
    assert "'x/a.mkv'" in reason
    assert names(str(tmp_path), names="path") == ["x__a", "x__b", "y__a", "z__a"]


def test_numbers_of_duplicates_avoid_names_that_files_have(tmp_path):
    for name in ("1/a.mp4", "2/a (duplicate 3).mp4", "3/a.mp4", "4/a.mp4", "5/a.mp4"):
        storage.write_bytes(str(tmp_path / name), b"1")
    found = {
        source.name: Path(source.uri).parent.name
        for source in list_sources(IngestConfig(videos=str(tmp_path)))
    }
    numbered = {
        f"a (duplicate {number})": place for number, place in ((2, "3"), (4, "4"), (5, "5"))
    }
    assert found == {"a": "1", "a (duplicate 3)": "2"} | numbered


def test_many_files_of_one_name_are_numbered_without_counting_again():
    taken = Looked(f"a (duplicate {number})" for number in range(2, 1000))
    numbers = {"a": 999}
    source = Source(name="a", uri="x/a.mp4", token="1")
    assert _duplicate(source, "x/a.mp4", "a.mp4", taken, numbers).name == "a (duplicate 1000)"
    assert (taken.num_lookups, numbers) == (1, {"a": 1000})


class Looked(dict[str, Source]):
    """Names that are taken; counts how often one is looked up."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__((name, Source(name=name, uri=name, token="1")) for name in names)
        self.num_lookups = 0

    def __contains__(self, name: object) -> bool:
        self.num_lookups += 1
        return super().__contains__(name)


def test_names_that_no_file_can_have_are_quarantined(folder):
    rows = {"uri": ["b.mp4", "sub/c.avi"], "video": ["../../escape", "x" * 300]}
    sources = list_sources(IngestConfig(videos=write_list(folder, "csv", rows)))
    assert [source.code for source in sources] == ["bad_name", "bad_name"]


def test_file_names_that_are_not_unicode_are_quarantined(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4")).touch()
    (source,) = list_sources(IngestConfig(videos=str(tmp_path)))
    assert source.code == "bad_name"
    assert source.uri.encode("utf-8").endswith("bad\ufffd.mp4".encode())


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (None, "ingest.videos: not set"),
        ("", "ingest.videos: not set"),
        ("{}/empty", "ingest.videos: '.*/empty': no videos found.*mp4, mkv"),
        ("{}/*.mov", "no videos found"),
        ("{}/vidoes", r"ingest.videos: '.*/vidoes' does not exist; correct the path"),
        ("memory://store/vidoes", "ingest.videos: 'memory://store/vidoes' does not exist"),
        (("{}/a.mp4", "{}/b.mp4"), "ingest.videos: '.*/b.mp4' does not exist"),
        ("{}/no_uri.csv", r"no column 'uri' \(found: path, video\)"),
        ("{}/empty_uri.csv", "row 2: the column 'uri' is empty"),
        ("{}/bad_sha.csv", "row 1: sha256 'abc' is not a SHA-256"),
        ("{}/not_text.csv", "not a readable CSV list"),
        ("{}/not_parquet.parquet", "not a readable Parquet list"),
        ("{}/gone.csv", "not a readable CSV list: .*no such file"),
        ("{}/nothing.csv", "no column 'uri'"),
    ],
)
def test_what_cannot_be_listed_is_refused(tmp_path, videos, message):
    (tmp_path / "empty").mkdir()
    contents = {
        "no_uri.csv": b"path,video\na.mp4,a\n",
        "empty_uri.csv": b"uri,video\na.mp4,a\n,b\n",
        "bad_sha.csv": b"uri,sha256\na.mp4,abc\n",
        "not_text.csv": b"uri\n\xff\xfe\n",
        "not_parquet.parquet": b"PAR1 no",
        "nothing.csv": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.mp4").touch()
    if isinstance(videos, tuple):
        videos = tuple(uri.format(tmp_path) for uri in videos)
    elif videos:
        videos = videos.format(tmp_path)
    with pytest.raises(ConfigError, match=message):
        list_sources(IngestConfig(videos=videos))


def test_a_misspelt_path_is_corrected(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "first.mp4").write_bytes(b"x")
    for given, meant in (("vidoes", "videos"), ("videos/frist.mp4", "videos/first.mp4")):
        section = IngestConfig(videos=str(tmp_path / given))
        with pytest.raises(ConfigError, match=f"did you mean '{tmp_path / meant}'"):
            list_sources(section)
    with pytest.raises(ConfigError, match=r"does not exist; correct the path\. What"):
        list_sources(IngestConfig(videos=str(tmp_path / "elsewhere" / "a.mp4")))
