"""What ingest finds out about one file by decoding it, and the shards where it is kept.

Shards are kept by the URI of each file and a token that changes with the file, so that a rerun
decodes the new and changed files only. Files that exceeded the decoder's limits are looked at again
when the limits change.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from tsp_core import artifacts, storage
from tsp_core.artifacts import Recipe
from tsp_core.config import Config
from tsp_core.errors import VideoError
from tsp_core.schemas import PROBES, read_table
from tsp_core.stages.base import Shard
from tsp_core.stages.verdicts import bound_token, file_token, limits_key
from tsp_core.storage.sealed import DamagedError
from tsp_core.video.listing import Source
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

_READERS = 16  # shards that are read at a time; object stores answer slowly

Key = tuple[str, str]
"""URI and token of a file."""

_log = logging.getLogger(__name__)


def plan_shard(root: str, work: Recipe, index: int, sources: Sequence[Source]) -> Shard:
    """Plan a batch of files to decode."""
    key = artifacts.fingerprint_of([[source.uri, source.token] for source in sources])
    return Shard(
        index=index,
        uri=artifacts.shard_uri(root, work.stage, work.fingerprint, key),
        videos=tuple(json.dumps([source.uri, source.token]) for source in sources),
    )


def find_probed(config: Config, work: Recipe) -> dict[Key, str]:
    """Map each file that is probed, in this state and under these limits, to its shard."""
    key = limits_key(config)
    folder = storage.join(config.root_uri, "shards", work.stage, work.fingerprint)
    shards = [item.uri for item in storage.list_objects(folder) if item.uri.endswith(".parquet")]

    def keys(uri: str) -> list[tuple[Key, str]]:
        """The files of a shard, each with the shard's URI; none of a damaged one."""
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


def read_probes(config: Config, shards: Iterable[str]) -> dict[Key, dict[str, Any]]:
    """Read what shards say about files, as far as it holds under these limits.

    Times of frames (int64) and keyframes (int32) are arrays: there are as many as all videos have
    frames, and lists of Python's numbers are several times as large.
    """
    key = limits_key(config)
    with ThreadPoolExecutor(_READERS) as pool:
        tables = pool.map(lambda uri: read_table(uri, PROBES.name), sorted(set(shards)))
        rows = (row for table in tables for row in _rows_of(table))
        found = ((row["uri"], file_token(row["token"], key), row) for row in rows)
        return {(uri, token): row for uri, token, row in found if token is not None}


def _rows_of(table: pa.Table) -> list[dict[str, Any]]:
    lists = [field.name for field in table.schema if pa.types.is_list(field.type)]
    rows: list[dict[str, Any]] = table.drop_columns(lists).to_pylist()
    for name in lists:
        for row, value in zip(rows, table.column(name), strict=True):
            row[name] = value.values.to_numpy() if value.is_valid else None
    return rows


def probe_file(uri: str, token: str, config: Config) -> dict[str, Any] | None:
    """Probe one file; None when it is gone, which the listing will show.

    A file that is listed all the same is quarantined: the next listing would show it again.
    """
    from tsp_core.video.files import file_name, local_video, missing_reason

    try:
        with local_video(uri, None, config.runtime.cache_dir) as path:
            row = _measured(path, uri, config)
    except VideoError as error:
        row = quarantined(error.code, error.reason)
    if row["code"] == "missing":
        if not storage.exists(uri):
            return None
        reason = f"{missing_reason(uri, file_name(uri))}, though it is listed"
        row = quarantined("missing", reason)
    row |= {"uri": uri, "token": token}
    return row | {"token": bound_token(row, limits_key(config))}


def _measured(path: Path, uri: str, config: Config) -> dict[str, Any]:
    from tsp_core.video.files import file_name
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
        reason = error.reason.replace(repr(path.name), repr(file_name(uri)))
        return quarantined(error.code, reason) | identity


def quarantined(code: str, reason: str | None) -> dict[str, Any]:
    """Columns of a row that says why a file cannot be used."""
    return {"status": "quarantined", "code": code, "reason": reason}
