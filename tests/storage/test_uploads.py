"""Uploads that were never completed: found, told with their sizes, aborted, on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.core import url_to_fs

from tests.fakes import FakeStages
from tests.servers import s3_store
from tsp_core import prune, storage
from tsp_core.config import Config
from tsp_core.config.io import load_config
from tsp_core.prune import Garbage, find_garbage, remove

PART = bytes(5 << 20)  # the least that S3 takes, but for the last one


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with (
        pytest.MonkeyPatch.context() as patched,
        s3_store(tmp_path_factory.mktemp("weed")) as store,
    ):
        for name, value in store.environment.items():
            patched.setenv(name, value)
        yield f"s3://{store.bucket}"


@pytest.fixture
def config(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    FakeStages().install(monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "a.yaml"
    path.write_text(f"name: a\nroot: {bucket}/{tmp_path.name}/root\n")
    return load_config(str(path))


def begin_upload(uri: str, *parts: bytes) -> None:
    """What a writer that is killed after some parts leaves."""
    fs, path = url_to_fs(uri)
    bucket, key, _ = fs.split_path(path)
    which = {"Bucket": bucket, "Key": key}
    which["UploadId"] = fs.call_s3("create_multipart_upload", **which)["UploadId"]
    for number, part in enumerate(parts, start=1):
        fs.call_s3("upload_part", **which, PartNumber=number, Body=part)


def uploads_in(garbage: list[Garbage]) -> list[tuple[str, int]]:
    return [(item.uri, item.size_bytes) for item in garbage if item.kind == "unfinished upload"]


@pytest.mark.server
def test_unfinished_uploads_are_pruned_when_they_are_old(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = config.root_uri
    object_uri = f"{root}/export/0123456789abcdef/features.h5"
    begin_upload(object_uri, PART, b"end")
    begin_upload(object_uri)
    foreign = [f"{root}/notes/video.mp4", f"{root}-other/export/a"]
    for uri in foreign:
        begin_upload(uri, b"x")
    assert storage.list_objects(root) == []
    assert find_garbage(config, keep_hours=0) == []  # they may be under way
    monkeypatch.setattr(prune, "_NO_NOTE_HOURS", -1.0)
    assert find_garbage(config) == []  # so has the user said
    found = find_garbage(config, keep_hours=-1)
    expected = [(object_uri, 0), (object_uri, len(PART) + 3)]
    assert sorted(uploads_in(found)) == expected
    assert remove(config, found, keep_hours=-1) == 2
    assert uploads_in(find_garbage(config, keep_hours=-1)) == []
    left = [item.uri for item in storage.incomplete_uploads(root.rsplit("/", 1)[0])]
    assert left == sorted(foreign)
    for item in storage.incomplete_uploads(root):
        storage.abort_upload(item.uri, item.upload_id)
        storage.abort_upload(item.uri, item.upload_id)  # what is gone is no error
    assert storage.incomplete_uploads(root) == []


class Pages:
    """Listings in pages of one; uploads as AWS pages them, which SeaweedFS pages out of order."""

    def __init__(self, fs: Any) -> None:
        self._call = fs.call_s3

    def __call__(self, method: str, **arguments: Any) -> Any:
        if method == "list_multipart_uploads":
            after = (arguments.pop("KeyMarker", ""), arguments.pop("UploadIdMarker", ""))
            all_of_them = self._call(method, **arguments)["Uploads"]
            left = sorted(((item["Key"], item["UploadId"]), item) for item in all_of_them)
            (markers, first), *more = [each for each in left if each[0] > after]
            page = {"Uploads": [first], "IsTruncated": bool(more)}
            return page | dict(zip(("NextKeyMarker", "NextUploadIdMarker"), markers, strict=True))
        if method == "list_parts":
            arguments["MaxParts"] = 1
        return self._call(method, **arguments)


@pytest.mark.server
def test_all_pages_of_a_listing_are_read(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = f"{config.root_uri}/export"
    for number in range(3):
        begin_upload(f"{folder}/{number}", PART, b"x" * number)
    fs, _ = url_to_fs(folder)
    monkeypatch.setattr(fs, "call_s3", Pages(fs))
    found = storage.incomplete_uploads(folder)
    assert [(item.uri, item.size_bytes - len(PART)) for item in found] == [
        (f"{folder}/{number}", number) for number in range(3)
    ]


def test_other_stores_have_none(tmp_path: Path) -> None:
    assert storage.incomplete_uploads(str(tmp_path)) == []
    assert storage.incomplete_uploads("memory://somewhere") == []
