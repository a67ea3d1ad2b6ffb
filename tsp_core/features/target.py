"""The folder that `tsp features` writes to: features of one making, whatever was there before.

Features that are there already stay: a call with the same settings adds its videos, or computes
them anew, and one with other settings is refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import posixpath
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tsp_core import storage
from tsp_core.errors import ArtifactError, ConfigError, ObjectNotFoundError, StorageError
from tsp_core.features.manifest import (
    MANIFEST,
    TIMES,
    FeatureSource,
    manifest_text,
    parse_manifest,
    write_times,
)
from tsp_core.schemas import TIMES as TIMES_SCHEMA
from tsp_core.schemas import read_table

_log = logging.getLogger(__name__)
_FIX = "choose another folder (--out), or delete this one"


@dataclass(frozen=True, kw_only=True)
class Present:
    """What a folder of features holds.

    Attributes:
        shown: Where it is, for messages.
        manifest: Its manifest.
        times: The times of all rows, of the schema TIMES.
    """

    shown: str
    manifest: Mapping[str, Any]
    times: pa.Table


@contextmanager
def writable(out: str) -> Iterator[None]:
    """Find out before hours of computing whether files can be written, by writing an empty one.

    Folders that are made for it and are still empty at the end are taken away again.

    Raises:
        StorageError: They cannot.
        StorageUnavailableError: The store does not answer.
    """
    absent = _absent_folders(out)
    try:
        _refuse_unwritable(out)
        yield
    finally:
        with contextlib.suppress(OSError):  # where there are files, by now or from others
            for folder in absent:
                folder.rmdir()


def _absent_folders(out: str) -> list[Path]:
    """The folders that writing makes on the local disk, the inner ones first."""
    if not storage.is_local(out):
        return []
    place = storage.local_path(storage.absolute(out))
    with contextlib.suppress(OSError):
        return [folder for folder in (place, *place.parents) if not folder.exists()]
    return []


def _refuse_unwritable(out: str) -> None:
    aside = storage.join(out, f".{uuid.uuid4().hex}.tmp")  # as listings and `tsp prune` know it
    try:
        storage.write_bytes(aside, b"")
    except StorageError as error:
        raise StorageError(
            f"{storage.redact(out)}: features cannot be written there ({error}); choose another "
            "folder (--out)"
        ) from None
    with contextlib.suppress(StorageError):  # leave to write without leave to delete is enough
        storage.delete(aside)


def present(
    out: str, source: FeatureSource, files: Mapping[str, str], videos: Iterable[str]
) -> Present | None:
    """Read what the folder holds, refusing to mix features or to lose any.

    Args:
        out: Folder or URI prefix.
        source: How the features to be written are computed.
        files: Where they will be: the manifest's `files`.
        videos: Names of those that will have features.

    Returns:
        None when there are no features.

    Raises:
        ConfigError: They were made with other settings, or one file holds all of them and other
            videos too.
        StorageUnavailableError: The store does not answer.
    """
    shown = storage.redact(out)
    try:
        content = storage.read_bytes(storage.join(out, MANIFEST))
    except ObjectNotFoundError:
        return None
    try:
        manifest = parse_manifest(content, storage.join(shown, MANIFEST))
        if not all(
            isinstance(manifest.get(key), dict) for key in ("clip", "videos", "quarantined")
        ):
            raise ArtifactError(f"{MANIFEST} is not one of features")
        if not manifest["videos"]:
            return None
        times = read_table(storage.join(out, TIMES), TIMES_SCHEMA.name)
    except (ArtifactError, ObjectNotFoundError) as error:
        raise ConfigError(f"{shown}: holds other files or damaged ones ({error}); {_FIX}") from None
    if differences := _differences(manifest, source, files):
        raise ConfigError(
            f"{shown}: holds features of other settings: {'; '.join(differences)}; {_FIX}"
        )
    lost = sorted(set(manifest["videos"]) - set(videos))
    if lost and not all("{video}" in layout for layout in files.values()):
        names = ", ".join(repr(name) for name in lost[:3])
        raise ConfigError(
            f"{shown}: {', '.join(files.values())} would lose the features of {len(lost)} videos "
            f"that this call has none of ({names}{', ...' if len(lost) > 3 else ''}); name all "
            "videos, use the format npy, or choose another folder (--out)"
        )
    return Present(shown=shown, manifest=manifest, times=times)


def add_to_present(folder: Path, before: Present) -> None:
    """Add what a folder held to a new manifest and table of times; of each video the newer counts.

    The bytes are those of one call with all the videos. A warning names those whose features were
    of another file, or of another version of it.

    Args:
        folder: Local folder with the new files.
        before: What the folder that they go to holds.
    """
    path = folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    computed = manifest["videos"]
    _tell_replaced(before, computed)
    kept = {k: v for k, v in before.manifest["videos"].items() if k not in computed}
    manifest["videos"] = computed | kept
    refused = {
        **_not_about(computed, before.manifest["quarantined"]),
        **_not_about(kept, manifest["quarantined"]),
    }
    manifest["quarantined"] = {k: v for k, v in refused.items() if k not in manifest["videos"]}
    path.write_text(manifest_text(manifest), encoding="utf-8")
    new = read_table(str(folder / TIMES), TIMES_SCHEMA.name)
    write_times(folder / TIMES, _by_video(before.times, kept) | _by_video(new, manifest["videos"]))


def _not_about(videos: Iterable[str], refused: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is said of files, known by the ends of their paths, with these names."""
    names = set(videos)
    return {
        key: why
        for key, why in refused.items()
        if "/" not in key or posixpath.splitext(posixpath.basename(key))[0] not in names
    }


def _tell_replaced(before: Present, computed: Mapping[str, Any]) -> None:
    old = before.manifest["videos"]
    names = sorted(
        name
        for name in old.keys() & computed.keys()
        if old[name].get("content_hash") != computed[name]["content_hash"]
    )
    if names:
        shown = ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        _log.warning(
            "%s: the features of %d videos (%s) were of another file of that name, or of another "
            "version of it; they are replaced",
            before.shown,
            len(names),
            shown,
        )


def _by_video(times: pa.Table, videos: Iterable[str]) -> dict[str, pa.Table]:
    wanted = set(videos)
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(times["video"].to_pylist()):
        if name in wanted:
            rows.setdefault(name, []).append(index)
    return {name: times.take(indices) for name, indices in rows.items()}


def _differences(
    manifest: Mapping[str, Any], source: FeatureSource, files: Mapping[str, str]
) -> list[str]:
    """The settings that differ, each with both values."""
    asked = {**source.model_dump(mode="json"), "files": dict(files)}
    found = [
        f"{name} {_shown(manifest.get(name))} (now: {_shown(value)})"
        for name, value in asked.items()
        if name != "clip" and not _agree(name, manifest.get(name), value)
    ]
    made = manifest["clip"]
    return found + [
        f"clip.{name} {made.get(name)} (now: {value})"
        for name, value in asked["clip"].items()
        if made.get(name) != value
    ]


def _agree(name: str, one: Any, other: Any) -> bool:
    """Hashes of checkpoints may be known by their starts."""
    if name == "checkpoint" and str(one).startswith("sha256:"):
        return str(one).startswith(str(other)) or str(other).startswith(str(one))
    return bool(one == other)


def _shown(value: Any) -> str:
    return ", ".join(value.values()) if isinstance(value, dict) else str(value)
