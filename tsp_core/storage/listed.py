"""What stores say of their objects, in one form."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from tsp_core.storage.placing import ASIDE


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One stored object.

    Attributes:
        uri: Where it is.
        size_bytes: Its size.
        token: Changes when it changes.
        modified_at: When it was written, in seconds since 1970 by the store's clock; None where
            the store does not say.
    """

    uri: str
    size_bytes: int
    token: str
    modified_at: float | None = None


def sorted_infos(fs: Any, found: Iterable[dict[str, Any]], *, is_aside: bool) -> list[ObjectInfo]:
    """Describe objects, sorted by URI: the whole ones, or what was left aside."""
    infos = [
        object_info(fs, value)
        for value in found
        if bool(ASIDE.fullmatch(posixpath.basename(str(value["name"])))) == is_aside
    ]
    return sorted(infos, key=lambda item: item.uri)


def object_info(fs: Any, value: dict[str, Any]) -> ObjectInfo:
    """Describe an object by what a file system of fsspec says of it."""
    name = str(value["name"])
    uri = name if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(name)
    etag = value.get("ETag") or value.get("etag")
    changed = value.get("mtime") or value.get("LastModified") or value.get("created")
    size = int(value.get("size") or 0)
    token = str(etag).strip('"') if etag else str(changed)
    seconds = changed.timestamp() if isinstance(changed, datetime) else changed
    return ObjectInfo(
        uri=uri,
        size_bytes=size,
        token=f"{size}-{token}",
        modified_at=float(seconds) if isinstance(seconds, int | float) else None,
    )
