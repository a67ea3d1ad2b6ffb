"""Ingest: what every video file really holds, found out by decoding it; broken ones set aside.

Publishes `videos.parquet` (`VIDEOS`, one row per listed file) and `quarantine.parquet` (the rows
whose status is not "ok"); with `ingest.proxy` also `proxies.parquet` (which videos have one). A
rerun decodes the new and changed files only (`tsp_core.stages.probing`).
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import Config, IngestConfig
from tsp_core.errors import TooManyBadVideosError
from tsp_core.schemas import PROBES, PROXIES, VIDEOS, table_from_rows, write_table
from tsp_core.stages import proxies
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
from tsp_core.stages.probing import (
    AGAIN,
    Probed,
    as_found,
    find_probed,
    found_in_vain,
    plan_shard,
    probe_file,
    quarantined,
    read_probes,
)
from tsp_core.video.listing import Source, list_sources
from tsp_core.video.sandbox import DecodingLimits

VERSION = 5
_NOT_CONTENT = ("uri", "reason")  # columns that say nothing about the videos themselves

_log = logging.getLogger(__name__)


def plan(config: Config, inputs: Inputs) -> Plan:  # noqa: ARG001
    """List the videos and find those that have not been probed in their present state.

    Raises:
        ConfigError: No videos are configured or found, or a list file is wrong.
    """
    sources = list_sources(config.ingest)
    found = planned(config, _recipe(config, sources), num_items=len(sources))
    if found.existing is not None and proxies.are_there(config, found.existing):
        return found.model_copy(update={"num_items_done": len(sources)})
    work = _work(config.ingest)
    probed = find_probed(config, work)
    done = probed.shards
    wanted = [source for source in sources if source.code is None]
    pending = [source for source in wanted if (source.uri, source.token) not in done]
    shards = [
        plan_shard(config.root_uri, work, index, pending[first : first + config.ingest.shard_size])
        for index, first in enumerate(range(0, len(pending), config.ingest.shard_size))
    ]
    known = {key: done[key] for item in wanted if (key := (item.uri, item.token)) in done}
    late = proxies.plan_shards(config, known, first_index=len(shards))
    num_to_do = len(pending) + sum(len(shard.videos) for shard in late)
    usable = _usable(config, sources, probed, pending)
    return found.model_copy(
        update={
            "existing": None,
            "usable": usable,
            "notes": () if usable is None else (AGAIN,),
            "shards": (*shards, *late),
            "done": tuple(sorted(set(known.values()))),
            "num_items_done": len(sources) - num_to_do,
        }
    )


def _usable(
    config: Config, sources: Sequence[Source], probed: Probed, pending: Sequence[Source]
) -> ArtifactRef | None:
    """What a run published that found all files as they are, but could not read some of them."""
    if not pending or any((item.uri, item.token) not in probed.in_vain for item in pending):
        return None
    return artifacts.find(config.root_uri, _recipe(config, as_found(sources, probed.in_vain)))


def run_shard(config: Config, inputs: Inputs, shard: Shard) -> ShardReport:  # noqa: ARG001
    """Probe a batch of files by decoding them; a file that cannot be used becomes a row saying so.

    Where they are wanted, the proxies of the others are made, of files that were probed before too.

    Raises:
        StorageUnavailableError: The store does not answer now.
    """
    started = time.monotonic()
    rows = proxies.late_rows(config, shard)
    if rows is None:
        files = [json.loads(item) for item in shard.videos]
        rows = [row for uri, token in files if (row := probe_file(uri, token, config)) is not None]
        write_table(shard.uri, table_from_rows(rows, PROBES), PROBES)
    proxies.make(config, rows)
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
    probes = read_probes(config, shards)
    sources = _settled(list_sources(config.ingest), probes)
    progress(Progress(stage="ingest", done=len(sources), total=len(sources), unit="videos"))
    rows = [_video_row(source, probes.get((source.uri, source.token))) for source in sources]
    _check_bad_fraction(config, rows)
    made = proxies.table_of(config, rows)
    summary = _summary(rows) | proxies.summary_of(made)
    recipe = _recipe(config, as_found(sources, found_in_vain(probes)))
    work = _work(config.ingest)
    artifact = _publish(config.root_uri, recipe, work, rows, made, summary)
    return StageReport(stage="ingest", artifact=artifact, summary=summary)


def _recipe(config: Config, sources: Sequence[Source]) -> Recipe:
    """The files in their present state determine the artifact, not how they were listed."""
    listing = [[source.name, source.uri, source.token, source.sha256] for source in sources]
    limits = dataclasses.asdict(DecodingLimits.of(config.runtime))
    fields = {"truncated": config.ingest.truncated, "limits": limits} | proxies.recipe_of(config)
    inputs = {"files": artifacts.fingerprint_of(listing)}
    return Recipe(stage="ingest", version=VERSION, config=fields, inputs=inputs)


def _work(section: IngestConfig) -> Recipe:
    """What determines the result of probing one file, apart from the file."""
    fields = {"truncated": section.truncated}
    return Recipe(stage="ingest", version=VERSION, config=fields, inputs={})


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
        return row | quarantined(source.code, source.reason)
    if source.sha256 and row["content_hash"] and source.sha256 != row["content_hash"]:
        reason = (
            f"has SHA-256 {row['content_hash']}, but the list promises {source.sha256}; fetch the "
            "file again or mend the list"
        )
        return row | quarantined("checksum", reason)
    return row


def refused_uri(config: Config) -> str:
    """Where the quarantined videos are listed when they are too many, until a run ends well."""
    return storage.join(config.root_uri, "runs", f"{config.name}.quarantine.csv")


def _check_bad_fraction(config: Config, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse too many; the list of them, which is not published then, is put beside the record."""
    bad = [row for row in rows if row["status"] != "ok"]
    limit = config.ingest.max_bad_fraction
    uri = refused_uri(config)
    if len(bad) <= limit * len(rows):
        storage.delete(uri)  # of an earlier run
        return
    storage.write_bytes(uri, _csv_text(bad).encode())
    reasons = "; ".join(f"{row['video']!r}: {row['code']}: {row['reason']}" for row in bad[:3])
    raise TooManyBadVideosError(
        f"{len(bad)} of {len(rows)} videos ({len(bad) / len(rows):.1%}) are quarantined, more than "
        f"ingest.max_bad_fraction allows ({limit:.1%}): {reasons}"
        f"{'; ...' if len(bad) > 3 else ''}; all are listed in {storage.redact(uri)}; mend or "
        "remove them, or raise ingest.max_bad_fraction"
    )


def _csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    columns = ("video", "code", "reason", "uri")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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
    made: pa.Table | None,
    summary: dict[str, Any],
) -> ArtifactRef:
    bad = [row for row in rows if row["status"] != "ok"]
    tables = {
        "videos.parquet": (table_from_rows(rows, VIDEOS), VIDEOS),
        "quarantine.parquet": (table_from_rows(bad, VIDEOS), VIDEOS),
    }
    if made is not None:
        tables[proxies.TABLE] = (made, PROXIES)
    with tempfile.TemporaryDirectory(prefix="tsp-ingest-") as folder:
        for name, (table, schema) in tables.items():
            write_table(str(Path(folder, name)), table, schema)
        return artifacts.publish(
            root,
            recipe,
            {name: Path(folder, name) for name in tables},
            summary=summary,
            digest=_digest(rows),
            shards=artifacts.shard_folder("ingest", work.fingerprint),
        )


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Hash what the videos are, so that what follows stays fresh when files are moved."""
    digest = hashlib.sha256(f"{VIDEOS.name} {VIDEOS.version}".encode())
    for row in rows:
        content = {key: value for key, value in row.items() if key not in _NOT_CONTENT}
        text = json.dumps(content, sort_keys=True, default=np.ndarray.tolist)
        digest.update(text.encode())
    return digest.hexdigest()[:16]
