"""Bytes, tables and files at any fsspec URI, with atomic writes and the project's own errors.

Nothing half-written is ever visible: on the local disk an object is written aside and renamed, on
object stores an upload appears when it is complete. Every function takes a path or a URI
(`file://`, `s3://`, `memory://`, ...). Credentials come from the store's own environment variables
and appear in no message.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from tsp_core.storage.faults import attempt, translated
from tsp_core.storage.faults import redact as redact
from tsp_core.storage.likely import similar_path as similar_path
from tsp_core.storage.listed import ObjectInfo as ObjectInfo
from tsp_core.storage.listed import object_info, sorted_infos
from tsp_core.storage.opening import endpoint as endpoint
from tsp_core.storage.opening import endpoint_restored as endpoint_restored
from tsp_core.storage.opening import is_s3 as is_s3
from tsp_core.storage.opening import open_store
from tsp_core.storage.opening import use_endpoint as use_endpoint
from tsp_core.storage.placing import copy_synced, create, write_synced, written_aside
from tsp_core.storage.received import Receipt, check_size
from tsp_core.storage.uploads import abort_upload as abort_upload
from tsp_core.storage.uploads import incomplete_uploads as incomplete_uploads

_CHUNK_BYTES = 8 << 20
R = TypeVar("R")


def absolute(uri: str, *, base: str = "") -> str:
    """Make a path absolute, relative to a folder or URI prefix; URIs are returned as they are."""
    if "://" in uri:
        return uri
    path = os.path.expanduser(uri)  # noqa: PTH111 - keeps globs and trailing slashes as written
    if os.path.isabs(path):  # noqa: PTH117
        return path
    if "://" in base:
        protocol, rest = base.split("://", 1)
        return f"{protocol}://{posixpath.normpath(posixpath.join(rest, path))}"
    return os.path.normpath(os.path.join(base or str(Path.cwd()), path))  # noqa: PTH118


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def is_local(uri: str) -> bool:
    """Tell whether a URI is a path of this machine."""
    protocol, _ = split_protocol(uri)
    return protocol in (None, "file", "local")


def local_path(uri: str) -> Path:
    """Return the local path of a local URI."""
    assert is_local(uri), uri
    return Path(split_protocol(uri)[1])


def read_bytes(uri: str) -> bytes:
    """Read a whole object, checking that all of it came.

    Raises:
        ObjectNotFoundError: No such object.
        StorageError: No permission.
        StorageUnavailableError: The store did not answer, or sent less than the object's size.
    """
    receipt = Receipt(uri)

    def work() -> bytes:
        fs, path = open_store(uri)
        data: bytes = fs.cat_file(path)
        if not isinstance(fs, LocalFileSystem):
            receipt.check(data, fs.info(path))
        return data

    return attempt(uri, "read", work)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object at once; readers see all of it or nothing."""

    def work() -> None:
        fs, path = open_store(uri)
        if isinstance(fs, LocalFileSystem):
            with written_aside(Path(path)) as aside:
                write_synced(aside, data)
        else:
            fs.pipe_file(path, data)

    attempt(uri, "write", work)


def upload(source: Path, uri: str) -> None:
    """Copy a local file to a URI atomically."""

    def work() -> None:
        fs, path = open_store(uri)
        if isinstance(fs, LocalFileSystem):
            with written_aside(Path(path)) as aside:
                copy_synced(source, aside)
        else:
            fs.put_file(str(source), path)
            check_size(uri, fs.info(path)["size"], source.stat().st_size, did="arrived")

    attempt(uri, "write", work)


def write_new(uri: str, content: bytes | Path) -> bool:
    """Write an object (bytes, or a local file) unless there is one; never replace one.

    Of several writers at the same time one succeeds, where the store knows conditional writes (the
    local disk, memory, S3 and most stores that speak its language).

    Returns:
        Whether the object that is there now has this content, whoever wrote it: also when the
        store's answer to our own write was lost.
    """

    def work() -> bool:
        fs, path = open_store(uri)
        return create(fs, path, content)

    if attempt(uri, "write", work):
        return True
    size, digest = size_and_sha256(content)
    return info(uri).size_bytes == size and sha256_of(uri) == digest


def download(uri: str, target: Path) -> None:
    """Copy an object to a local file atomically, checking that all of it came."""
    receipt = Receipt(uri)

    def work() -> None:
        with written_aside(target) as aside:
            fs, path = open_store(uri)
            fs.get_file(path, str(aside))
            if not isinstance(fs, LocalFileSystem):
                receipt.check(aside, fs.info(path))
            with aside.open("rb") as file:
                os.fsync(file.fileno())  # on the disk before it gets its name

    attempt(uri, "read", work)


def exists(uri: str) -> bool:
    """Tell whether an object (or folder) exists."""
    return _type_of(uri) is not None


def is_folder(uri: str) -> bool:
    """Tell whether a URI is a folder or a prefix with objects below it."""
    return _type_of(uri) == "directory"


def _type_of(uri: str) -> str | None:
    """'file', 'directory', or None; unlike fsspec's `exists`, a store's failure is no absence."""

    def work() -> str | None:
        fs, path = open_store(uri)
        try:
            return str(fs.info(path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    return attempt(uri, "look up", work)


def info(uri: str) -> ObjectInfo:
    """Describe one object."""

    def work() -> ObjectInfo:
        fs, path = open_store(uri)
        return object_info(fs, fs.info(path))

    return attempt(uri, "look up", work)


def list_objects(prefix: str, *, is_aside: bool = False) -> list[ObjectInfo]:
    """List all objects below a folder or prefix, sorted by URI; an absent prefix is empty.

    One listing call per folder (one per 1,000 objects on S3), none per object.

    Args:
        prefix: Folder or prefix.
        is_aside: List what interrupted writes have left aside, instead of the objects.
    """

    def work() -> list[ObjectInfo]:
        fs, path = open_store(prefix)
        try:
            found = fs.find(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted_infos(fs, found.values(), is_aside=is_aside)

    return attempt(prefix, "list", work)


def glob_objects(pattern: str) -> list[ObjectInfo]:
    """List the objects that a glob pattern matches, sorted by URI."""

    def work() -> list[ObjectInfo]:
        fs, path = open_store(pattern)
        found = fs.glob(path, detail=True)
        files = [value for value in found.values() if value.get("type") != "directory"]
        return sorted_infos(fs, files, is_aside=False)

    return attempt(pattern, "list", work)


def delete(uri: str, *, recursive: bool = False) -> None:
    """Delete an object, or everything below a prefix; what is absent is no error.

    Raises:
        StorageError: No permission.
    """

    def work() -> None:
        fs, path = open_store(uri)
        try:
            fs.rm(path, recursive=recursive)
        except FileNotFoundError:
            return
        # S3 answers a request to delete several objects with success, and lists those it kept.
        if not isinstance(fs, LocalFileSystem) and fs.exists(path):
            raise PermissionError("it is still there")

    attempt(uri, "delete", work)


def sha256_of(uri: str) -> str:
    """SHA-256 of an object as 64 hexadecimal digits; it is read in pieces."""

    def work(file: IO[bytes]) -> str:
        return _hexdigest(file)

    return read_with(uri, work)


def sha256_of_file(path: Path, *, on_chunk: Callable[[], None] | None = None) -> str:
    """SHA-256 of a local file as 64 hexadecimal digits; `on_chunk` is told that it goes on."""
    with path.open("rb") as file:
        return _hexdigest(file, on_chunk)


def size_and_sha256(content: bytes | Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of bytes or of a local file."""
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    return content.stat().st_size, sha256_of_file(content)


def _hexdigest(file: IO[bytes], on_chunk: Callable[[], None] | None = None) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
        if on_chunk is not None:
            on_chunk()
    return digest.hexdigest()


def read_with(uri: str, work: Callable[[IO[bytes]], R]) -> R:
    """Read from an object that is open with seek; the whole is done again after a failure."""

    def opened_and_read() -> R:
        with opened(uri) as file:
            return work(file)

    return attempt(uri, "read", opened_and_read)


@contextmanager
def opened(uri: str) -> Iterator[IO[bytes]]:
    """Open an object for reading with seek, as Parquet readers want it."""
    with translated(uri, "read"):
        fs, path = open_store(uri)
        with fs.open(path, "rb") as file:
            yield file
