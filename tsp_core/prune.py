"""What nothing refers to any more: `tsp prune`.

An artifact is referred to by the record of a dataset's newest run (`ROOT/runs/*.json`, whichever
dataset it is), by the configuration that is given, or by the note of a run that is under way; also
one whose checkpoint or GVFs such a configuration names.
Shards are referred to as long as an artifact that was merged from their folder is: they make its
next run incremental. Proxies are as long as an artifact of ingest with their settings lists their
video. Uploads in several parts that were never completed are visible to nobody. What was written
within the last hours is left alone in any case.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tsp_core import artifacts, pipeline, schemas, storage, underway
from tsp_core.artifacts import MARKER, Marker
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.errors import ConfigError, ObjectNotFoundError
from tsp_core.runs import artifacts_named, read_records
from tsp_core.storage import ObjectInfo
from tsp_core.video import proxy_files
from tsp_core.video.files import proxy_cache, video_cache

KEEP_HOURS = 24.0
_NOTE_DAYS = 30.0  # a run without a sign of life for so long is not going to be continued
_CACHE_DAYS = 30.0  # the cache may serve other roots: only what nobody used for long
_NO_NOTE_HOURS = 24.0
"""Age of what has no note of the run that writes it, be it of another root: uploads, downloads and
temporary folders. Their writes are minutes apart, those of a long stage at most hours.
"""
_TEMPORARY = tuple(
    f"tsp-{name}-*"
    for name in (*STAGE_NAMES, "shard", "join", "samples", "features", "events", "deploy")
)
_SHARDED = ("ingest", "gvf", "export")
_FOLDERS = (*STAGE_NAMES, "shards", proxy_files.FOLDER, "training", "runs", underway.FOLDER)
_HOUR, _DAY = 3600.0, 86400.0


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Something that nothing refers to.

    Attributes:
        kind: What it is, for people.
        uri: A folder, or an object.
        size_bytes: Of all that is in it.
        modified_at: When the newest part of it was written, in seconds since 1970.
        upload_id: The store's name of an unfinished upload.
    """

    kind: str
    uri: str
    size_bytes: int
    modified_at: float
    upload_id: str = ""


@dataclass(kw_only=True)
class _References:
    """What must stay: artifacts and folders below the root, and videos of the cache."""

    artifacts: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    all_shards_of: set[str] = field(default_factory=set)
    proxies: set[str] = field(default_factory=set)
    content_hashes: set[str] = field(default_factory=set)


def find_garbage(config: Config, *, keep_hours: float = KEEP_HOURS) -> list[Garbage]:
    """List what nothing refers to and nobody has written to lately, by URI.

    Args:
        config: Its root is searched; what it would reuse stays.
        keep_hours: What was written within so many hours stays.

    Raises:
        ArtifactError: A record or note cannot be read, so that nobody knows what it refers to.
        ConfigError: There is no such root.
    """
    storage.use_endpoint(config.runtime.endpoint_url)
    _check_root(config.root_uri)
    references = _references(config)
    before = time.time() - keep_hours * _HOUR
    found = [
        *_in_root(config.root_uri, references),
        *_in_cache(config, references),
        *_temporary_folders(),
    ]
    found += _unfinished_uploads(config.root_uri)
    return sorted((item for item in found if item.modified_at < before), key=lambda it: it.uri)


def _check_root(root: str) -> None:
    """Refuse a root that is not there; of an object store, one with no object nor upload in it."""
    if storage.exists(root) or storage.incomplete_uploads(root):
        return
    raise ConfigError(
        f"root: {storage.redact(root)!r}: is not there, so there is nothing of it to prune; "
        f"correct the path{_similar_folder(root)}, or run the pipeline first"
    )


def _similar_folder(root: str) -> str:
    if not storage.is_local(root):
        return ""
    similar = storage.similar_path(storage.local_path(root), "*/")
    return f" (did you mean {str(similar)!r}?)" if similar else ""


def remove(config: Config, garbage: list[Garbage], *, keep_hours: float = KEEP_HOURS) -> int:
    """Delete what is still garbage; return how much of it was deleted.

    An artifact loses its marker first: there is no moment when a reader trusts half of it.
    """
    still = set(find_garbage(config, keep_hours=keep_hours))
    chosen = [item for item in garbage if item in still]
    for item in chosen:
        if item.kind == "temporary folder":
            shutil.rmtree(item.uri, ignore_errors=True)
            continue
        if item.upload_id:
            storage.abort_upload(item.uri, item.upload_id)
            continue
        if item.kind == "artifact":
            storage.delete(storage.join(item.uri, MARKER))
        storage.delete(item.uri, recursive=item.kind != "file")
    return len(chosen)


def _references(config: Config) -> _References:
    found = _References()
    refs = [f"{ref.stage}/{ref.fingerprint}" for ref in pipeline.published(config).values()]
    refs += artifacts_named(config)
    for record in read_records(config.root_uri):
        refs += record.uses
        for name, entry in record.stages.items():
            refs += [f"{name}/{entry.recipe.fingerprint}", *entry.sources]
    for item in storage.list_objects(storage.join(config.root_uri, underway.FOLDER)):
        if (item.modified_at or time.time()) > time.time() - _NOTE_DAYS * _DAY:
            uses = underway.read_note(item.uri).uses
            found.folders.update(uses)
            refs += uses
    for ref in dict.fromkeys(refs):
        stage = ref.split("/", 1)[0]
        if stage in STAGE_NAMES:
            found.artifacts.add(ref)
            _add_sources(config.root_uri, stage, ref, found)
    return found


def _add_sources(root: str, stage: str, ref: str, found: _References) -> None:
    """Add the shards that an artifact was merged from, and the videos that it lists."""
    uri = storage.join(root, ref)
    try:
        marker = artifacts.read_marker(uri)
    except ObjectNotFoundError:
        return
    if marker.shards:
        found.folders.add(marker.shards)
    elif marker.marker_version == 1 and stage in _SHARDED:
        found.all_shards_of.add(stage)
    if stage == "ingest":
        hashes = _content_hashes(uri, marker)
        found.content_hashes.update(hashes)
        if settings := marker.recipe.config.get("proxies"):
            folder = f"{proxy_files.FOLDER}/{settings}"
            found.proxies.update(f"{folder}/{proxy_files.proxy_name(item)}" for item in hashes)


def _content_hashes(uri: str, marker: Marker) -> list[str]:
    folder = storage.join(uri, marker.folder) if marker.folder else uri
    name = schemas.VIDEOS.name
    table = schemas.read_table(f"{folder}/videos.parquet", name, columns=["content_hash"])
    return [str(value) for value in table["content_hash"].to_pylist()]


def _in_root(root: str, references: _References) -> Iterator[Garbage]:
    units: defaultdict[tuple[str, ...], list[ObjectInfo]] = defaultdict(list)
    for item in storage.list_objects(root):
        units[_unit(artifacts.below(root, item.uri))].append(item)
    for unit, items in units.items():
        if kind := _kind(unit, items, references):
            uri = storage.join(root, *unit)
            yield _garbage(kind, uri, items)
    for item in storage.list_objects(root, is_aside=True):
        yield _garbage("file", item.uri, [item])


def _unit(name: str) -> tuple[str, ...]:
    """The folder that an object stands or falls with, as the parts of its name."""
    parts = name.split("/")
    if parts[0] == "training" and parts[-1] == "state.pt":
        return tuple(parts)
    if parts[0] in (*STAGE_NAMES, "training"):
        return tuple(parts[:2])
    return tuple(parts[:3]) if parts[0] == "shards" else tuple(parts)


def _kind(unit: tuple[str, ...], items: list[ObjectInfo], references: _References) -> str | None:
    """What kind of garbage a unit is; None when it is none, or not of this project."""
    name, top = "/".join(unit), unit[0]
    if name in references.artifacts or name in references.folders:
        return None
    if top in STAGE_NAMES and re.fullmatch("[0-9a-f]{16}", unit[1]):
        is_whole = any(item.uri.endswith(f"{name}/{MARKER}") for item in items)
        return "artifact" if is_whole else "unfinished artifact"
    if top == "shards" and len(unit) == 3:
        return None if unit[1] in references.all_shards_of else "shards"
    if top == proxy_files.FOLDER and len(unit) == 3:
        is_used = name in references.proxies or "/".join(unit[:2]) in references.folders
        return None if is_used else "file"
    if top == "training" and unit[1] not in ("history", "nodes"):
        return _kind_of_training(unit, references)
    return "file" if top == underway.FOLDER and _is_old(items) else None


def _kind_of_training(unit: tuple[str, ...], references: _References) -> str | None:
    """Checkpoints go when their run is done or forgotten; events stay with its artifact."""
    under_way = f"training/{unit[1]}" in references.folders
    if under_way or (len(unit) == 2 and f"pretrain/{unit[1]}" in references.artifacts):
        return None
    return "file" if unit[-1] == "state.pt" else "training events"


def _unfinished_uploads(root: str) -> Iterator[Garbage]:
    """What killed writers left of large objects, where no listing of objects shows it."""
    for upload in storage.incomplete_uploads(root):
        is_ours = artifacts.below(root, upload.uri).split("/")[0] in _FOLDERS
        if is_ours and _is_left(upload.modified_at):
            yield Garbage(
                kind="unfinished upload",
                uri=upload.uri,
                size_bytes=upload.size_bytes,
                modified_at=upload.modified_at,
                upload_id=upload.upload_id,
            )


def _is_old(items: list[ObjectInfo]) -> bool:
    return all(
        (item.modified_at or time.time()) < time.time() - _NOTE_DAYS * _DAY for item in items
    )


def _in_cache(config: Config, references: _References) -> Iterator[Garbage]:
    cache_dir = config.runtime.cache_dir
    for path in sorted([*video_cache(cache_dir).glob("*"), *proxy_cache(cache_dir).glob("*/*")]):
        if (stat := _stat(path)) is None:
            continue
        is_known = path.name.split(".")[0] in references.content_hashes
        is_old = stat.st_mtime < time.time() - _CACHE_DAYS * _DAY
        is_incoming = path.name.startswith("incoming-")
        if _is_left(stat.st_mtime) if is_incoming else is_old and not is_known:
            yield Garbage(
                kind="file",
                uri=str(path),
                size_bytes=stat.st_size,
                modified_at=stat.st_mtime,
            )


def _temporary_folders() -> Iterator[Garbage]:
    """What killed runs of this machine left in its folder for temporary files."""
    for pattern in _TEMPORARY:
        for folder in Path(tempfile.gettempdir()).glob(pattern):
            stats = [stat for path in [folder, *_within(folder)] if (stat := _stat(path))]
            newest = max((item.st_mtime for item in stats), default=time.time())
            if not _is_left(newest):
                continue
            yield Garbage(
                kind="temporary folder",
                uri=str(folder),
                size_bytes=sum(item.st_size for item in stats),
                modified_at=newest,
            )


def _is_left(modified_at: float) -> bool:
    """Tell whether nobody has written for so long that nobody is going to."""
    return modified_at < time.time() - _NO_NOTE_HOURS * _HOUR


def _within(folder: Path) -> list[Path]:
    try:
        return list(folder.rglob("*"))
    except OSError:  # another run is just removing it
        return []


def _stat(path: Path) -> os.stat_result | None:
    """None of what is gone by now: runs under way make and remove such files."""
    try:
        return path.stat()
    except OSError:
        return None


def _garbage(kind: str, uri: str, items: list[ObjectInfo]) -> Garbage:
    now = time.time()  # for stores that do not say when: it is taken for new, and stays
    return Garbage(
        kind=kind,
        uri=uri,
        size_bytes=sum(item.size_bytes for item in items),
        modified_at=max(item.modified_at or now for item in items),
    )
