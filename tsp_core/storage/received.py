"""Whether all of an object was received, and as it is in the store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsp_core.errors import StorageUnavailableError
from tsp_core.storage.faults import redact

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_without_md5: set[str] = set()
"""Buckets whose ETags are no MD5 (encryption with keys of their own)."""


class Receipt:
    """Judges what came of one object, over all attempts to read it.

    S3 gives the MD5 of an object that was uploaded in one piece as its ETag, except where a bucket
    is encrypted in certain ways. When two readings agree with each other and not with the ETag, it
    is taken for something else, in the whole bucket.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._bucket = uri.split("://", 1)[-1].split("/", 1)[0]
        self._seen: set[str] = set()

    def check(self, content: bytes | Path, info: Mapping[str, Any]) -> None:
        """Compare what came with what the store says of the object.

        Raises:
            StorageUnavailableError: It is shorter, longer, or other bytes.
        """
        num_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
        check_size(self._uri, num_bytes, info.get("size"))
        expected = _MD5.fullmatch(str(info.get("ETag") or ""))
        if expected is None or self._bucket in _without_md5:
            return
        found = _md5(content)
        if found == expected[1]:
            return
        if found in self._seen:
            _without_md5.add(self._bucket)
            return
        self._seen.add(found)
        raise StorageUnavailableError(
            f"{redact(self._uri)}: came with the MD5 {found}, the store has {expected[1]}; it was "
            "damaged on the way"
        )


def check_size(uri: str, num_bytes: int, expected: int | None, *, did: str = "read") -> None:
    """Refuse a transfer that was cut short.

    Raises:
        StorageUnavailableError: It was.
    """
    if expected is not None and num_bytes != expected:
        raise StorageUnavailableError(
            f"{redact(uri)}: {did} {num_bytes} of {expected} bytes; the transfer was cut short"
        )


def _md5(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.md5(content, usedforsecurity=False).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
