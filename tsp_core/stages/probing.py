"""What ingest finds out about one file by decoding it, and the shards where it is kept.

Shards are kept by the URI of each file and a token that changes with the file, so that a rerun
decodes the new and changed files only. Files that exceeded the decoder's limits are looked at again
when the limits change; files that could not be read (a bad sector, no permission) by the next run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from tsp_core import artifacts, storage
from tsp_core.artifacts import Recipe
from tsp_core.config import Config
from tsp_core.errors import ObjectNotFoundError, VideoError
from tsp_core.schemas import PROBES, read_table
from tsp_core.stages.base import Shard
from tsp_core.stages.verdicts import bound_token, file_token, limits_key
from tsp_core.storage.sealed import DamagedError
from tsp_core.video.listing import Source
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

_IN_VAIN = " which could not be read"
"""Ends the token that a row is kept under where the file could not be read: no file has it, so that
a later run finds nothing of the file and tries again."""
AGAIN = "files that could not be read are tried again"
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


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What earlier runs did.

    Attributes:
        shards: The shard of each file that is probed, in this state and under these limits.
        in_vain: The other files that were tried and could not be read.
    """

    shards: Mapping[Key, str]
    in_vain: frozenset[Key]


def find_probed(config: Config, work: Recipe) -> Probed:
    """Find out which files are probed already."""
    key = limits_key(config)
    folder = storage.join(config.root_uri, "shards", work.stage, work.fingerprint)
    shards = [item.uri for item in storage.list_objects(folder) if item.uri.endswith(".parquet")]

    def keys(uri: str) -> list[tuple[Key, str]]:
        """The files of a shard, each with the shard's URI; none of one damaged or gone by now."""
        try:
            table = read_table(uri, PROBES.name, columns=["uri", "token"])
        except DamagedError as error:
            _log.warning("a damaged shard is left out, its videos are probed again: %s", error)
            return []
        except ObjectNotFoundError:  # pruned since it was listed
            return []
        rows = zip(*(table.column(name).to_pylist() for name in ("uri", "token")), strict=True)
        found = ((file, file_token(bound, key)) for file, bound in rows)
        return [((file, token), uri) for file, token in found if token is not None]

    with ThreadPoolExecutor(_READERS) as pool:
        items = [item for found in pool.map(keys, shards) for item in found]
    done = {key: uri for key, uri in items if not key[1].endswith(_IN_VAIN)}
    tried = {(file, token.removesuffix(_IN_VAIN)) for (file, token), _ in items}
    return Probed(shards=done, in_vain=frozenset(tried - done.keys()))


def read_probes(config: Config, shards: Iterable[str]) -> dict[Key, dict[str, Any]]:
    """Read what shards say about files, as far as it holds under these limits.

    Times of frames (int64) and keyframes (int32) are arrays: there are as many as all videos have
    frames, and lists of Python's numbers are several times as large. What is said of a file that
    could not be read holds where nothing else is.
    """
    key = limits_key(config)
    with ThreadPoolExecutor(_READERS) as pool:
        tables = pool.map(lambda uri: read_table(uri, PROBES.name), sorted(set(shards)))
        rows = (row for table in tables for row in _rows_of(table))
        found = [(row["uri"], file_token(row["token"], key), row) for row in rows]
    in_order = sorted(found, key=lambda item: not _is_in_vain(item[2]))
    return {
        (uri, token.removesuffix(_IN_VAIN)): row
        for uri, token, row in in_order
        if token is not None
    }


def as_found(sources: Sequence[Source], in_vain: Container[Key]) -> list[Source]:
    """Mark the files that could not be read by their tokens, for the recipe of what is published.

    The next run lists them without the mark, so that it does not take what was published for its
    own.
    """
    return [
        replace(source, token=source.token + _IN_VAIN)
        if (source.uri, source.token) in in_vain
        else source
        for source in sources
    ]


def found_in_vain(probes: Mapping[Key, Mapping[str, Any]]) -> frozenset[Key]:
    """The files of which nothing is known but that they could not be read."""
    return frozenset(key for key, row in probes.items() if _is_in_vain(row))


def _is_in_vain(row: Mapping[str, Any]) -> bool:
    """Whether a row says no more than that a file could not be read."""
    return str(row["token"]).endswith(_IN_VAIN)


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

    Raises:
        TransientError: The machine or the store is in trouble, time after time.
        StorageError: The store refuses, or the cache's disk is full.
    """
    from tsp_core.video.files import file_name, local_video, missing_reason
    from tsp_core.video.trouble import UnreadableNowError, patiently

    try:
        with local_video(uri, None, config.runtime.cache_dir) as path:
            row = patiently(lambda: _measured(path, uri, config))
    except UnreadableNowError as error:
        _log.warning("%s: %s", uri, error.reason)
        return quarantined(error.code, error.reason) | {"uri": uri, "token": token + _IN_VAIN}
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
    """Columns of a row about a file.

    Raises:
        VideoError: missing: it is gone, or (`UnreadableNowError`) cannot be read.
        MachineTroubleError: It cannot be read for a reason that is none of the file's.
    """
    from tsp_core.video.files import NOT_OF_THE_CONTENT, called_by_name
    from tsp_core.video.probe import identify
    from tsp_core.video.trouble import plainly

    try:
        with called_by_name(path, uri):
            return _probed(path, config)
    except VideoError as error:
        if error.code in NOT_OF_THE_CONTENT:
            raise
        # Decoders take a file that cannot be read to its end for a short one.
        with plainly(path):
            return quarantined(error.code, error.reason) | (
                identify(path) if path.is_file() else {}
            )


def _probed(path: Path, config: Config) -> dict[str, Any]:
    """Columns of a row about a file that can be used.

    What decoding says against a file is kept for as long as the file stays, so it must say it
    twice: errors of a network's file system pass.
    """
    from tsp_core.schemas import BOUND_TO_LIMITS
    from tsp_core.video.files import NOT_OF_THE_CONTENT
    from tsp_core.video.probe import probe

    limits = DecodingLimits.of(config.runtime)

    def attempt() -> dict[str, Any]:
        """Decode the file once."""
        found = run_sandboxed(
            probe,
            path,
            limits,
            keep_truncated=config.ingest.truncated == "keep",
            max_pixels=limits.max_pixels(path),
        )
        return {"status": "ok", "code": None} | found.as_row()

    try:
        return attempt()
    except VideoError as error:
        if error.code in (*BOUND_TO_LIMITS, *NOT_OF_THE_CONTENT):
            raise
        return attempt()


def quarantined(code: str, reason: str | None) -> dict[str, Any]:
    """Columns of a row that says why a file cannot be used."""
    return {"status": "quarantined", "code": code, "reason": reason}
