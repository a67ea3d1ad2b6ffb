"""Uploads in several parts that were never completed: no listing shows them, and they cost money.

S3 keeps the parts of a large object until the upload is completed or aborted; a writer that was
killed does neither. Other stores have nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tsp_core.storage.faults import attempt
from tsp_core.storage.opening import is_s3, open_store


@dataclass(frozen=True, kw_only=True)
class Upload:
    """An upload that is not complete.

    Attributes:
        uri: Of the object that it would make.
        upload_id: Tells it from others of the same object.
        size_bytes: Of the parts that are there.
        modified_at: When it was begun or got its newest part, in seconds since 1970 by the store's
            clock.
    """

    uri: str
    upload_id: str
    size_bytes: int
    modified_at: float


def incomplete_uploads(prefix: str) -> list[Upload]:
    """List the incomplete uploads below a prefix, by URI; none where the store has no such thing.

    Raises:
        StorageError: No permission.
        StorageUnavailableError: The store did not answer.
    """
    if not is_s3(prefix):
        return []

    def work() -> list[Upload]:
        fs, path = open_store(prefix)
        bucket, key, _ = fs.split_path(path)
        folder = {"Bucket": bucket, "Prefix": f"{key.strip('/')}/" if key else ""}
        found = [_described(fs, bucket, item) for item in _uploads(fs, folder)]
        return sorted(found, key=lambda item: (item.uri, item.upload_id))

    return attempt(prefix, "list the unfinished uploads", work)


def abort_upload(uri: str, upload_id: str) -> None:
    """Have the store delete the parts of an upload; one that is gone is no error."""

    def work() -> None:
        fs, path = open_store(uri)
        bucket, key, _ = fs.split_path(path)
        try:
            fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)
        except FileNotFoundError:
            return

    attempt(uri, "abort an upload", work)


def _uploads(fs: Any, folder: dict[str, str]) -> Iterator[dict[str, Any]]:
    """All pages of a listing."""
    markers: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_multipart_uploads", **folder, **markers)
        found = page.get("Uploads", [])
        yield from found
        if not page.get("IsTruncated") or not found:
            return
        last = found[-1]  # SeaweedFS does not say where the next page begins
        markers = {
            "KeyMarker": page.get("NextKeyMarker") or last["Key"],
            "UploadIdMarker": page.get("NextUploadIdMarker") or last["UploadId"],
        }


def _described(fs: Any, bucket: str, item: dict[str, Any]) -> Upload:
    key, upload_id = item["Key"], item["UploadId"]
    times, size = [item["Initiated"].timestamp()], 0
    marker = 0
    while True:
        try:
            which = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
            page = fs.call_s3("list_parts", **which, PartNumberMarker=marker)
        except FileNotFoundError:  # completed or aborted just now
            page = {}
        for part in page.get("Parts", []):
            times.append(part["LastModified"].timestamp())
            size += part["Size"]
        if not page.get("IsTruncated"):
            break
        marker = page["NextPartNumberMarker"]
    uri = fs.unstrip_protocol(f"{bucket}/{key}")
    return Upload(uri=uri, upload_id=upload_id, size_bytes=size, modified_at=max(times))
