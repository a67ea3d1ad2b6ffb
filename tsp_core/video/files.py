"""Video files: local copies of remote objects, and names that are safe as file names."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsp_core import storage
from tsp_core.errors import ObjectNotFoundError, StorageError, VideoError

NOT_OF_THE_CONTENT = ("missing", "checksum")
"""Codes of failures of a file, not of a video's content: a later run may find the file again."""
_MAX_NAME_BYTES = 200
_FORBIDDEN = {"/": "a slash", "\\": "a backslash", "\0": "a NUL character"}


def validate_video_name(name: str) -> str:
    """Return the name if files can be called by it; it keys tables and names exported files.

    Spaces, tabs, newlines and any script are fine.

    Raises:
        VideoError: bad_name: empty, '.' or '..', with a slash, backslash or another control
            character (terminals obey them), not valid Unicode, or longer than 200 bytes.
    """
    for character, what in _FORBIDDEN.items():
        if character in name:
            raise VideoError("bad_name", f"{name!r} holds {what}; rename the video")
    if any(
        unicodedata.category(character) == "Cc" for character in name if character not in "\t\n"
    ):
        raise VideoError("bad_name", f"{name!r} holds a control character; rename the video")
    if name.strip() in ("", ".", ".."):
        raise VideoError("bad_name", f"{name!r} cannot name a file; rename the video")
    try:
        num_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise VideoError("bad_name", f"{name!r} is not valid Unicode; rename the video") from None
    if num_bytes > _MAX_NAME_BYTES:
        raise VideoError(
            "bad_name",
            f"{name[:40]!r}... is {num_bytes} bytes long; rename the video to at most "
            f"{_MAX_NAME_BYTES} bytes",
        )
    return name


def file_name(uri: str) -> str:
    """The last part of a path or URI, without a query, which may hold a signature."""
    return posixpath.basename(storage.redact(uri).rstrip("/"))


def missing_reason(uri: str, shown: str) -> str:
    """Say that a file is not there, or that it is a link that leads nowhere.

    Args:
        uri: Path or URI of the file.
        shown: What to call it.
    """
    with contextlib.suppress(OSError):  # no link
        target = storage.local_path(uri).readlink() if storage.is_local(uri) else None
        if target is not None:
            return (
                f"{shown!r} is a broken link: its target {str(target)!r} does not exist or cannot "
                "be reached; mend or remove it"
            )
    return f"{shown!r} does not exist"


@contextmanager
def local_video(uri: str, content_hash: str | None, cache_dir: str | None) -> Iterator[Path]:
    """Yield a local path of a video; remote objects are downloaded once into a cache.

    The cache is keyed by content, so a file that was fetched for probing serves the later stages.
    It is safe to share between processes; only `tsp prune` takes out what was not used for long.

    Args:
        uri: Path or URI of the video.
        content_hash: SHA-256 that the content must have, as measured at ingest; None where it is
            not known yet.
        cache_dir: Local folder of the cache; by default one in the user's cache folder.

    Raises:
        VideoError: missing, or checksum (the object is no longer what ingest saw).
        StorageUnavailableError: The store does not answer now.
    """
    if storage.is_local(uri):
        yield storage.local_path(uri)
        return
    folder, ending = video_cache(cache_dir), _ending(uri)
    cached = folder / f"{content_hash}{ending}"
    if content_hash is None or not cached.is_file():
        cached = _fetch(uri, content_hash, folder, ending)
    with contextlib.suppress(OSError):
        os.utime(cached)  # used now: `tsp prune` looks for what nobody uses
    with called_by_name(cached, uri):
        yield cached


@contextmanager
def called_by_name(path: Path, uri: str) -> Iterator[None]:
    """Call a video by its own name in errors: the hash that a copy is named by tells nothing.

    Args:
        path: Of the video, or of its copy in the cache.
        uri: Path or URI of the video.

    Raises:
        VideoError: The one that came through, with the name.
    """
    try:
        yield
    except VideoError as error:
        error.reason = error.reason.replace(repr(path.name), repr(file_name(uri)))
        error.args = (error.code, error.reason)
        raise


@contextmanager
def blamed_on_content(uri: str, content_hash: str, cache_dir: str | None) -> Iterator[None]:
    """Let a video's failure through only where the file that was read is what ingest measured.

    The file is hashed after a failure alone. A copy in the cache that is something else is thrown
    away, so that the next use downloads it again.

    Args:
        uri: Path or URI of the video, as for `local_video`.
        content_hash: SHA-256 of the content, as measured at ingest.
        cache_dir: Local folder of the cache.

    Raises:
        VideoError: checksum in place of the failure: the file is not what ingest measured, cannot
            be read, or was changed or replaced meanwhile.
    """
    is_local = storage.is_local(uri)
    if is_local:
        path = storage.local_path(uri)
    else:
        path = video_cache(cache_dir) / f"{content_hash}{_ending(uri)}"
    before = _state(path, is_local)
    try:
        yield
    except VideoError as error:
        if error.code in NOT_OF_THE_CONTENT:
            raise
        found = None
        with contextlib.suppress(OSError):
            if path.is_file():  # a pipe would be waited for
                found = storage.sha256_of_file(path)
        is_same = before == _state(path, is_local) or (before is None and not is_local)
        if found == content_hash and is_same:
            raise
        if not is_local and found != content_hash:
            with contextlib.suppress(OSError):
                path.unlink()
        why = f"has SHA-256 {found}, expected {content_hash}" if found else "cannot be read now"
        why = "was changed while it was read" if found == content_hash else why
        raise VideoError(
            "checksum",
            f"{file_name(uri)!r} is not what ingest measured: it {why}; it is tried again by the "
            f"next run; run ingest again if the file is to stay so ({error})",
        ) from error


def _state(path: Path, is_local: bool) -> tuple[int, ...] | None:
    """What changes when a file is written to or replaced; None where there is none."""
    with contextlib.suppress(OSError):
        found = path.stat()
        # Every use touches the copies in the cache; they are never written to, but replaced.
        return (found.st_ino, found.st_size, found.st_mtime_ns if is_local else 0)
    return None


def _ending(uri: str) -> str:
    """The ending of a name in the cache, from the video's own."""
    ending = posixpath.splitext(uri)[1].lower()
    return ending if re.fullmatch(r"\.[a-z0-9]{1,8}", ending) else ""


def video_cache(cache_dir: str | None) -> Path:
    """Local folder of the copies of remote videos, which are named by their content's hash."""
    if cache_dir is not None:
        return storage.local_path(cache_dir) / "videos"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tsp" / "videos"


def proxy_cache(cache_dir: str | None) -> Path:
    """Local folder of the copies of remote proxies, beside that of the videos."""
    return video_cache(cache_dir).parent / "proxies"


def _fetch(uri: str, content_hash: str | None, folder: Path, ending: str) -> Path:
    """Download an object beside the cache and move it in under its hash.

    Raises:
        StorageError: The disk of the cache is full.
    """
    aside = folder / f"incoming-{uuid.uuid4().hex}{ending}"
    try:
        try:
            storage.download(uri, aside)
            found = storage.sha256_of_file(aside)
            if found != (content_hash or found):  # damaged on the way, or another file now
                storage.download(uri, aside)
                found = storage.sha256_of_file(aside)
        except ObjectNotFoundError:
            raise VideoError("missing", f"{file_name(uri)!r}: no such object") from None
        except StorageError as error:
            if getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(
                    f"{folder}: the cache of videos has no space for {file_name(uri)!r}; free some "
                    "space there (tsp prune), or set runtime.cache_dir to a larger disk"
                ) from error
            raise
        if content_hash is not None and found != content_hash:
            raise VideoError(
                "checksum",
                f"{file_name(uri)!r} has SHA-256 {found}, expected {content_hash}; "
                "run ingest again if the file changed",
            )
        target = folder / f"{found}{ending}"
        aside.replace(target)
        return target
    finally:
        aside.unlink(missing_ok=True)
