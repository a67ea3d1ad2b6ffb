"""Bytes, tables and files at any fsspec URI, with atomic writes and the project's own errors.

Nothing half-written is ever visible: on the local disk an object is written aside and renamed, on
object stores an upload appears when it is complete. Every function takes a path or a URI
(`file://`, `s3://`, `memory://`, ...). Credentials come from the store's own environment variables
and appear in no message.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem

from tsp_core.errors import (
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
    TspError,
)

_CHUNK_BYTES = 8 << 20
_ASIDE = re.compile(r"\.[0-9a-f]{32}\.tmp")
_PERMANENT_ERRNOS = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP}
_TRANSIENT_CODES = re.compile(
    r"SlowDown|InternalError|ServiceUnavailable|RequestTimeout|Throttl|\b50[0234]\b|timed? ?out"
    r"|Connection|reset by peer|IncompleteRead|ContentLength|EndpointConnection|Broken pipe",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One stored object: its URI, size in bytes, and a token that changes when it changes."""

    uri: str
    size_bytes: int
    token: str


def use_endpoint(endpoint_url: str) -> None:
    """Send S3 requests of this process and its children to an S3-compatible store."""
    os.environ["AWS_ENDPOINT_URL"] = endpoint_url


@contextmanager
def endpoint_restored() -> Iterator[None]:
    """Undo at the end what `use_endpoint` did meanwhile."""
    before = os.environ.get("AWS_ENDPOINT_URL")
    try:
        yield
    finally:
        os.environ.pop("AWS_ENDPOINT_URL", None)
        if before is not None:
            os.environ["AWS_ENDPOINT_URL"] = before


def redact(uri: str) -> str:
    """Remove user names, passwords and query strings from the URIs in a message."""
    text = re.sub(r"(?<=://)[^/@\s]*@", "", uri)
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", text)


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
    with _errors(uri, "read"):
        fs, path = _open(uri)
        data: bytes = fs.cat_file(path)
        if not isinstance(fs, LocalFileSystem):
            size = fs.info(path)["size"]
            if size is not None and len(data) != size:
                raise StorageUnavailableError(
                    f"{redact(uri)}: read {len(data)} of {size} bytes; the transfer was cut short"
                )
        return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object at once; readers see all of it or nothing."""
    with _errors(uri, "write"):
        fs, path = _open(uri)
        if isinstance(fs, LocalFileSystem):
            with _written_aside(Path(path)) as aside, aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        else:
            fs.pipe_file(path, data)


def upload(source: Path, uri: str) -> None:
    """Copy a local file to a URI atomically."""
    with _errors(uri, "write"):
        fs, path = _open(uri)
        if isinstance(fs, LocalFileSystem):
            with _written_aside(Path(path)) as aside:
                shutil.copyfile(source, aside)
        else:
            fs.put_file(str(source), path)
            size = fs.info(path)["size"]
            if size != source.stat().st_size:
                raise StorageUnavailableError(
                    f"{redact(uri)}: {size} bytes arrived of {source.stat().st_size}"
                )


def download(uri: str, target: Path) -> None:
    """Copy an object to a local file atomically, checking its size."""
    with _errors(uri, "read"), _written_aside(target) as aside:
        fs, path = _open(uri)
        fs.get_file(path, str(aside))
        size = fs.info(path).get("size")
        if size is not None and aside.stat().st_size != size:
            raise StorageUnavailableError(
                f"{redact(uri)}: read {aside.stat().st_size} of {size} bytes"
            )


def exists(uri: str) -> bool:
    """Tell whether an object (or folder) exists."""
    return _type_of(uri) is not None


def is_folder(uri: str) -> bool:
    """Tell whether a URI is a folder or a prefix with objects below it."""
    return _type_of(uri) == "directory"


def _type_of(uri: str) -> str | None:
    """'file', 'directory', or None; unlike fsspec's `exists`, a store's failure is no absence."""
    with _errors(uri, "look up"):
        fs, path = _open(uri)
        try:
            return str(fs.info(path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None


def info(uri: str) -> ObjectInfo:
    """Describe one object."""
    with _errors(uri, "look up"):
        fs, path = _open(uri)
        return _object_info(fs, fs.info(path))


def list_objects(prefix: str) -> list[ObjectInfo]:
    """List all objects below a folder or prefix, sorted by URI; an absent prefix is empty.

    One listing call per folder (one per 1,000 objects on S3), none per object.
    """
    with _errors(prefix, "list"):
        fs, path = _open(prefix)
        try:
            found = fs.find(path, detail=True)
        except FileNotFoundError:
            return []
        return _sorted_infos(fs, found)


def glob_objects(pattern: str) -> list[ObjectInfo]:
    """List the objects that a glob pattern matches, sorted by URI."""
    with _errors(pattern, "list"):
        fs, path = _open(pattern)
        found = fs.glob(path, detail=True)
        return _sorted_infos(
            fs, {key: value for key, value in found.items() if value.get("type") != "directory"}
        )


def delete(uri: str, *, recursive: bool = False) -> None:
    """Delete an object, or everything below a prefix; what is absent is no error."""
    with _errors(uri, "delete"):
        fs, path = _open(uri)
        try:
            fs.rm(path, recursive=recursive)
        except FileNotFoundError:
            return


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a local file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def opened(uri: str) -> Iterator[IO[bytes]]:
    """Open an object for reading with seek, as Parquet readers want it."""
    with _errors(uri, "read"):
        fs, path = _open(uri)
        with fs.open(path, "rb") as file:
            yield file


def _open(uri: str) -> tuple[Any, str]:
    protocol, _ = split_protocol(uri)
    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a"):
        options["use_listings_cache"] = False  # other processes write below the same prefix
    elif protocol in (None, "file", "local"):
        options["auto_mkdir"] = True
    fs, path = url_to_fs(uri, **options)
    return fs, path


def _sorted_infos(fs: Any, found: dict[str, Any]) -> list[ObjectInfo]:
    infos = [
        _object_info(fs, value)
        for name, value in found.items()
        if not _ASIDE.fullmatch(posixpath.basename(name))
    ]
    return sorted(infos, key=lambda item: item.uri)


def _object_info(fs: Any, value: dict[str, Any]) -> ObjectInfo:
    name = str(value["name"])
    uri = name if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(name)
    etag = value.get("ETag") or value.get("etag")
    changed = value.get("mtime") or value.get("LastModified") or value.get("created")
    size = int(value.get("size") or 0)
    token = str(etag).strip('"') if etag else str(changed)
    return ObjectInfo(uri=uri, size_bytes=size, token=f"{size}-{token}")


@contextmanager
def _written_aside(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside the target and rename it into place on success."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield aside
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _errors(uri: str, action: str) -> Iterator[None]:
    """Turn what stores raise into the project's permanent and transient errors."""
    try:
        yield
    except (TspError, GeneratorExit):
        raise
    except FileNotFoundError:
        raise ObjectNotFoundError(
            f"{redact(uri)}: cannot {action}: no such file or object"
        ) from None
    except (IsADirectoryError, NotADirectoryError):
        raise StorageError(f"{redact(uri)}: cannot {action}: a folder is in the way") from None
    except PermissionError as error:
        raise StorageError(
            f"{redact(uri)}: cannot {action}: no permission ({_cause(error)}); check the "
            "credentials (AWS_ACCESS_KEY_ID, ...) and the store's policy"
        ) from None
    except (TimeoutError, ConnectionError) as error:
        raise StorageUnavailableError(f"{redact(uri)}: cannot {action}: {_cause(error)}") from error
    except (OSError, ValueError, ImportError) as error:
        raise _classified(error, uri, action) from error
    except Exception as error:
        if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "fsspec")):
            raise _classified(error, uri, action) from error
        raise


def _classified(error: Exception, uri: str, action: str) -> TspError:
    message = f"{redact(uri)}: cannot {action}: {_cause(error)}"
    number = getattr(error, "errno", None)
    transient = number not in _PERMANENT_ERRNOS and _TRANSIENT_CODES.search(
        f"{type(error).__name__} {error}"
    )
    return StorageUnavailableError(message) if transient else StorageError(message)


def _cause(error: BaseException) -> str:
    text = redact(str(error)) or type(error).__name__
    return f"{type(error).__name__}: {text}" if text != type(error).__name__ else text
