"""Artifacts: named by their recipe, trusted only when the marker says so."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.inspection import artifact_faults
from tsp_core import artifacts, storage
from tsp_core.artifacts import MARKER, ArtifactRef, Recipe
from tsp_core.errors import ArtifactError, StorageError


def recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "stage": "gvf",
        "version": 1,
        "config": {"stride": 16, "pooling": "max"},
        "inputs": {"ingest": "abc"},
    }
    return Recipe(**{**fields, **changes})


@pytest.mark.parametrize(
    ("root", "uri", "expected"),
    [
        ("s3://b/x", "s3://b/x/gvf/1/gvf.h5", "gvf/1/gvf.h5"),
        ("s3a://b/x/", "s3://b/x/gvf/1/gvf.h5", "gvf/1/gvf.h5"),
        ("gcs://b", "gs://b/gvf/1", "gvf/1"),
        ("memory://x", "memory:///x/gvf/1", "gvf/1"),
        ("file:///data/x", "/data/x/gvf/1", "gvf/1"),
        ("/data/x", "file:///data/x/gvf/1", "gvf/1"),
        ("/", "/gvf/1", "gvf/1"),
        ("/data/x", "/data/x", ""),
        ("s3://b/x", "s3://b/xgvf/1", "s3://b/xgvf/1"),
        ("s3://b/x", "s3://gvf/1", "s3://gvf/1"),
    ],
)
def test_names_below_a_root_do_not_depend_on_its_protocol(
    root: str, uri: str, expected: str
) -> None:
    assert artifacts.below(root, uri) == expected


@pytest.mark.parametrize("protocol", ["s3a", "s3"])
def test_names_below_a_root_fit_what_a_store_lists(protocol: str) -> None:
    store = pytest.importorskip("s3fs").S3FileSystem
    listed = store(anon=True, skip_instance_cache=True).unstrip_protocol("b/x/gvf/1/gvf.h5")
    assert artifacts.below(f"{protocol}://b/x", listed) == "gvf/1/gvf.h5"


def test_the_fingerprint_depends_on_every_part_and_on_no_order() -> None:
    assert recipe().fingerprint == recipe(config={"pooling": "max", "stride": 16}).fingerprint
    others = [
        recipe(stage="export"),
        recipe(version=2),
        recipe(config={"stride": 8, "pooling": "max"}),
        recipe(inputs={"ingest": "abd"}),
        recipe(inputs={}),
    ]
    prints = {item.fingerprint for item in [recipe(), *others]}
    assert len(prints) == len(others) + 1
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in prints)


def test_fingerprints_stay_the_same_across_releases() -> None:
    assert recipe().fingerprint == artifacts.fingerprint_of(
        json.loads(
            '{"stage":"gvf","version":1,"config":{"stride":16,"pooling":"max"},'
            '"inputs":{"ingest":"abc"}}'
        )
    )
    assert artifacts.fingerprint_of({"a": 1}) == "015abd7f5cc57a2d"
    with pytest.raises(ValueError, match="JSON"):
        artifacts.fingerprint_of({"a": float("nan")})


def test_what_is_published_is_found(tmp_path: Path) -> None:
    root, picture = str(tmp_path / "root"), tmp_path / "picture.png"
    picture.write_bytes(b"png")
    assert artifacts.find(root, recipe()) is None
    made = artifacts.publish(
        root, recipe(), {"a.txt": b"text", "sub/p.png": picture}, summary={"num": 3}
    )
    assert made == artifacts.find(root, recipe()) == artifacts.open_artifact(made.uri, "gvf")
    assert storage.read_bytes(made.file("a.txt")) == b"text"
    marker = artifacts.read_marker(made.uri)
    assert marker.recipe == recipe()
    assert marker.summary == {"num": 3}
    assert {name: entry.size_bytes for name, entry in marker.files.items()} == {
        "a.txt": 4,
        "sub/p.png": 3,
    }
    for name, entry in marker.files.items():
        path = storage.local_path(made.file(name))
        assert storage.sha256_of_file(path) == entry.sha256


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    def digest(name: str, content: bytes, **options: Any) -> str:
        return artifacts.publish(
            str(tmp_path), recipe(config={"n": name}), {"x": content}, **options
        ).digest

    assert digest("1", b"same") == digest("2", b"same", summary={"other": 1})
    assert digest("3", b"other") != digest("1", b"same")
    assert digest("4", b"other", digest="given") == "given"


def test_publishing_again_keeps_the_first(tmp_path: Path) -> None:
    first = artifacts.publish(str(tmp_path), recipe(), {"x": b"1"})
    again = artifacts.publish(str(tmp_path), recipe(), {"x": b"2"})
    assert again == first
    assert storage.read_bytes(first.file("x")) == b"1"


def test_without_its_marker_an_artifact_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = storage.write_new

    def crash_before_the_marker(uri: str, content: bytes | Path) -> bool:
        if uri.endswith(MARKER):
            raise KeyboardInterrupt
        written.append(uri)
        return real(uri, content)

    monkeypatch.setattr(storage, "write_new", crash_before_the_marker)
    with pytest.raises(KeyboardInterrupt):
        artifacts.publish(str(tmp_path), recipe(), {"x": b"1", "y": b"2"})
    monkeypatch.undo()
    assert len(written) == 2
    assert artifacts.find(str(tmp_path), recipe()) is None
    uri = artifacts.artifact_uri(str(tmp_path), recipe())
    with pytest.raises(ArtifactError, match=r"no complete artifact .* run the stage 'gvf' first"):
        artifacts.open_artifact(uri, "gvf")
    assert artifacts.publish(str(tmp_path), recipe(), {"x": b"1", "y": b"2"}).uri == uri


def test_the_wrong_stage_is_refused(tmp_path: Path) -> None:
    made = artifacts.publish(str(tmp_path), recipe(), {})
    with pytest.raises(ArtifactError, match="made by the stage 'gvf', expected 'ingest'"):
        artifacts.open_artifact(made.uri, "ingest")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "damaged artifact.json"),
        (b"[1]", "damaged artifact.json"),
        (b'{"marker_version": 9}', "marker version 9 is unknown to this release, which reads 1 "),
        (b'{"marker_version": 1}', "damaged artifact.json"),
        (b"\xff", "damaged artifact.json"),
    ],
)
def test_damaged_and_unknown_markers_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    made = artifacts.publish(str(tmp_path), recipe(), {})
    storage.write_bytes(made.file(MARKER), text)
    with pytest.raises(ArtifactError, match=message):
        artifacts.find(str(tmp_path), recipe())


def test_a_marker_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    made = artifacts.publish(str(tmp_path), recipe(), {"x": b"1"}, summary={"num": 3})
    text = storage.read_bytes(made.file(MARKER))
    changed = text.replace(made.digest.encode(), made.digest[::-1].encode())
    assert changed != text
    storage.write_bytes(made.file(MARKER), changed)
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        artifacts.find(str(tmp_path), recipe())


def test_markers_of_version_1_are_read(tmp_path: Path) -> None:
    made = artifacts.publish(str(tmp_path), recipe(), {"x": b"1"})
    values = json.loads(storage.read_bytes(made.file(MARKER)))
    old = {key: values[key] for key in ("recipe", "digest", "files", "summary")}
    storage.write_bytes(made.file(MARKER), json.dumps({**old, "marker_version": 1}).encode())
    assert artifacts.find(str(tmp_path), recipe()) == made


def test_a_file_that_is_not_what_the_marker_says_is_refused(tmp_path: Path) -> None:
    made = artifacts.publish(str(tmp_path), recipe(), {"x": b"12"})
    assert artifacts.read_file(made, "x") == b"12"
    storage.write_bytes(made.file("x"), b"13")
    with pytest.raises(ArtifactError, match=r"x: is not what artifact\.json says"):
        artifacts.read_file(made, "x")
    with pytest.raises(ArtifactError, match="has no file 'y'"):
        artifacts.read_file(made, "y")


def test_files_of_another_content_are_left_alone(tmp_path: Path) -> None:
    """What a run that was killed, or one at the same time, has written."""
    uri = artifacts.artifact_uri(str(tmp_path), recipe())
    storage.write_bytes(f"{uri}/y", b"of another run")
    made = artifacts.publish(str(tmp_path), recipe(), {"x": b"1", "y": b"2"})
    assert made.uri.startswith(f"{uri}/")
    assert made == artifacts.find(str(tmp_path), recipe()) == artifacts.open_artifact(uri, "gvf")
    assert [artifacts.read_file(made, name) for name in "xy"] == [b"1", b"2"]
    assert storage.read_bytes(f"{uri}/y") == b"of another run"
    assert artifacts.publish(str(tmp_path), recipe(), {"x": b"1", "y": b"2"}) == made


@pytest.mark.parametrize("same", [True, False])
def test_runs_that_publish_at_once_agree(tmp_path: Path, same: bool) -> None:
    def publish(number: int) -> ArtifactRef:
        text = b"" if same else str(number).encode()
        files: dict[str, Path | bytes] = {name: name.encode() + text for name in "abcdef"}
        barrier.wait()
        return artifacts.publish(str(tmp_path), recipe(), files)

    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(publish, range(4)))
    assert len(set(found)) == 1
    assert artifact_faults(found[0].uri) == []
    assert artifacts.find(str(tmp_path), recipe()) == found[0]


def test_a_store_that_refuses_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> bytes:
        raise StorageError(f"{uri}: cannot read: no permission")

    monkeypatch.setattr(storage, "read_bytes", refuse)
    with pytest.raises(StorageError, match="no permission"):
        artifacts.find(str(tmp_path), recipe())


def test_shards_are_named_by_their_work(tmp_path: Path) -> None:
    uri = artifacts.shard_uri("s3://b/root", "gvf", "0123", "abc")
    assert uri == "s3://b/root/shards/gvf/0123/abc.parquet"
