from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsp_core import storage
from tsp_core.config import IngestConfig
from tsp_core.errors import ConfigError
from tsp_core.video.listing import list_sources

FILES = [
    "b.mp4",
    "a.MKV",
    "sub/c.avi",
    "sub/deep/d d.mp4",
    "notes.txt",
    ".hidden.mp4",
    "sub/._a.mp4",
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
    with pytest.raises(ConfigError, match=message):
        list_sources(IngestConfig(videos=videos and videos.format(tmp_path)))
