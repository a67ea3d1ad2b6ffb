"""What ingest does about proxies: which are missing, how they are made, which there are.

They lie in `ROOT/proxies/SETTINGS/`, one object for each content of a video. An object appears
whole or not at all, so what has its name can be trusted, whoever was killed while writing.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tsp_core import storage
from tsp_core.artifacts import ArtifactRef, fingerprint_of
from tsp_core.config import Config
from tsp_core.errors import VideoError
from tsp_core.schemas import PROXIES, read_table, table_from_rows
from tsp_core.stages.base import Shard
from tsp_core.stages.probing import Key, read_probes
from tsp_core.video.files import local_video
from tsp_core.video.proxy_files import existing_proxies, proxy_settings, proxy_uri
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

TABLE = "proxies.parquet"

_LATE = "probed before"  # marks the items of shards that make proxies alone

_log = logging.getLogger(__name__)


def recipe_of(config: Config) -> dict[str, str]:
    """What the proxies add to ingest's recipe: nothing without them."""
    return {"proxies": fingerprint_of(_settings(config))} if config.ingest.proxy.enabled else {}


def are_there(config: Config, artifact: ArtifactRef) -> bool:
    """Tell whether the proxies that an artifact of ingest lists are still there."""
    if not config.ingest.proxy.enabled:
        return True
    existing = existing_proxies(config.root_uri, _settings(config))
    return existing.keys() >= _listed(artifact)


def plan_shards(config: Config, done: Mapping[Key, str], *, first_index: int) -> list[Shard]:
    """Plan the proxies of videos that were probed by earlier runs, before they were wanted.

    Args:
        config: The configuration.
        done: The probes' shard of each file.
        first_index: Of the first of these shards.
    """
    if not config.ingest.proxy.enabled:
        return []
    existing = set(existing_proxies(config.root_uri, _settings(config)))
    missing: dict[str, list[str]] = {}
    for key, row in sorted(read_probes(config, done.values()).items()):
        if key in done and row["status"] == "ok" and row["content_hash"] not in existing:
            existing.add(row["content_hash"])  # one serves all files of this content
            missing.setdefault(done[key], []).append(json.dumps([*key, _LATE]))
    return [
        Shard(index=index, uri=uri, videos=tuple(items))
        for index, (uri, items) in enumerate(sorted(missing.items()), start=first_index)
    ]


def late_rows(config: Config, shard: Shard) -> list[dict[str, Any]] | None:
    """The rows of files that were probed before, for a shard of `plan_shards`; else None."""
    files = [json.loads(item) for item in shard.videos]
    if not all(_LATE in file for file in files):
        return None
    probed = read_probes(config, [shard.uri])
    return [probed[uri, token] for uri, token, _ in files]


def make(config: Config, rows: Sequence[Mapping[str, Any]]) -> None:
    """Make the proxies of usable videos that have none; where that fails, training does without.

    Args:
        config: The configuration.
        rows: Rows of the table `PROBES`.

    Raises:
        StorageUnavailableError: The store does not answer now.
    """
    if not config.ingest.proxy.enabled:
        return
    for row in rows:
        uri = proxy_uri(config.root_uri, _settings(config), str(row.get("content_hash")))
        if row["status"] == "ok" and not storage.exists(uri):
            try:
                _make(config, row, uri)
            except VideoError as error:
                _log.warning("%s: no proxy: %s: %s", row["uri"], error.code, error.reason)


def table_of(config: Config, rows: Sequence[Mapping[str, Any]]) -> pa.Table | None:
    """The table `PROXIES` of the videos that have one; None where no proxies are wanted."""
    if not config.ingest.proxy.enabled:
        return None
    existing = existing_proxies(config.root_uri, _settings(config))
    usable = {str(row["content_hash"]) for row in rows if row["status"] == "ok"}
    found = [
        {"content_hash": content_hash, "size_bytes": existing[content_hash]}
        for content_hash in sorted(usable & existing.keys())
    ]
    if len(found) < len(usable):
        _log.warning("%d of %d videos have no proxy", len(usable) - len(found), len(usable))
    return table_from_rows(found, PROXIES)


def summary_of(made: pa.Table | None) -> dict[str, Any]:
    """Figures for people."""
    if made is None:
        return {}
    return {"proxies": len(made), "proxy_bytes": sum(made["size_bytes"].to_pylist())}


def uris(config: Config, artifact: ArtifactRef) -> dict[str, str]:
    """URI of the proxy of each video that has one, by its SHA-256, as an artifact lists them."""
    if not config.ingest.proxy.enabled:
        return {}
    settings = _settings(config)
    return {name: proxy_uri(config.root_uri, settings, name) for name in _listed(artifact)}


def digest_of(config: Config, artifact: ArtifactRef, videos: pa.Table) -> dict[str, str]:
    """What proxies add to the digests of the data: the settings, and which videos are read so."""
    used = sorted(uris(config, artifact).keys() & set(videos["content_hash"].to_pylist()))
    return {"proxies": fingerprint_of([_settings(config), used])} if used else {}


def _settings(config: Config) -> dict[str, Any]:
    return proxy_settings(config.ingest.proxy, config.clip)


def _listed(artifact: ArtifactRef) -> set[str]:
    table = read_table(artifact.file(TABLE), PROXIES.name, columns=["content_hash"])
    return {str(content_hash) for content_hash in table["content_hash"].to_pylist()}


def _make(config: Config, row: Mapping[str, Any], uri: str) -> None:
    from tsp_core.video.proxy import write_proxy

    limits = DecodingLimits.of(config.runtime)
    content_hash = str(row["content_hash"])
    with (
        local_video(row["uri"], content_hash, config.runtime.cache_dir) as path,
        tempfile.TemporaryDirectory(prefix="tsp-shard-") as folder,
    ):
        target = Path(folder, "proxy.arrow")
        run_sandboxed(write_proxy, path, limits, dict(row), config.clip, _settings(config), target)
        if storage.sha256_of_file(path) != content_hash:
            raise VideoError("checksum", "the file changed after it was probed; run ingest again")
        storage.upload(target, uri)
