"""Ingest: what every video file really holds, found out by decoding it; broken ones set aside.

Publishes `videos.parquet` (`VIDEOS`, one row per listed file) and `quarantine.parquet` (the rows
whose status is not "ok"). What was found out about a file is kept in shards by its URI and a token
that changes with the file, so a rerun decodes the new and changed files only. Files that exceeded
the decoder's limits are looked at again when the limits change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import posixpath
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import Config, IngestConfig, recipe_fields
from tsp_core.errors import TooManyBadVideosError, VideoError
from tsp_core.schemas import PROBES, VIDEOS, read_table, table_from_rows, write_table
from tsp_core.sealed import DamagedError
from tsp_core.stages.base import (
    Inputs,
    Plan,
    Progress,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
    no_progress,
    planned,
)
from tsp_core.stages.verdicts import bound_token, file_token, limits_key
from tsp_core.video.listing import Source, list_sources
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

VERSION = 2
_READERS = 16  # shards that are read at a time; object stores answer slowly
_NOT_CONTENT = ("uri", "reason")  # columns that say nothing about the videos themselves

_log = logging.getLogger(__name__)


def plan(config: Config, inputs: Inputs) -> Plan:  # noqa: ARG001
    """List the videos and find those that have not been probed in their present state.

    Raises:
        ConfigError: No videos are configured or found, or a list file is wrong.
    """
    sources = list_sources(config.ingest)
    found = planned(config, _recipe(config, sources), num_items=len(sources))
    if found.existing is not None:
        return found.model_copy(update={"num_items_done": len(sources)})
    work = _work(config.ingest)
    done = _probed(config.root_uri, work, limits_key(config))
    wanted = [source for source in sources if source.code is None]
    pending = [source for source in wanted if (source.uri, source.token) not in done]
    shards = [
        _shard(config.root_uri, work, index, pending[first : first + config.ingest.shard_size])
        for index, first in enumerate(range(0, len(pending), config.ingest.shard_size))
    ]
    used = {done[key] for source in wanted if (key := (source.uri, source.token)) in done}
    return found.model_copy(
        update={
            "shards": tuple(shards),
            "done": tuple(sorted(used)),
            "num_items_done": len(sources) - len(pending),
        }
    )


def run_shard(config: Config, inputs: Inputs, shard: Shard) -> ShardReport:  # noqa: ARG001
    """Probe a batch of files by decoding them; a file that cannot be used becomes a row saying so.

    Raises:
        StorageUnavailableError: The store does not answer now.
    """
    started = time.monotonic()
    files = [json.loads(item) for item in shard.videos]
    rows = [row for uri, token in files if (row := _probe(uri, token, config)) is not None]
    write_table(shard.uri, table_from_rows(rows, PROBES), PROBES)
    num_ok = sum(row["status"] == "ok" for row in rows)
    return ShardReport(
        index=shard.index,
        uri=shard.uri,
        num_ok=num_ok,
        num_quarantined=len(rows) - num_ok,
        seconds=time.monotonic() - started,
    )


def finish(
    config: Config,
    inputs: Inputs,  # noqa: ARG001
    plan: Plan,
    *,
    progress: ProgressCallback = no_progress,
) -> StageReport:
    """Merge what the shards found out and publish it.

    Files that appeared or changed since the plan are left to the next run; the artifact is named by
    the listing that it holds.

    Raises:
        TooManyBadVideosError: More than `ingest.max_bad_fraction` of the videos are quarantined.
    """
    shards = [*plan.done, *(shard.uri for shard in plan.shards)]
    probes = _read_probes(shards, limits_key(config))
    sources = _settled(list_sources(config.ingest), probes)
    progress(Progress(stage="ingest", done=len(sources), total=len(sources), unit="videos"))
    rows = [_video_row(source, probes.get((source.uri, source.token))) for source in sources]
    _check_bad_fraction(rows, config.ingest.max_bad_fraction)
    summary = _summary(rows)
    recipe, work = _recipe(config, sources), _work(config.ingest)
    artifact = _publish(config.root_uri, recipe, work, rows, summary)
    return StageReport(stage="ingest", artifact=artifact, summary=summary)


def _recipe(config: Config, sources: Sequence[Source]) -> Recipe:
    """The files in their present state determine the artifact, not how they were listed."""
    listing = [[source.name, source.uri, source.token, source.sha256] for source in sources]
    limits = dataclasses.asdict(DecodingLimits.of(config.runtime))
    fields = {"truncated": recipe_fields(config.ingest)["truncated"], "limits": limits}
    inputs = {"files": artifacts.fingerprint_of(listing)}
    return Recipe(stage="ingest", version=VERSION, config=fields, inputs=inputs)


def _work(section: IngestConfig) -> Recipe:
    """What determines the result of probing one file, apart from the file."""
    fields = {"truncated": section.truncated}
    return Recipe(stage="ingest", version=VERSION, config=fields, inputs={})


def _shard(root: str, work: Recipe, index: int, sources: Sequence[Source]) -> Shard:
    key = artifacts.fingerprint_of([[source.uri, source.token] for source in sources])
    return Shard(
        index=index,
        uri=artifacts.shard_uri(root, work.stage, work.fingerprint, key),
        videos=tuple(json.dumps([source.uri, source.token]) for source in sources),
    )


def _probed(root: str, work: Recipe, key: str) -> dict[tuple[str, str], str]:
    """Map each (URI, token) that is probed to the shard that holds it."""
    folder = storage.join(root, "shards", work.stage, work.fingerprint)
    shards = [item.uri for item in storage.list_objects(folder) if item.uri.endswith(".parquet")]

    def keys(uri: str) -> list[tuple[tuple[str, str], str]]:
        try:
            table = read_table(uri, PROBES.name, columns=["uri", "token"])
        except DamagedError as error:
            _log.warning("a damaged shard is left out, its videos are probed again: %s", error)
            return []
        rows = zip(*(table.column(name).to_pylist() for name in ("uri", "token")), strict=True)
        found = ((file, file_token(bound, key)) for file, bound in rows)
        return [((file, token), uri) for file, token in found if token is not None]

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(item for found in pool.map(keys, shards) for item in found)


def _read_probes(shards: Iterable[str], key: str) -> dict[tuple[str, str], dict[str, Any]]:
    with ThreadPoolExecutor(_READERS) as pool:
        tables = pool.map(lambda uri: read_table(uri, PROBES.name), sorted(set(shards)))
        rows = (row for table in tables for row in table.to_pylist())
        found = ((row["uri"], file_token(row["token"], key), row) for row in rows)
        return {(uri, token): row for uri, token, row in found if token is not None}


def _probe(uri: str, token: str, config: Config) -> dict[str, Any] | None:
    """Probe one file; None when it is gone, which the listing will show."""
    from tsp_core.video.files import local_video

    try:
        with local_video(uri, None, config.runtime.cache_dir) as path:
            row = _measured(path, uri, config)
    except VideoError as error:
        row = _quarantined(error.code, error.reason)
    if row["code"] == "missing":
        return None
    row |= {"uri": uri, "token": token}
    return row | {"token": bound_token(row, limits_key(config))}


def _measured(path: Path, uri: str, config: Config) -> dict[str, Any]:
    from tsp_core.video.probe import identify, probe

    limits = DecodingLimits.of(config.runtime)
    try:
        found = run_sandboxed(
            probe,
            path,
            limits,
            keep_truncated=config.ingest.truncated == "keep",
            max_pixels=limits.max_pixels(path),
        )
        return {"status": "ok", "code": None} | found.as_row()
    except VideoError as error:
        identity = {}
        with contextlib.suppress(OSError):  # no permission, or gone by now
            identity = identify(path) if path.is_file() else {}
        # A local copy of a remote file is named by its hash, which tells people nothing.
        reason = error.reason.replace(repr(path.name), repr(posixpath.basename(uri)))
        return _quarantined(error.code, reason) | identity


def _quarantined(code: str, reason: str | None) -> dict[str, Any]:
    return {"status": "quarantined", "code": code, "reason": reason}


def _settled(
    sources: Sequence[Source], probes: Mapping[tuple[str, str], dict[str, Any]]
) -> list[Source]:
    """Leave out the files that appeared or changed since the plan."""
    settled = [
        source
        for source in sources
        if source.code is not None or (source.uri, source.token) in probes
    ]
    if len(settled) < len(sources):
        _log.warning(
            "%d of %d videos appeared or changed while ingest ran; the next run takes them",
            len(sources) - len(settled),
            len(sources),
        )
    return settled


def _video_row(source: Source, probe: Mapping[str, Any] | None) -> dict[str, Any]:
    row = {key: value for key, value in (probe or {}).items() if key != "token"}
    row |= {"video": source.name, "uri": source.uri}
    if source.code is not None:
        return row | _quarantined(source.code, source.reason)
    if source.sha256 and row["content_hash"] and source.sha256 != row["content_hash"]:
        reason = (
            f"has SHA-256 {row['content_hash']}, but the list promises {source.sha256}; fetch the "
            "file again or mend the list"
        )
        return row | _quarantined("checksum", reason)
    return row


def _check_bad_fraction(rows: Sequence[Mapping[str, Any]], limit: float) -> None:
    bad = [row for row in rows if row["status"] != "ok"]
    if len(bad) <= limit * len(rows):
        return
    reasons = "; ".join(f"{row['video']!r}: {row['code']}: {row['reason']}" for row in bad[:3])
    raise TooManyBadVideosError(
        f"{len(bad)} of {len(rows)} videos ({len(bad) / len(rows):.1%}) are quarantined, more than "
        f"ingest.max_bad_fraction allows ({limit:.1%}): {reasons}"
        f"{'; ...' if len(bad) > 3 else ''}; mend or remove them, or raise ingest.max_bad_fraction"
    )


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    good = [row for row in rows if row["status"] == "ok"]
    return {
        "videos": len(rows),
        "ok": len(good),
        "quarantined": dict(sorted(Counter(row["code"] for row in rows if row["code"]).items())),
        "hours": round(sum(row["duration_seconds"] for row in good) / 3600, 4),
        "frames": sum(row["num_frames"] for row in good),
        "variable_rate": sum(row["is_variable_rate"] for row in good),
    }


def _publish(
    root: str,
    recipe: Recipe,
    work: Recipe,
    rows: Sequence[dict[str, Any]],
    summary: dict[str, Any],
) -> ArtifactRef:
    bad = [row for row in rows if row["status"] != "ok"]
    with tempfile.TemporaryDirectory() as folder:
        videos, quarantine = Path(folder, "videos.parquet"), Path(folder, "quarantine.parquet")
        write_table(str(videos), table_from_rows(rows, VIDEOS), VIDEOS)
        write_table(str(quarantine), table_from_rows(bad, VIDEOS), VIDEOS)
        files = {path.name: path for path in (videos, quarantine)}
        return artifacts.publish(
            root,
            recipe,
            files,
            summary=summary,
            digest=_digest(rows),
            shards=artifacts.shard_folder("ingest", work.fingerprint),
        )


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Hash what the videos are, so that what follows stays fresh when files are moved."""
    digest = hashlib.sha256(f"{VIDEOS.name} {VIDEOS.version}".encode())
    for row in rows:
        content = {key: value for key, value in row.items() if key not in _NOT_CONTENT}
        digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()[:16]
