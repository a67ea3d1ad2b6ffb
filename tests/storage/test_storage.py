"""Storage: atomic writes, listings, and errors that tell transient from permanent."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from aiohttp import ClientResponseError, RequestInfo
from botocore.exceptions import ClientError as StoreError
from fsspec.implementations.memory import MemoryFileSystem
from multidict import CIMultiDict, CIMultiDictProxy
from s3fs.errors import translate_boto_error
from yarl import URL

from tsp_core import storage
from tsp_core.errors import StorageError, StorageUnavailableError
from tsp_core.storage import faults


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.001, 0.001))


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_what_is_written_is_read(root: str) -> None:
    uri = storage.join(root, "a/b", "c.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"three")
    assert storage.read_bytes(uri) == b"three"
    assert storage.exists(uri)
    assert storage.is_folder(storage.join(root, "a"))
    assert not storage.is_folder(uri)
    with storage.opened(uri) as file:
        file.seek(2)
        assert file.read() == b"ree"
    assert storage.info(uri).size_bytes == 5


def test_listing_is_sorted_and_recursive(root: str) -> None:
    names = ["b.txt", "a/x.txt", "a/sub/y.txt", "a/x name é.txt"]
    for name in names:
        storage.write_bytes(storage.join(root, name), name.encode())
    found = storage.list_objects(root)
    assert [item.uri for item in found] == sorted(item.uri for item in found)
    assert {storage.read_bytes(item.uri).decode() for item in found} == set(names)
    assert storage.list_objects(storage.join(root, "absent")) == []
    globbed = storage.glob_objects(storage.join(root, "a", "*.txt"))
    assert [item.uri.rsplit("/", 1)[1] for item in globbed] == ["x name é.txt", "x.txt"]


def test_the_token_changes_with_the_content(root: str) -> None:
    uri = storage.join(root, "x")
    storage.write_bytes(uri, b"one")
    before = storage.info(uri).token
    assert storage.info(uri).token == before
    storage.write_bytes(uri, b"three")
    assert storage.info(uri).token != before


def test_files_go_up_and_down(root: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new/target"
    source.write_bytes(os.urandom(1000))
    storage.upload(source, storage.join(root, "far/object"))
    storage.download(storage.join(root, "far/object"), target)
    assert target.read_bytes() == source.read_bytes()
    assert storage.sha256_of_file(target) == storage.sha256_of_file(source)


def test_deleting_is_repeatable(root: str) -> None:
    storage.write_bytes(storage.join(root, "d/x"), b"1")
    storage.write_bytes(storage.join(root, "d/y"), b"1")
    storage.delete(storage.join(root, "d/x"))
    storage.delete(storage.join(root, "d/x"))
    storage.delete(storage.join(root, "d"), recursive=True)
    assert storage.list_objects(root) == []


def test_an_interrupted_write_leaves_the_old_object_and_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    storage.write_bytes(str(target), b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"x: cannot write: OSError: .*No space left"):
        storage.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_still_aside_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / f".{uuid.uuid4().hex}.tmp").write_bytes(b"half")
    (tmp_path / "whole").write_bytes(b"1")
    assert [Path(item.uri).name for item in storage.list_objects(str(tmp_path))] == ["whole"]


def test_readers_see_old_or_new_never_a_mixture(tmp_path: Path) -> None:
    uri, wrong = str(tmp_path / "x"), []
    versions = [bytes([i]) * 200_000 for i in range(2)]
    storage.write_bytes(uri, versions[0])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            if storage.read_bytes(uri) not in versions:
                wrong.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(20):
        storage.write_bytes(uri, versions[i % 2])
    stop.set()
    reader.join()
    assert not wrong


def test_absent_objects_are_permanent_errors(root: str, tmp_path: Path) -> None:
    uri = storage.join(root, "absent")
    for act in (storage.read_bytes, storage.info):
        with pytest.raises(StorageError, match=r"absent: cannot .*: no such file or object"):
            act(uri)
    with pytest.raises(StorageError, match="no such file"):
        storage.download(uri, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    with pytest.raises(StorageError, match="no such file"), storage.opened(uri):
        pass


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """Raises whatever `error` is set to, or sends too little."""

    protocol = "flaky"
    error: Exception | None = None
    lost_bytes = 0

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        found: dict[str, Any] = super().info(path, **options)
        return found

    def cat_file(self, path: str, **options: Any) -> bytes:
        if self.error is not None:
            raise self.error
        data: bytes = super().cat_file(path, **options)
        return data[: len(data) - self.lost_bytes]


@pytest.fixture
def flaky() -> Iterator[type[Flaky]]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    storage.write_bytes("flaky://x", b"12345")
    yield Flaky
    Flaky.error, Flaky.lost_bytes = None, 0


class ClientError(Exception):
    __module__ = "botocore.exceptions"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError("slow"), StorageUnavailableError),
        (ConnectionResetError("reset by peer"), StorageUnavailableError),
        (OSError(errno.EIO, "SlowDown: reduce your request rate"), StorageUnavailableError),
        (OSError("An error occurred (503) ServiceUnavailable"), StorageUnavailableError),
        (ClientError("(InternalError) when calling"), StorageUnavailableError),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (OSError(errno.EROFS, "Read-only file system"), StorageError),
        (PermissionError("Forbidden"), StorageError),
        (ClientError("(InvalidAccessKeyId) when calling"), StorageError),
        (ValueError("Protocol not known"), StorageError),
        (ImportError("Install s3fs"), StorageError),
    ],
    ids=repr,
)
def test_errors_are_transient_or_permanent(
    flaky: type[Flaky], error: Exception, expected: type[Exception]
) -> None:
    flaky.error = error
    with pytest.raises((StorageError, StorageUnavailableError), match="flaky://x: cannot") as got:
        storage.read_bytes("flaky://x")
    assert type(got.value) is expected
    for ask in (storage.exists, storage.is_folder):
        with pytest.raises(expected, match="flaky://x: cannot look up"):
            ask("flaky://x")


@pytest.mark.parametrize(
    ("status", "code", "is_passing"),
    [
        (409, "ConditionalRequestConflict", True),
        (409, "OperationAborted", True),
        (429, "TooManyRequests", True),
        (429, "OfAStoreOfItsOwn", True),
        (400, "RequestLimitExceeded", True),
        (503, "RequestLimitExceeded", True),
        (502, "OfAStoreOfItsOwn", True),
        (599, "OfAStoreOfItsOwn", True),
        (400, "OfAStoreOfItsOwn", False),
        (403, "AccessDenied", False),
        (501, "NotImplemented", False),
        (507, "StorageFull", False),
    ],
)
def test_what_an_s3_store_answers_is_transient_or_permanent(
    flaky: type[Flaky], status: int, code: str, is_passing: bool
) -> None:
    """As s3fs raises it, which knows some codes and makes an I/O error of the others."""
    answer = {
        "Error": {"Code": code, "Message": "by plan"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    flaky.error = translate_boto_error(StoreError(answer, "PutObject"))
    expected = StorageUnavailableError if is_passing else StorageError
    with pytest.raises((StorageError, StorageUnavailableError), match="cannot read") as got:
        storage.read_bytes("flaky://folder/object")
    assert type(got.value) is expected


@pytest.mark.parametrize(("status", "is_passing"), [(429, True), (502, True), (410, False)])
def test_what_a_web_server_answers_is_transient_or_permanent(
    flaky: type[Flaky], status: int, is_passing: bool
) -> None:
    asked = RequestInfo(URL("http://x"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://x"))
    flaky.error = ClientResponseError(asked, (), status=status, message="by plan")
    expected = StorageUnavailableError if is_passing else StorageError
    with pytest.raises((StorageError, StorageUnavailableError), match="cannot read") as got:
        storage.read_bytes("flaky://folder/object")
    assert type(got.value) is expected


def test_bugs_are_not_dressed_up(flaky: type[Flaky]) -> None:
    flaky.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        storage.read_bytes("flaky://x")


def test_a_transfer_that_is_cut_short_is_no_object(flaky: type[Flaky]) -> None:
    flaky.lost_bytes = 2
    with pytest.raises(StorageUnavailableError, match="read 3 of 5 bytes"):
        storage.read_bytes("flaky://x")


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(StorageError, match=r"nosuch://x: cannot read: .*nosuch"):
        storage.read_bytes("nosuch://x")


def test_credentials_are_in_no_message() -> None:
    secret = "https://user:hunter2@host/x?X-Amz-Signature=abcdef"
    assert storage.redact(secret) == "https://host/x"
    assert storage.redact(f"failed for {secret} there") == "failed for https://host/x there"
    assert storage.redact("/plain/path?x") == "/plain/path?x"
    with pytest.raises(StorageError) as caught:
        storage.read_bytes("nosuch://user:hunter2@host/x?token=hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "base", "expected"),
    [
        ("a/b", "/base", "/base/a/b"),
        ("../b", "/base/c", "/base/b"),
        ("/x", "/base", "/x"),
        ("s3://b/x", "/base", "s3://b/x"),
        ("a/*.mp4", "s3://b/p", "s3://b/p/a/*.mp4"),
        ("../x", "s3://b/p", "s3://b/x"),
    ],
)
def test_relative_uris(uri: str, base: str, expected: str) -> None:
    assert storage.absolute(uri, base=base) == expected


def test_local_uris() -> None:
    assert storage.is_local("/x")
    assert storage.is_local("file:///x")
    assert not storage.is_local("s3://x/y")
    assert storage.local_path("file:///x/y") == Path("/x/y")
